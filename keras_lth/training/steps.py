"""Compiled steps of a model: many per call."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_lth.training.feeds import Step, convolves_on_cpu, feed_for, on_tpu
from keras_lth.training.replicated import (
    accumulated,
    accumulation_steps,
    clipped_together,
    clips,
    cut_step,
    fixed_accumulation,
)

__all__ = ["TestSteps", "TrainSteps", "uses_jit"]


class TrainSteps:
    """Training steps: the model's own ``train_step``, which may be custom."""

    def __init__(self, model: keras.Model, data: Any, jit_compile: bool) -> None:
        self.model = model
        several = model.distribute_strategy.num_replicas_in_sync > 1
        self._cut = jit_compile and several
        self._clips = several and clips(model)
        self._accumulates = accumulation_steps(model) if several else 1
        self._feed = feed_for(model, data, self._variant, jit_compile)
        self._feed.check_shares()

    def run(self, epoch: int, seed: int, first: int, count: int, augment: int | None = None) -> None:
        """Run steps ``first … first + count - 1`` of an epoch in the data order of ``seed``.

        ``augment``: the seed of the augmentation; by default ``seed``.
        """
        if self._accumulates == 1:
            self._feed.run(epoch, seed, first, count, None, augment)
            return
        begin, end = first, first + count
        while begin < end:
            left = self._accumulates - accumulated(self.model)
            steps = min(end - begin, left - 1) or 1
            self._feed.run(epoch, seed, begin, steps, left == 1, augment)
            begin += steps

    def _variant(self, last: bool | None) -> Step:
        step = cut_step(self.model) if self._cut else self.model.train_step
        if self._clips:
            step = clipped_together(step, self.model)
        return step if last is None else fixed_accumulation(step, self.model, last)


class TestSteps:
    """Evaluation steps: the model's own ``test_step``, over all examples in order."""

    def __init__(self, model: keras.Model, data: Any, jit_compile: bool) -> None:
        self.model = model
        self.data = data
        self._cut = jit_compile and model.distribute_strategy.num_replicas_in_sync > 1
        self._feed = feed_for(model, data, self._variant, jit_compile)

    def run(self) -> None:
        """Run all steps of an epoch."""
        self._feed.run_all(None)

    def _variant(self, _: Any) -> Step:
        return tf.function(self.model.test_step, jit_compile=True) if self._cut else self.model.test_step


def uses_jit(model: keras.Model, asked: bool | None) -> bool:
    """Return whether XLA compiles the steps.

    This is as requested; else as the model was compiled under a strategy; else, on one device, if the model and its
    layers support it, except for convolutions on a CPU, which are faster without. On a TPU the strategy compiles them.
    """
    if on_tpu(model):
        return False
    if asked is not None:
        return asked
    if model.distribute_strategy.num_replicas_in_sync > 1:
        return bool(model.jit_compile)
    supported = all(getattr(layer, "supports_jit", True) for layer in model._flatten_layers())
    return supported and not model.run_eagerly and not convolves_on_cpu(model)
