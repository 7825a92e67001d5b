"""Run ``fit`` on data with a fixed order without Keras' warning that its default, ``shuffle=True``, is ignored."""

from __future__ import annotations

from typing import Any

from keras.src.backend.tensorflow import trainer

from keras_lth.surgery.teaching import teach

__all__ = ["never_shuffled"]


def never_shuffled(kind: type) -> None:
    """Keep ``fit`` from requesting that data of this kind be shuffled.

    This does not wrap ``fit``, because in ``model.fit(ordered(…))`` Python looks up ``fit`` before it creates the data.
    """

    def wrap(before: Any) -> Any:
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            x = kwargs.get("x", args[0] if args else None)
            if isinstance(x, kind) and kwargs.get("shuffle"):
                kwargs["shuffle"] = False
            before(self, *args, **kwargs)

        return __init__

    # If a later Keras uses another iterator, the only loss is that it warns.
    if hasattr(trainer, "TFEpochIterator"):
        teach(trainer.TFEpochIterator, {"__init__": wrap})
