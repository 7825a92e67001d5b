"""Argument checks that the compiled kernels and the NumPy reference share."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Bools = NDArray[np.bool_]
Flags = NDArray[Any]  # bool, or uint8 with a bit a value
T = TypeVar("T", bound=np.generic)

FORMATS = ("float64", "float32", "float16", "bfloat16")


class Order(NamedTuple):
    """What is selected first: by |x| or by x, the largest or the smallest."""

    by_value: bool = False
    largest: bool = True


class NotANumberError(ValueError):
    """A NaN among the values, or infinities whose sum is NaN; `array` and `index` (flat, C order) give the position."""

    def __init__(self, array: int, index: int, what: str = "a NaN") -> None:
        super().__init__(f"arrays[{array}] has {what} at flat index {index}")
        self.array = array
        self.index = index
        self.what = what

    def __reduce__(self) -> tuple[type[NotANumberError], tuple[int, int, str]]:
        return type(self), (self.array, self.index, self.what)


def _listed(name: str, value: object) -> list[object]:
    if isinstance(value, (np.ndarray, Mapping, str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list or tuple of arrays, not {type(value).__name__}")
    return list(value)


def check_arrays(arrays: Sequence[Array]) -> tuple[list[Array], str]:
    """Return the arrays as ndarrays, and the name of their common dtype (float64 if there is no array)."""
    checked = [np.asarray(array) for array in _listed("arrays", arrays)]
    for i, array in enumerate(checked):
        if array.dtype.name not in FORMATS:
            raise TypeError(f"arrays[{i}] is {array.dtype.name}; supported dtypes are {', '.join(FORMATS)}")
        if array.dtype.name != checked[0].dtype.name:
            raise TypeError(
                f"arrays[0] is {checked[0].dtype.name} but arrays[{i}] is {array.dtype.name}: "
                "all must have the same dtype; convert them with astype"
            )
    return checked, checked[0].dtype.name if checked else FORMATS[0]


def check_masks(masks: Sequence[Flags] | None, arrays: Sequence[Array]) -> list[Flags] | None:
    """Return the masks as ndarrays, one per array: bool of its shape, or uint8 packed as by numpy.packbits."""
    if masks is None:
        return None
    checked = [np.asarray(mask) for mask in _listed("masks", masks)]
    if len(checked) != len(arrays):
        raise ValueError(f"masks has {len(checked)} entries for {len(arrays)} arrays")
    for i, (mask, array) in enumerate(zip(checked, arrays, strict=True)):
        if mask.dtype == np.uint8:
            _check_packed(f"masks[{i}]", mask, array.size)
        elif mask.dtype != np.bool_:
            raise TypeError(f"masks[{i}] is {mask.dtype.name}, not bool, nor uint8 with one bit per value")
        elif mask.shape != array.shape:
            raise ValueError(f"masks[{i}] has shape {mask.shape}, arrays[{i}] has {array.shape}")
    return checked


def _check_packed(name: str, bits: Flags, size: int) -> None:
    if bits.shape != ((size + 7) // 8,):
        raise ValueError(f"{name} has shape {bits.shape}: the packed bits of {size} values need {((size + 7) // 8,)}")
    if size % 8 and int(bits[-1]) & (0xFF >> size % 8):
        raise ValueError(f"{name} has bits set after the last of {size} values")


def unpacked(mask: Flags, shape: tuple[int, ...]) -> Bools:
    """Return the mask as booleans with this shape; itself if it already is."""
    if mask.dtype == np.bool_:
        return mask
    return np.unpackbits(mask, count=int(np.prod(shape, dtype=np.int64))).view(np.bool_).reshape(shape)


def plain(array: NDArray[T]) -> NDArray[T]:
    """Return the array itself if it is C-contiguous, aligned and in native byte order, else such a copy."""
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "A"])


def check_order(by: str, largest: bool) -> Order:
    """Return the order for by="magnitude" or "value", largest or smallest first."""
    if by not in ("magnitude", "value"):
        raise ValueError(f'by must be "magnitude" or "value", not {by!r}')
    if not isinstance(largest, (bool, np.bool_)):
        raise TypeError(f"largest must be a bool, not {type(largest).__name__}")
    return Order(by == "value", bool(largest))


def integer(name: str, value: Any) -> int:
    """Return the value as an int."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None


def check_k(k: object, eligible: int, name: str = "k") -> int:
    """Return k as an int in 0...eligible."""
    count = integer(name, k)
    if not 0 <= count <= eligible:
        raise ValueError(f"{name} = {count} is outside 0...{eligible}, the number of eligible values")
    return count


def count_eligible(arrays: Sequence[Array], masks: Sequence[Flags] | None) -> int:
    """Count the values that may be selected."""
    if masks is None:
        return sum(array.size for array in arrays)
    return sum(int(np.count_nonzero(unpacked(mask, array.shape))) for mask, array in zip(masks, arrays, strict=True))


def from_bits(bits: int, dtype: np.dtype[Any]) -> np.generic:
    """Return the number with these bits in a dtype."""
    native = dtype.newbyteorder("=")
    value: np.generic = np.array([bits], f"u{native.itemsize}").view(native)[0]
    return value


def check_near(near: float | None, dtype: np.dtype[Any]) -> np.generic | None:
    """Return the value of the dtype that is nearest to a number."""
    if near is None:
        return None
    try:
        number = float(near)
    except (TypeError, ValueError):
        raise TypeError(f"near must be a number or None, not {type(near).__name__}") from None
    if np.isnan(number):
        raise ValueError("near is NaN")
    with np.errstate(over="ignore"):
        value: np.generic = dtype.newbyteorder("=").type(number)
    return value
