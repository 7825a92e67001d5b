"""Compare the learning rates of later trainings with those of the first at the same steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_lth.rounds import Rounds
from keras_lth.surgery.optimizers import leaves, optimizers_of


class Rates:
    """Reads the rates around the first steps of a training, and at each epoch's first step.

    Before a step, a rate shows what callbacks ahead of ours set; within it, what those behind ours set. So both orders
    are covered. A schedule is not such a rate: it is rewound with the step count.
    """

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {}
        self._start = self._per_hook = 0
        self._outside: Sequence[str] = ()
        self._epochs = False

    def begin(self, machine: Rounds, per_hook: int, outside: Sequence[str], epochs: bool) -> None:
        """Begin a ``fit``; ``outside``: the callbacks in its own list; ``epochs``: whether all epochs must agree."""
        self._start, self._per_hook, self._outside, self._epochs = machine.start(1), per_hook, outside, epochs

    def see(self, model: keras.Model, round: int, step: int, when: str, *, begins: bool, name: str) -> None:
        """Record the rates of the first training; raise ``RuntimeError`` if those of another training differ."""
        if not (self._start <= step <= self._start + self._per_hook or (begins and self._epochs)):
            return
        rates = rates_of(model)
        where = f"{step} {when}"
        if round == 0:
            self.seen[where] = rates
        elif where in self.seen and not np.allclose(rates, self.seen[where], rtol=1e-5, atol=0):
            raise RuntimeError(
                f"Round {round} has a learning rate of {_listed(rates)} at step {step}, but the first training had "
                f"{_listed(self.seen[where])} there: a callback in fit's own list sets it over all rounds "
                f"({', '.join(self._outside) or 'none is listed'}). Pass that callback as {name}(callbacks=[…]), which "
                f"restarts it in each round. A callback that counts steps must reset its count in on_train_begin."
            )


def rates_of(model: keras.Model) -> list[float]:
    """Return the rates of all optimizers of ``model`` that a callback could set."""
    held: list[Any] = [vars(leaf).get("_learning_rate") for one in optimizers_of(model) for leaf in leaves(one)]
    return [float(rate.numpy()) for rate in held if isinstance(rate, keras.Variable)]


def _listed(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)
