"""Change a live Keras model: prunable weights, masks that hold, snapshots and rewinding."""

from __future__ import annotations

from keras_lth.surgery.derivatives import Loss, batches, dense_gradients
from keras_lth.surgery.entry import check_built, check_model
from keras_lth.surgery.gradients import masked_gradients
from keras_lth.surgery.hosts import Hosts, check_replicas, hosts_of
from keras_lth.surgery.kinds import register_prunable
from keras_lth.surgery.masking import heal_model as heal
from keras_lth.surgery.masking import mask, masks_of, unmask
from keras_lth.surgery.moving import Moving
from keras_lth.surgery.optimizers import leaves, optimizers_of, start_fresh
from keras_lth.surgery.paths import variables
from keras_lth.surgery.report import Report, Sparsity, sparsity
from keras_lth.surgery.roles import Prunable, prunable, unknown_layers
from keras_lth.surgery.state import noise_variables, rewind, shapes, snapshot, step_of
from keras_lth.surgery.stored import whole
from keras_lth.surgery.zeros import masks_from_zeros

__all__ = [
    "Hosts",
    "Loss",
    "Moving",
    "Prunable",
    "Report",
    "Sparsity",
    "batches",
    "check_built",
    "check_model",
    "check_replicas",
    "dense_gradients",
    "heal",
    "hosts_of",
    "leaves",
    "mask",
    "masked_gradients",
    "masks_from_zeros",
    "masks_of",
    "noise_variables",
    "optimizers_of",
    "prunable",
    "register_prunable",
    "rewind",
    "shapes",
    "snapshot",
    "sparsity",
    "start_fresh",
    "step_of",
    "unknown_layers",
    "unmask",
    "variables",
    "whole",
]
