"""The pruning interface of TensorFlow Model Optimization (TFMOT) on Keras 3.

``from keras_lth.compat import tfmot`` takes the place of ``import tensorflow_model_optimization as tfmot``. Only here
shares are sparsities. What differs from TFMOT is listed in ``docs/from_tfmot.md``.
"""

from __future__ import annotations

from keras_lth.compat.tfmot import sparsity
from keras_lth.compat.tfmot.callbacks import PruningSummaries, UpdatePruningStep
from keras_lth.compat.tfmot.exchange import load_weights, save_weights
from keras_lth.compat.tfmot.policy import PruneForLatencyOnXNNPack, PruningPolicy
from keras_lth.compat.tfmot.prune import PrunableLayer, prune_low_magnitude, prune_scope, strip_pruning
from keras_lth.compat.tfmot.schedule import ConstantSparsity, PolynomialDecay, PruningSchedule

__all__ = [
    "ConstantSparsity",
    "PolynomialDecay",
    "PrunableLayer",
    "PruneForLatencyOnXNNPack",
    "PruningPolicy",
    "PruningSchedule",
    "PruningSummaries",
    "UpdatePruningStep",
    "load_weights",
    "prune_low_magnitude",
    "prune_scope",
    "save_weights",
    "sparsity",
    "strip_pruning",
]
