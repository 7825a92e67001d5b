"""The callbacks inside a callback: each training is a fit of its own to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


class Inner(keras.callbacks.CallbackList):
    """Callbacks that begin and end with each training as with a ``fit``: they get the model, then they begin.

    Keras' own begin afresh with that, except for the best value of a ``ModelCheckpoint``.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], model: keras.Model, **params: Any) -> None:
        # Without the model: a TensorBoard opens its files when it gets one.
        super().__init__(callbacks, **params)
        self._of = model
        checkpoints = [one for one in callbacks if isinstance(one, keras.callbacks.ModelCheckpoint)]
        self._best = [(one, one.best) for one in checkpoints if hasattr(one, "best")]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a training."""
        history = getattr(self._of, "history", None)
        self.set_model(self._of)
        self._of.history = history  # of the whole fit, also with a History among these
        self.set_params(self.params)
        for checkpoint, best in self._best:
            checkpoint.best = best
        super().on_train_begin(logs)
