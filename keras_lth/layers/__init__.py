"""Layers: the Masked wrapper, and sparse layers."""

from __future__ import annotations

from keras_lth.layers.masked import Masked
from keras_lth.layers.sparse import register_sparse
from keras_lth.layers.sparsify import Sparsified, densify, sparsify
from keras_lth.surgery.stored import Layout, kernels_of

__all__ = ["Layout", "Masked", "Sparsified", "densify", "kernels_of", "register_sparse", "sparsify"]
