"""The logs that a model reports, and whether a higher or a lower value is better."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import keras

__all__ = ["build_metrics", "direction", "is_accuracy", "rehearse", "reported", "undisturbed"]

Direction = Literal["min", "max"]
MODES = ("auto", "max", "min")
# For logs without a metric that knows its direction, such as a loss that a custom train step returns.
_LESS = ("loss", "error", "crossentropy", "perplexity", "mse", "mae")
_MORE = ("accuracy", "acc")


def direction(model: keras.Model, name: str, mode: str = "auto") -> Direction:
    """Return ``"min"`` or ``"max"``: whether a lower or a higher value of the log ``name`` is better.

    ``mode`` decides. With ``"auto"`` the metric itself decides (its ``_direction``, as for Keras' ``EarlyStopping``), a
    loss should be small, and only after that the last word of the name decides.

    Raises ``ValueError`` if none of these applies: pass ``mode``.
    """
    if mode not in MODES:
        raise ValueError(f'mode must be "auto", "max" or "min", not {mode!r}.')
    if mode != "auto":
        return "min" if mode == "min" else "max"
    bare = name.removeprefix("val_")
    if bare == "loss":
        return "min"
    metric = dict(_metrics(model)).get(bare)
    told = getattr(metric, "_direction", None)
    if told is not None:
        return "max" if told == "up" else "min"
    if isinstance(getattr(metric, "_fn", None), keras.losses.Loss) or bare.endswith(_LESS):
        return "min"
    if bare.endswith(_MORE):
        return "max"
    raise ValueError(f'Whether a higher or lower {name!r} is better is not known: pass mode="max" or mode="min".')


def is_accuracy(name: str) -> bool:
    """Return whether a log is an accuracy, judged by its name."""
    return "acc" in name


def reported(model: keras.Model) -> list[str]:
    """Return the names of the logs of the metrics of ``model``; a custom ``train_step`` may return others.

    The metrics of ``compile(metrics=…)`` are included once they are built, by a step or by ``build_metrics``.
    """
    return [name for name, _ in _metrics(model)]


def build_metrics(model: keras.Model, spec: Any) -> bool:
    """Build the metrics of ``compile(metrics=…)`` as a first step would; ``spec`` is the specification of a batch.

    Returns whether they are built: a model with a custom step may need that step to build them.
    """
    unbuilt = [metric for metric in model.metrics if not getattr(metric, "built", True)]
    if not unbuilt:
        return True
    try:
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=spec)
    except (ValueError, RuntimeError, TypeError, NotImplementedError, AttributeError):
        # Keras runs the model's own call and loss on symbols, which may fail in the user's code in any of these ways
        # (NotImplementedError: a model without call). Not an error yet: the first real step builds them or raises.
        return False
    return all(getattr(metric, "built", True) for metric in unbuilt)


def rehearse(model: keras.Model, x: Any, y: Any = None, sample_weight: Any = None, batch_size: Any = None) -> list[str]:
    """Evaluate one batch and return the names of the logs; the model's state does not change.

    Data that cannot be evaluated is then an error before hours of training; the error is Keras' own.
    """
    with undisturbed(model):
        logs = model.evaluate(
            x, y, sample_weight=sample_weight, batch_size=batch_size, steps=1, verbose=0, return_dict=True
        )
    model.reset_metrics()
    return list(logs)


@contextmanager
def undisturbed(model: keras.Model) -> Iterator[None]:
    """Restore what a forward pass changes: noise of layers that sample, states of recurrent layers."""
    state = [(variable, variable.numpy()) for variable in model.non_trainable_variables]
    try:
        yield
    finally:
        for variable, value in state:
            variable.assign(value)


def _metrics(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """Log → the metric behind it, under the names that Keras uses, also with several outputs and with weights."""
    for metric in model.metrics:
        if not getattr(metric, "built", True):
            continue
        result = metric.result()
        names = list(result) if isinstance(result, dict) else [metric.name]
        members = getattr(metric, "metrics", None)
        # The metrics of compile() are in the order of their results.
        held = members if members is not None and len(members) == len(names) else [metric] * len(names)
        yield from zip(names, held, strict=True)
