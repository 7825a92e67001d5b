"""The callbacks inside a callback: begun and ended with each training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


class Inner(keras.callbacks.CallbackList):
    """Callbacks that begin and end with each training.

    Keras' own begin anew in their ``on_train_begin``, except for the best value of a ``ModelCheckpoint``.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], **options: Any) -> None:
        super().__init__(callbacks, **options)
        checkpoints = [one for one in callbacks if isinstance(one, keras.callbacks.ModelCheckpoint)]
        self._best = [(one, one.best) for one in checkpoints if hasattr(one, "best")]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a training."""
        for checkpoint, best in self._best:
            checkpoint.best = best
        super().on_train_begin(logs)


class PassesTests(keras.callbacks.Callback):
    """Hands the hooks of a validation on to ``_inner``."""

    _inner: keras.callbacks.CallbackList

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Passed on."""
        self._inner.on_test_begin(logs)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Passed on."""
        self._inner.on_test_end(logs)

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Passed on."""
        self._inner.on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Passed on."""
        self._inner.on_test_batch_end(batch, logs)
