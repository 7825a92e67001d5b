"""The callbacks inside a callback: for them each training is a separate fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras

# Other fields, such as {epoch} of a ModelCheckpoint, are its own.
_FIELD = re.compile(r"\{(?:round|density)(?:[:!][^{}]*)?\}")


class Inner(keras.callbacks.CallbackList):
    """Callbacks that begin and end with each training as with a ``fit``: they get the model, then they begin.

    Keras' own callbacks reset themselves at that point, except for the best value of a ``ModelCheckpoint``. In the
    names of their files and folders ``{round}`` and ``{density}`` are replaced, also with a format: ``{density:.3f}``.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], model: keras.Model, **params: Any) -> None:
        # Without the model: a TensorBoard opens its files when it gets one.
        super().__init__(callbacks, **params)
        self._of = model
        checkpoints = [one for one in callbacks if isinstance(one, keras.callbacks.ModelCheckpoint)]
        # File names as they were given; the current ones belong to one training.
        self._names = [
            (one, name, value)
            for one in callbacks
            for name, value in vars(one).items()
            if isinstance(value, str) and _FIELD.search(value)
        ]
        self._best = [(one, one.best) for one in checkpoints if hasattr(one, "best")]

    def begin(self, **labels: Any) -> None:
        """Begin a training with these labels."""
        for one, name, value in self._names:
            setattr(one, name, _FIELD.sub(lambda found: found[0].format(**labels), value))
        self.on_train_begin()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a training."""
        history = getattr(self._of, "history", None)
        self.set_model(self._of)
        self._of.history = history  # of the whole fit, even if these include a History
        self.set_params(self.params)
        for checkpoint, best in self._best:
            checkpoint.best = best
        super().on_train_begin(logs)
