"""Criteria: each computes scores, {weight path: array}, from a model; `selection.select` turns scores into masks."""

from __future__ import annotations

from keras_lth.criteria.activation import Activation
from keras_lth.criteria.call import described, named, needs_data, scored
from keras_lth.criteria.examples import per_class
from keras_lth.criteria.gradient import Gradient
from keras_lth.criteria.grasp import GraSP
from keras_lth.criteria.inverted import Inverted, inverted
from keras_lth.criteria.iterative import prune_iteratively
from keras_lth.criteria.magnitude import Magnitude
from keras_lth.criteria.momentum import Momentum
from keras_lth.criteria.obs import OBD, OBS
from keras_lth.criteria.random import Random
from keras_lth.criteria.snip import FORCE, SNIP
from keras_lth.criteria.synflow import SynFlow
from keras_lth.criteria.threshold import Threshold

__all__ = [
    "FORCE",
    "OBD",
    "OBS",
    "SNIP",
    "Activation",
    "GraSP",
    "Gradient",
    "Inverted",
    "Magnitude",
    "Momentum",
    "Random",
    "SynFlow",
    "Threshold",
    "described",
    "inverted",
    "named",
    "needs_data",
    "per_class",
    "prune_iteratively",
    "scored",
]
