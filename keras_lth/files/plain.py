"""Values that JSON returns unchanged."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any, name: str) -> Any:
    """Copy a value into JSON types; NumPy scalars become Python numbers, tuples become lists.

    Raises:
        TypeError: JSON cannot hold the value; names the place, below `name`.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    if isinstance(value, numbers.Number):
        raise TypeError(f"{name} is {value!r}, which JSON cannot hold: use a finite number")
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    raise TypeError(f"{name} is a {type(value).__name__}; use numbers, strings, lists, or dicts with string keys")
