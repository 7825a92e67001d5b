"""What the tests of callbacks that move masks share: a watcher, a run that is killed, and the bits at its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_lth as lth
from keras_lth import surgery, training
from tests.callbacks import small


class Watch(keras.callbacks.Callback):
    """After a mover in the list: keeps the masks after each step that it sees, and checks that pruned weights are 0."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: dict[int, lth.Masks] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        masks = lth.masks_of(self.model)
        self.masks[surgery.step_of(self.model)] = masks
        held = surgery.variables(self.model)
        for path, mask in masks.items():
            assert not held[path].numpy()[~mask].any()

    def steps_until_stop(self) -> int:
        """The loop shows every step."""
        return 1


class Killed(Exception):
    pass


class Strike(keras.callbacks.Callback):
    """Raises after a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.at, self.steps = step, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps = surgery.step_of(self.model)
        if self.steps >= self.at:
            raise Killed

    def get_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {}, {}

    def set_state(self, state: Any, arrays: Any) -> None:
        """A resumed run is not struck again."""

    def steps_until_stop(self) -> int | None:
        return self.at - self.steps if self.at > self.steps else None


def loop(callback: keras.callbacks.Callback, *beside: Any, model: Any = None, **options: Any) -> keras.Model:
    """Three epochs of six steps in our loop."""
    built = model or small.model()
    # Without XLA, which takes seconds to compile.
    training.fit(built, small.data(), epochs=3, callbacks=[callback, *beside], jit_compile=False, **options)
    return built


def fit(callback: keras.callbacks.Callback, *beside: Any, model: Any = None, **options: Any) -> keras.Model:
    """The same in ``fit``."""
    built = model or small.model()
    built.fit(small.data(), epochs=3, callbacks=[callback, *beside], **{"verbose": 0, "shuffle": False, **options})
    return built


def same(one: keras.Model, other: keras.Model) -> bool:
    """Whether weights, slots and masks are equal bit by bit."""
    ends = surgery.snapshot(one), surgery.snapshot(other)
    return ends[0].differences(ends[1]) == [] and lth.masks_of(one) == lth.masks_of(other)


def killed_is_whole(make: Callable[[], keras.callbacks.Callback], folder: Path, step: int) -> None:
    """A run killed after ``step``, inside an epoch, and resumed ends as one that was not."""
    whole = loop(make())
    for at in (step, 10**6):
        built, callback = small.model(), make()
        try:
            loop(callback, Strike(at), model=built, checkpoints=folder, checkpoint_every=0)
        except Killed:
            assert at == step
    assert same(built, whole)


def weights(model: keras.Model) -> list[np.ndarray]:
    return [np.array(value) for value in model.get_weights()]
