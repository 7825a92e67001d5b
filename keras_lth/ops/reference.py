"""The operations in NumPy: slow, short, and what the compiled kernels are held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_lth.ops.arguments import Array, Bools, NotANumberError, check_arrays, check_k, check_masks

__all__ = ["top_k_masks"]


def top_k_masks(arrays: Sequence[Array], k: int, *, masks: Sequence[Bools] | None = None) -> list[Bools]:
    """Exactly the k largest |x| over all arrays together; see `keras_lth.ops.top_k_masks`."""
    values, _ = check_arrays(arrays)
    allowed = check_masks(masks, values)
    if not values:
        check_k(k, 0)
        return []
    if allowed is None:
        positions = np.arange(sum(array.size for array in values))
    else:
        positions = np.flatnonzero(np.concatenate([np.ravel(mask) for mask in allowed]))
    count = check_k(k, positions.size)
    # float64 holds every value of the other formats exactly.
    with np.errstate(invalid="ignore"):  # a signalling NaN is reported below
        flat = [np.abs(np.ravel(array).astype(np.float64)) for array in values]
    for i, magnitudes in enumerate(flat):
        nans = np.flatnonzero(np.isnan(magnitudes))
        if nans.size:
            raise NotANumberError(i, int(nans[0]))
    joined = np.concatenate(flat)
    # A stable sort of -|x| leaves equal magnitudes in the order of their positions.
    order = np.argsort(-joined[positions], kind="stable")
    selected = np.zeros(joined.size, dtype=np.bool_)
    selected[positions[order[:count]]] = True
    ends = np.cumsum([array.size for array in values])[:-1]
    parts = np.split(selected, ends)
    return [part.reshape(array.shape).copy() for part, array in zip(parts, values, strict=True)]
