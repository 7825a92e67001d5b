"""Checks of arguments that the compiled kernels and the NumPy reference share."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Bools = NDArray[np.bool_]

FORMATS = ("float64", "float32", "float16", "bfloat16")


class NotANumberError(ValueError):
    """A NaN among the values; `array` and `index` (flat, C order) say where."""

    def __init__(self, array: int, index: int) -> None:
        super().__init__(f"arrays[{array}] has a NaN at flat index {index}")
        self.array = array
        self.index = index

    def __reduce__(self) -> tuple[type[NotANumberError], tuple[int, int]]:
        return type(self), (self.array, self.index)


def _listed(name: str, value: object) -> list[object]:
    if isinstance(value, (np.ndarray, Mapping, str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list or tuple of arrays, not {type(value).__name__}")
    return list(value)


def check_arrays(arrays: Sequence[Array]) -> tuple[list[Array], str]:
    """The arrays as ndarrays, and the name of the one dtype they share (float64 where there is no array)."""
    checked = [np.asarray(array) for array in _listed("arrays", arrays)]
    for i, array in enumerate(checked):
        if array.dtype.name not in FORMATS:
            raise TypeError(f"arrays[{i}] is {array.dtype.name}; supported are {', '.join(FORMATS)}")
        if array.dtype.name != checked[0].dtype.name:
            raise TypeError(
                f"arrays[0] is {checked[0].dtype.name} but arrays[{i}] is {array.dtype.name}: "
                "all must have one dtype; convert them with astype"
            )
    return checked, checked[0].dtype.name if checked else FORMATS[0]


def check_masks(masks: Sequence[Bools] | None, arrays: Sequence[Array]) -> list[Bools] | None:
    """The masks as ndarrays, one for each array, of its shape."""
    if masks is None:
        return None
    checked = [np.asarray(mask) for mask in _listed("masks", masks)]
    if len(checked) != len(arrays):
        raise ValueError(f"masks has {len(checked)} entries for {len(arrays)} arrays")
    for i, (mask, array) in enumerate(zip(checked, arrays, strict=True)):
        if mask.dtype != np.bool_:
            raise TypeError(f"masks[{i}] is {mask.dtype.name}, not bool")
        if mask.shape != array.shape:
            raise ValueError(f"masks[{i}] has shape {mask.shape}, arrays[{i}] has {array.shape}")
    return checked


def check_k(k: int, eligible: int) -> int:
    """k as an int in 0...eligible."""
    try:
        count = operator.index(k)
    except TypeError:
        raise TypeError(f"k must be an integer, not {type(k).__name__}") from None
    if not 0 <= count <= eligible:
        raise ValueError(f"k = {count} is outside 0...{eligible}, the number of eligible values")
    return count
