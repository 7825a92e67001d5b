"""Check numbers that users pass: Python's, NumPy's and 0-d arrays are accepted, booleans and text never."""

from __future__ import annotations

import math
import operator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["is_whole", "real", "round_half_up", "whole"]


def whole(value: Any, name: str, least: int | None = None) -> int:
    """Return an integer argument as an int.

    Raises:
        ValueError: another type, or a number below ``least``; names the argument.
    """
    try:
        number = None if _is_bool(value) else operator.index(value)
    except TypeError:
        number = None
    if number is None or (least is not None and number < least):
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} must be a whole number{bound}, not {value!r}")
    return number


def is_whole(value: Any, least: int) -> bool:
    """Return whether ``value`` is an integer of at least ``least``."""
    try:
        return whole(value, "") >= least
    except ValueError:
        return False


def real(value: Any, name: str) -> float:
    """Return a real number as the float that it prints as: 0.2 in single precision becomes 0.2.

    Raises:
        ValueError: anything but a number; names the argument.
    """
    if isinstance(value, (float, int, Fraction, Decimal)) and not _is_bool(value) and not isinstance(value, np.generic):
        return float(value)
    kind = getattr(getattr(value, "dtype", None), "name", "")
    if _is_bool(value) or not kind.startswith(("int", "uint", "float", "bfloat")) or np.ndim(value):
        raise ValueError(f"{name} must be a number, not {value!r}")
    return float(str(np.asarray(value)[()]))


def round_half_up(share: float, count: int) -> int:
    """Round share × count, as printed in decimal, halves up: 0.145 of 100 is 15, though the float is slightly less."""
    return math.floor(Fraction(repr(real(share, "share"))) * count + Fraction(1, 2))


def _is_bool(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))
