"""What selection keeps or removes as one: single weights, blocks, neurons and channels, n of every m."""

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
    """A structure and what is compared, as `selection.select` takes them.

    Attributes:
        groups: how `ops.top_k_masks` cuts arrays into what is kept as one; empty for single weights.
        order: what it compares.
        n_of_m: (n, m) of a structure "n:m", else None.
        unit: what is counted, for messages.

    Raises:
        ValueError: no such structure.
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
        """Refuses layers that have no inputs and outputs where the structure needs them."""
        for path in paths:
            if self.structure is not None and arrays[path].ndim < 2:
                raise ValueError(
                    f"{path!r} has shape {arrays[path].shape}: structure {self.structure!r} needs inputs and outputs; "
                    "exclude it"
                )

    def count(self, mask: np.ndarray) -> int:
        """How many weights, blocks, neurons or channels have a weight that the mask keeps."""
        if not self.groups:
            return int(np.count_nonzero(mask))
        return ops.count_groups(mask, **{name: value for name, value in self.groups.items() if name != "reduce"})


def comparable(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """As they are when they share a floating dtype, else in float64, which holds the other formats exactly."""
    for path, array in arrays.items():
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise TypeError(f"the score of {path!r} has dtype {array.dtype}; real numbers are needed")
    dtypes = {array.dtype for array in arrays.values()}
    same = len(dtypes) == 1 and all(dtype.kind not in "biu" for dtype in dtypes)
    return list(arrays.values()) if same else [array.astype(np.float64) for array in arrays.values()]
