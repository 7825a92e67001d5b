"""Masks for a model that has zeros but no masks: from a file, or from another tool."""

from __future__ import annotations

import keras
import numpy as np

from keras_lth.masks import Masks
from keras_lth.surgery.roles import Filter, prunable
from keras_lth.surgery.stored import on_whole

__all__ = ["masks_from_zeros"]


@on_whole
def masks_from_zeros(model: keras.Model, include: Filter = None, exclude: Filter = None, also: Filter = None) -> Masks:
    """Make masks of the exact zeros of the prunable weights of ``model``: a weight remains where it is not 0.

    Use it for a model that was saved masked and then loaded: ``lth.mask(model, lth.masks_from_zeros(model))``. A
    remaining weight that happens to be exactly 0 cannot be distinguished from a pruned one; a `keras_lth.Ticket` keeps
    the masks.

    Args:
        model: a built model.
        include, exclude, also: which weights, as in `prunable`.

    Raises:
        ValueError: as in `prunable`; or no weight is 0, so there are no masks to find.
    """
    weights = prunable(model, include, exclude, also)
    masks = Masks({path: np.asarray(variable._value.numpy()) != 0 for path, variable in weights.items()})
    if masks.remaining == masks.size:
        raise ValueError(
            f"model {model.name!r} has no zeros among its {masks.size:,} prunable weights, so there are no masks "
            "to find"
        )
    return masks
