"""Values under their names: whole or absent, checked when read, claimed while they are computed."""

from __future__ import annotations

from keras_lth.store.claims import Claim, LostError
from keras_lth.store.upkeep import check, copy, listed, sweepable, thinnable
from keras_lth.store.values import DamagedError, MissingError, Store, Value

__all__ = [
    "Claim",
    "DamagedError",
    "LostError",
    "MissingError",
    "Store",
    "Value",
    "check",
    "copy",
    "listed",
    "sweepable",
    "thinnable",
]
