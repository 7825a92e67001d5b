"""The units that selection keeps or removes: single weights, blocks, neurons and channels, n of every m."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_lth import ops

Structure = str | tuple[int, int] | None
# Axes of a Keras kernel [..., inputs, outputs].
_AXES = {"output": -1, "input": -2}


class Structured:
    """A structure and what is compared, as in `selection.select`.

    Attributes:
        groups: how `ops.top_k_masks` divides arrays into units; empty for single weights.
        order: what is compared.
        n_of_m: (n, m) of a structure "n:m", else None.
        unit: the name of the unit, for messages.

    Raises:
        ValueError: an unknown structure.
    """

    def __init__(
        self, structure: Structure = None, *, by: str = "magnitude", largest: bool = True, reduce: str = "mean"
    ) -> None:
        self.structure = structure
        self.order: dict[str, Any] = {"by": by, "largest": largest}
        self.groups: dict[str, Any] = {}
        self.n_of_m: tuple[int, int] | None = None
        self.unit = "weights"
        if structure is None:
            return
        if not isinstance(structure, str):
            self.unit, self.groups = "blocks", {"block": structure, "reduce": reduce}
        elif structure in _AXES:
            self.unit, self.groups = f"{structure}s", {"axis": _AXES[structure], "reduce": reduce}
        else:
            found = re.fullmatch(r"(\d+):(\d+)", structure)
            if found is None or not 1 <= int(found[1]) <= int(found[2]):
                raise ValueError(
                    'structure must be None, (rows, columns), "output", "input", or "n:m" with 1 <= n <= m such as '
                    f'"2:4", not {structure!r}'
                )
            self.n_of_m = (int(found[1]), int(found[2]))

    def check(self, arrays: Mapping[str, np.ndarray], paths: Iterable[str]) -> None:
        """Raise ``ValueError`` for layers without inputs and outputs if the structure needs them."""
        for path in paths:
            if self.structure is not None and arrays[path].ndim < 2:
                raise ValueError(
                    f"{path!r} has shape {arrays[path].shape}: structure {self.structure!r} needs inputs and outputs; "
                    "exclude it"
                )

    def count(self, mask: np.ndarray) -> int:
        """Count the weights, blocks, neurons or channels of which the mask keeps a weight."""
        if not self.groups:
            return int(np.count_nonzero(mask))
        return ops.count_groups(mask, **{name: value for name, value in self.groups.items() if name != "reduce"})


def comparable(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return the scores unchanged if they share a floating dtype, else in float64, which represents the other formats
    exactly.
    """
    for path, array in arrays.items():
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise TypeError(f"the score of {path!r} has dtype {array.dtype}; real numbers are needed")
    dtypes = {array.dtype for array in arrays.values()}
    same = len(dtypes) == 1 and all(dtype.kind not in "biu" for dtype in dtypes)
    return list(arrays.values()) if same else [array.astype(np.float64) for array in arrays.values()]
