"""Mask and unmask a live Keras model, in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lth.masks import Masks, align
from keras_lth.names import spelled
from keras_lth.surgery.entry import check_built, check_model
from keras_lth.surgery.hooks import follow
from keras_lth.surgery.optimizers import optimizers_of, refuse_coupling, reset_pruned
from keras_lth.surgery.paths import entries
from keras_lth.surgery.report import ReportedMasks, reported
from keras_lth.surgery.roles import prunable, refuse_replaced_weights
from keras_lth.surgery.stored import mask_array, on_whole
from keras_lth.surgery.variable_mask import attach, detach, heal, mask_of

__all__ = ["heal_model", "mask", "masks_of", "resolve", "unmask"]


@on_whole
def mask(model: keras.Model, masks: Mapping[str, Any]) -> ReportedMasks:
    """Mask ``model`` in place, for every later ``fit``, ``evaluate`` and ``predict``; return its masks with a report.

    ``masks`` maps structural paths to boolean arrays of the weights' shapes; other weights do not change. It may be
    called before or after ``compile``, repeatedly, and from a callback inside ``fit``. Pruned weights become 0, and
    their optimizer slots become those of a fresh optimizer.

    Raises:
        TypeError: an object that is not a Keras 3 model on TensorFlow.
        ValueError: a model that is not built, an unknown path, a wrong shape, a layer with LoRA or quantisation, an
            optimizer that couples weights.
    """
    check_model(model)
    check_built(model)
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

    return reported(model, masks_of(model), masks)


@on_whole
def unmask(model: keras.Model) -> None:
    """Remove all masks and restore constraints and functions. Pruned weights stay 0 until trained.

    Every other model that holds the weights also trains them dense again.
    """
    check_model(model)
    masked = [entry.variable for entry in entries(model) if mask_of(entry.variable) is not None]
    for variable in masked:
        detach(variable)
    if masked:
        follow(masked)


def masks_of(model: keras.Model) -> Masks:
    """Return the current masks of the masked weights, in order of construction; empty if there are none."""
    check_model(model)
    current = {}
    for entry in entries(model):
        held = mask_array(entry.variable)
        if held is not None:
            current[entry.path] = held
    return Masks(current)


def heal_model(model: keras.Model) -> None:
    """Set every pruned weight of ``model`` to 0, whatever has been assigned."""
    for entry in entries(model):
        heal(entry.variable)


def resolve(model: keras.Model, masks: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the given masks as boolean arrays under this model's paths."""
    if not isinstance(masks, Mapping):
        raise TypeError(f"masks must be a Masks or a mapping from path to boolean array, not {type(masks).__name__}")
    floats = {
        e.path: tuple(e.variable.shape) for e in entries(model) if not e.seed and "float" in str(e.variable.dtype)
    }
    if not isinstance(masks, Masks):
        masks = {path: masks[name] for name, path in spelled(masks, floats).items()}
    known = set(masks) <= set(floats)
    shapes = floats if known else {path: tuple(v.shape) for path, v in prunable(model).items()}
    return align(Masks(masks), shapes, what="masks")
