"""How sparse a live model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np

from keras_lth.surgery.paths import entries
from keras_lth.surgery.roles import has_role, unknown_layers
from keras_lth.surgery.variable_mask import mask_of

__all__ = ["Row", "Sparsity", "sparsity"]


class Row(NamedTuple):
    """One weight: its size, how many entries its mask keeps (all without a mask), how many are not 0."""

    path: str
    size: int
    remaining: int
    nonzero: int


@dataclass(frozen=True)
class Sparsity:
    """What `sparsity` returns; ``str()`` is a table.

    Attributes:
        rows: one per prunable or masked weight, in order of construction.
        unknown: layer path → weights of rank 2 or more that are in no table and were left dense.
    """

    rows: tuple[Row, ...]
    unknown: dict[str, tuple[str, ...]]

    @property
    def size(self) -> int:
        """Number of prunable weights."""
        return sum(row.size for row in self.rows)

    @property
    def remaining(self) -> int:
        """Number of weights that the masks keep."""
        return sum(row.remaining for row in self.rows)

    @property
    def density(self) -> float:
        """``remaining / size``, in [0, 1]; 1 where nothing is prunable."""
        return self.remaining / self.size if self.size else 1.0

    def __str__(self) -> str:
        table = [("weight", "size", "remaining", "non-zero", "density")]
        for row in (*self.rows, Row("total", self.size, self.remaining, sum(r.nonzero for r in self.rows))):
            density = row.remaining / row.size if row.size else 1.0
            table.append((row.path, f"{row.size:,}", f"{row.remaining:,}", f"{row.nonzero:,}", f"{density:.2%}"))
        width = [max(len(cells[i]) for cells in table) for i in range(5)]
        lines = [
            "  ".join([cells[0].ljust(width[0]), *(c.rjust(w) for c, w in zip(cells[1:], width[1:], strict=True))])
            for cells in table
        ]
        for layer, paths in self.unknown.items():
            lines.append(f"left dense, of unknown kind: {layer} ({', '.join(paths)})")
        return "\n".join(lines)


def sparsity(model: keras.Model) -> Sparsity:
    """Size, remaining and non-zero entries of every prunable or masked weight of a built model."""
    rows = []
    for entry in entries(model):
        held = mask_of(entry.variable)
        if held is None and not has_role(entry):
            continue
        value = np.asarray(entry.variable.numpy())
        remaining = int(held.numpy().sum()) if held is not None else value.size
        rows.append(Row(entry.path, value.size, remaining, int(np.count_nonzero(value))))
    masked = {row.path for row in rows}
    left = {layer: tuple(p for p in paths if p not in masked) for layer, paths in unknown_layers(model).items()}
    return Sparsity(tuple(rows), {layer: paths for layer, paths in left.items() if paths})
