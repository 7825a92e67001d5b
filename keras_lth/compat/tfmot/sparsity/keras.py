"""The names of ``tfmot.sparsity.keras``."""

from __future__ import annotations

from keras_lth.compat.tfmot.callbacks import PruningSummaries, UpdatePruningStep
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
    "prune_low_magnitude",
    "prune_scope",
    "strip_pruning",
]
