"""The place of the pruning interface in TFMOT: ``tfmot.sparsity.keras``."""

from __future__ import annotations

from keras_lth.compat.tfmot.sparsity import keras

__all__ = ["keras"]
