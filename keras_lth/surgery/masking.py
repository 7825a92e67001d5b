"""Mask and unmask a live Keras model, in place."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lth.masks import Masks, align
from keras_lth.surgery.hooks import follow
from keras_lth.surgery.optimizers import optimizers_of, refuse_coupling, reset_pruned
from keras_lth.surgery.paths import entries
from keras_lth.surgery.roles import prunable, refuse_replaced_weights, unknown_layers
from keras_lth.surgery.variable_mask import attach, detach, heal, mask_of

__all__ = ["heal_model", "mask", "masks_of", "resolve", "unmask"]

_WARNED = "_keras_lth_warned_unknown"


def mask(model: keras.Model, masks: Mapping[str, Any]) -> Masks:
    """Mask ``model`` in place and return its masks; every later ``fit``, ``evaluate`` and ``predict`` keeps them.

    ``masks`` maps structural paths to boolean arrays of the weights' shapes; weights that it does not name stay as
    they are. It may be called before or after ``compile``, again, and from a callback inside ``fit``. Pruned
    weights become 0 and their optimizer slots those of a fresh optimizer.

    Raises:
        ValueError: an unknown path, a wrong shape, a layer with LoRA or quantisation, an optimizer that couples
            weights.
    """
    found = entries(model)
    arrays = resolve(model, masks)
    chosen = {entry.path: entry for entry in found if entry.path in arrays}
    refuse_replaced_weights(chosen.values())
    targets = [entry.variable for entry in chosen.values()]
    for optimizer in optimizers_of(model):
        refuse_coupling(optimizer, targets)

    strategy = model.distribute_strategy
    new = [variable for variable in targets if mask_of(variable) is None]
    for path, entry in chosen.items():
        held = mask_of(entry.variable) or attach(entry.variable, strategy)
        held.assign(arrays[path])
        heal(entry.variable)
    for optimizer in optimizers_of(model):
        reset_pruned(optimizer, targets)
    if new:
        follow(new)

    unknown = unknown_layers(model)
    if unknown and not vars(model).get(_WARNED):
        vars(model)[_WARNED] = True
        warnings.warn(
            f"layers of unknown kind stay dense unless include= names their weights: {dict(unknown)}", stacklevel=2
        )
    empty = [path for path, array in arrays.items() if array.size and not array.any()]
    if empty:
        warnings.warn(f"no weight is left in {empty}: these layers pass on nothing but their bias", stacklevel=2)
    return masks_of(model)


def unmask(model: keras.Model) -> None:
    """Give back the plain model: constraints and functions as before. Pruned weights stay 0 until trained.

    Every other model that holds the weights trains them dense again too.
    """
    masked = [entry.variable for entry in entries(model) if mask_of(entry.variable) is not None]
    for variable in masked:
        detach(variable)
    if masked:
        follow(masked)


def masks_of(model: keras.Model) -> Masks:
    """The current masks of the masked weights, in order of construction; empty if there are none."""
    current = {}
    for entry in entries(model):
        held = mask_of(entry.variable)
        if held is not None:
            current[entry.path] = held.numpy()
    return Masks(current)


def heal_model(model: keras.Model) -> None:
    """Set every pruned weight of ``model`` to 0, whatever was assigned since."""
    for entry in entries(model):
        heal(entry.variable)


def resolve(model: keras.Model, masks: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The given masks as boolean arrays under this model's paths."""
    if not isinstance(masks, Mapping):
        raise TypeError(f"masks must be a Masks or a mapping from path to boolean array, not {type(masks).__name__}")
    floats = {
        e.path: tuple(e.variable.shape) for e in entries(model) if not e.seed and "float" in str(e.variable.dtype)
    }
    known = set(masks) <= set(floats)
    shapes = floats if known else {path: tuple(v.shape) for path, v in prunable(model).items()}
    return align(Masks(masks), shapes, what="masks")
