"""Masks that change at many steps of a training: what holds them is found once, not at each change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lth.masks import Masks
from keras_lth.surgery.masking import mask
from keras_lth.surgery.optimizers import optimizers_of, reset_pruned
from keras_lth.surgery.paths import variables
from keras_lth.surgery.stored import is_stored, mask_array
from keras_lth.surgery.variable_mask import heal, mask_of

__all__ = ["Moving"]


class Moving:
    """The masks of some weights of a compiled model, which a training changes often.

    Args:
        model: compiled; its optimizers stay the same while this is used.
        masks: put on first, as by `keras_lth.mask`.
    """

    def __init__(self, model: keras.Model, masks: Masks) -> None:
        mask(model, masks)
        held = variables(model)
        self._model = model
        self._weights = {path: held[path] for path in masks}
        self._optimizers = optimizers_of(model)

    def masks(self) -> Masks:
        """Return the current masks."""
        found: dict[str, Any] = {path: mask_array(variable) for path, variable in self._weights.items()}
        return Masks({path: np.ones(tuple(self._weights[path].shape)) if m is None else m for path, m in found.items()})

    @property
    def stored(self) -> bool:
        """Return whether a layer stores one of the weights sparse."""
        return any(is_stored(variable) for variable in self._weights.values())

    def set(self, masks: Mapping[str, Any]) -> None:
        """Put masks on, as `keras_lth.mask` does: pruned weights become 0, and their slots those of a new optimizer.

        A weight that a mask keeps again is 0 with the slots of a new optimizer, because it was so while it was pruned.
        """
        worn = {path: mask_of(variable) for path, variable in self._weights.items()}
        if None in worn.values():
            # Stored kernels have a structure in place of a mask.
            mask(self._model, masks)
            return
        for path, one in worn.items():
            if one is not None:
                one.assign(masks[path])
                heal(self._weights[path])
        for optimizer in self._optimizers:
            reset_pruned(optimizer, self._weights.values())
