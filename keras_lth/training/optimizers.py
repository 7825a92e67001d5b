"""Momentum by the papers' equations, rates in pieces, and optimizers by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_lth.arguments import real


@keras.saving.register_keras_serializable(package="keras_lth")
class Momentum(keras.optimizers.SGD):
    """Train by v ← μv + g + λw, w ← w − ηv, as the papers' code does (PyTorch's SGD); with ``nesterov`` by w ← w − η(g
    + λw + μv).

    Keras' SGD has the rate in the velocity, v ← μv − ηg, which differs for some ten steps after η has changed, and
    decays outside the gradient. Gradients are clipped before λw is added, as in PyTorch.

    Args:
        learning_rate: η, a number or a schedule.
        momentum: μ in [0, 1].
        nesterov: use Nesterov's momentum.
        weight_decay: λ ≥ 0, of every trained variable, biases and normalisations too. A model's option weight_decay
            does the same through the loss: use one of the two.
        options: as of any Keras optimizer.

    Raises:
        ValueError: momentum or weight_decay is out of range; names it.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float | None = 0.0,
        **options: Any,
    ) -> None:
        decay = real(weight_decay or 0.0, "weight_decay")
        if decay < 0:
            raise ValueError(f"weight_decay must be a number of at least 0, such as 1e-4, not {weight_decay!r}")
        if not 0 <= real(momentum, "momentum") <= 1:
            raise ValueError(f"momentum must be a number from 0 to 1, such as 0.9, not {momentum!r}")
        # Keras' own attribute weight_decay would decay outside the gradient.
        super().__init__(learning_rate, float(momentum), nesterov, **options)
        self.decay = decay

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its velocity."""

        def number(value: Any) -> Any:
            return ops.cast(value, variable.dtype)

        step = number(gradient)
        if self.decay:
            step = ops.add(step, ops.multiply(number(self.decay), variable))
        if self.momentum:
            slot = self.momentums[self._get_variable_index(variable)]
            velocity = ops.add(ops.multiply(slot, number(self.momentum)), step)
            self.assign(slot, velocity)
            step = ops.add(step, ops.multiply(velocity, number(self.momentum))) if self.nesterov else velocity
        self.assign_sub(variable, ops.multiply(step, number(learning_rate)))

    def get_config(self) -> dict[str, Any]:
        """Return what creates it again."""
        config: dict[str, Any] = {**super().get_config(), "weight_decay": self.decay}
        return config


@keras.saving.register_keras_serializable(package="keras_lth")
class Pieces(keras.optimizers.schedules.LearningRateSchedule):
    """A rate in pieces, ``((from step, rate), …)`` from step 0 on, as `keras_lth.rates.rates` returns them.

    A rate is a number, or a formula in steps of the whole training: ``{"linear": [s, r, t, q]}`` is the line from r at
    step s to q at step t, ``{"cosine": [s, r, t, q]}`` half a wave between the same points.
    """

    def __init__(self, pieces: Any) -> None:
        self.pieces = [(int(step), rate) for step, rate in pieces]

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step as a scalar of Keras' float type."""
        step = ops.cast(step, "int64")
        found = _rate(self.pieces[0][1], step)
        for begin, rate in self.pieces[1:]:
            found = ops.where(ops.greater_equal(step, begin), _rate(rate, step), found)
        return found

    def get_config(self) -> dict[str, Any]:
        """Return what creates it again."""
        return {"pieces": self.pieces}


def named(name: str, **options: Any) -> keras.optimizers.Optimizer:
    """Create an optimizer by its name: "momentum" is `Momentum`, any other name is Keras' ("sgd", "adam", …).

    Raises:
        ValueError: a name that Keras does not know, or an option out of range.
    """
    kind = Momentum if name == "momentum" else type(keras.optimizers.get(name))
    return kind(**options)


def _rate(rate: Any, step: Any) -> Any:
    kind = keras.config.floatx()
    if not isinstance(rate, Mapping):
        return ops.cast(float(rate), kind)
    ((form, (begin, first, end, last)),) = rate.items()
    share = ops.cast(step - begin, kind) / float(end - begin)
    if form == "cosine":
        share = (1 - ops.cos(share * math.pi)) / 2
    elif form != "linear":
        raise ValueError(f"a rate is a number, or a formula linear or cosine, not {form!r}")
    return float(first) + share * (float(last) - float(first))
