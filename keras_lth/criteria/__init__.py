"""Criteria: each computes scores, {weight path: array}, from a model; `selection.select` turns scores into masks."""

from __future__ import annotations

from keras_lth.criteria.call import described, named, needs_data, scored
from keras_lth.criteria.magnitude import Magnitude
from keras_lth.criteria.random import Random

__all__ = ["Magnitude", "Random", "described", "named", "needs_data", "scored"]
