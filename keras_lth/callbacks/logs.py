"""Predict which logs the trainings of a ``fit`` will have, before its first step."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import keras

from keras_lth.callbacks.fit_call import fit_argument
from keras_lth.rounds import Rounds
from keras_lth.surgery.metrics import build_metrics, rehearse, reported


@dataclass(frozen=True)
class Coming:
    """The logs that every training of a fit will have.

    Attributes:
        training: logs of its steps.
        validation: validation logs with their prefix; empty unless every training has a validation.
        sure: whether ``training`` is certain; a custom ``train_step`` may return any logs.
        why: a sentence on what is missing and why.
    """

    training: list[str]
    validation: list[str]
    sure: bool
    why: str


def logs_to_come(callback: Any, machine: Rounds) -> Coming:
    """Predict the logs of the trainings.

    One batch of ``validation_data`` is evaluated, so that data of a wrong shape is an error now.
    """
    model = callback.model
    validation = _validation(callback)
    running = fit_argument(model, "epoch_iterator")
    built = running is None or build_metrics(model, running._distributed_dataset.element_spec)
    sure = built and type(model).train_step is keras.Model.train_step
    if validation is None:
        return Coming(reported(model), [], sure, " fit has no validation_data.")
    every = callback.params.get("validation_freq") or fit_argument(model, "validation_freq", 1)
    missing = _unvalidated(machine, every)
    if missing is not None:
        why = f" validation_freq={every} leaves training {missing} without a validation: use validation_freq=1."
        return Coming(reported(model), [], sure, why)
    return Coming(reported(model), [f"val_{name}" for name in validation], sure, "")


def _validation(callback: Any) -> list[str] | None:
    """The logs of a validation, or None when there is none."""
    model = callback.model
    if callback.params.get("validation_freq"):  # our own loop
        return reported(model)
    if fit_argument(model, "validation_data") is None:
        return None
    x, y, weight = (fit_argument(model, name) for name in ("val_x", "val_y", "val_sample_weight"))
    if inspect.isgenerator(x):
        return reported(model)  # reading would use up its batches
    size = fit_argument(model, "validation_batch_size") or fit_argument(model, "batch_size")
    try:
        return rehearse(model, x, y, weight, size)
    except Exception as error:
        raise ValueError(f"validation_data cannot be evaluated: {error}") from error


def _unvalidated(machine: Rounds, every: int | Collection[int]) -> int | None:
    """The first training without a validation, if there is one."""
    first = 0
    for round in range(machine.rounds + 1):
        epochs = range(first + 1, first + machine.epochs_of(round) + 1)
        if not any(epoch in every if isinstance(every, Collection) else epoch % every == 0 for epoch in epochs):
            return round
        first = epochs.stop - 1
    return None
