"""Layers: the Masked wrapper, sparse layers, learned masks, fused normalisation."""

from __future__ import annotations

from keras_lth.layers.fused import Fused, fuse
from keras_lth.layers.kinds import register_sparse
from keras_lth.layers.learned import EdgePopup, Learning, Movement, Rule, StraightThrough, Supermask, learn_masks
from keras_lth.layers.masked import Masked
from keras_lth.layers.sparsify import KERNELS, Sparsified, densify, fitted, sparsify
from keras_lth.surgery.stored import Layout, kernels_of

__all__ = [
    "KERNELS",
    "EdgePopup",
    "Fused",
    "Layout",
    "Learning",
    "Masked",
    "Movement",
    "Rule",
    "Sparsified",
    "StraightThrough",
    "Supermask",
    "densify",
    "fitted",
    "fuse",
    "kernels_of",
    "learn_masks",
    "register_sparse",
    "sparsify",
]
