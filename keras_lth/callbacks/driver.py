"""What a callback of several trainings does at every hook: pass it on, print on its own lines, lose nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_lth import surgery


class Driver(keras.callbacks.Callback):
    """Passes the hooks of a validation to ``_inner``, and is copied without its state."""

    name: str
    verbose: int
    callbacks: list[keras.callbacks.Callback]
    _inner: keras.callbacks.CallbackList
    _bar: bool  # whether Keras' progress bar may be on the line

    def __deepcopy__(self, memo: dict[int, Any]) -> Driver:
        # keras-tuner copies callbacks before each fit: the copy starts without locks and state.
        other = copy.copy(self)
        memo[id(self)] = other
        other.callbacks = copy.deepcopy(self.callbacks, memo)
        other._forget()
        return other

    def set_model(self, model: keras.Model) -> None:
        """Take the model of the fit, which must be one of Keras 3."""
        surgery.check_model(model)
        super().set_model(model)

    def _forget(self) -> None:
        """Drop all state of an earlier fit (fit_twice)."""

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Pass the hook on."""
        self._inner.on_test_begin(logs)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Pass the hook on."""
        self._inner.on_test_end(logs)

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Pass the hook on."""
        self._inner.on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Pass the hook on."""
        self._inner.on_test_batch_end(batch, logs)

    def _failed(self) -> None:
        """Save, after a hook raised, what could be lost."""

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._failed()
            raise

    def _say(self, text: str) -> None:
        """Print a line, on the chief host only."""
        if not self.verbose or not surgery.hosts_of(self.model).chief:
            return
        fresh = "\n" if self._bar and self.params.get("verbose") in (1, "auto") else ""
        self._bar = False
        print(fresh + text, flush=True)
