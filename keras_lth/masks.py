"""Masks: which weights of a network remain.

`Masks` is an immutable mapping from weight path to boolean array (True = the weight remains). This module needs neither
Keras nor TensorFlow. Terms of Frankle's thesis: *density* is the share of prunable weights that remain, *sparsity* is
1 - density.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from keras_lth import files
from keras_lth.names import few, near, shown_as
from keras_lth.tables import html_table, text_table

Shape = tuple[int, ...]


class Row(NamedTuple):
    """One layer of `Masks.table()`."""

    path: str
    shape: Shape
    size: int
    remaining: int
    density: float


class Masks(Mapping[str, np.ndarray]):
    """An immutable, ordered mapping from weight path to a read-only boolean array.

    Args:
        arrays: path → array of bool, or of numbers that are all 0 or 1. Copied.

    Equality and hash depend on the content (paths, shapes, bits), not on the order of the paths.

    Raises:
        TypeError: a path that is not a string.
        ValueError: an array with values other than 0 and 1; names its path.
    """

    # Whether the selection has already warned the user about empty layers.
    told = False

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = MappingProxyType({path: _boolean(path, array) for path, array in arrays.items()})

    @classmethod
    def ones(cls, shapes: Mapping[str, Any]) -> Masks:
        """Make masks that keep everything; each value is a shape (a tuple or list of int) or has a `.shape`."""
        return cls({path: np.ones(_shape_of(value), np.bool_) for path, value in shapes.items()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Masks:
        """Read masks that `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is truncated, edited, of another kind or of a newer version.
        """
        arrays, _ = files.read_arrays(path, kind="masks")
        return cls(arrays)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, atomically, with one bit per weight."""
        files.write_arrays(path, self, kind="masks", meta={})

    def __getitem__(self, path: str) -> np.ndarray:
        return self._arrays[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def size(self) -> int:
        """Return the number of weights, remaining or not."""
        return sum(array.size for array in self.values())

    @functools.cached_property
    def remaining(self) -> int:
        """Return the number of weights that remain."""
        return sum(int(np.count_nonzero(array)) for array in self.values())

    @property
    def density(self) -> float:
        """Return remaining / size; 1.0 if there is nothing to prune (size 0)."""
        return self.remaining / self.size if self.size else 1.0

    @property
    def sparsity(self) -> float:
        """Return 1 - density."""
        return 1.0 - self.density

    @functools.cached_property
    def digest(self) -> str:
        """Return the SHA-256, in hex, of the paths (sorted), their shapes and bits: the same on every host."""
        digest = hashlib.sha256()
        for path in sorted(self):
            name = path.encode()
            digest.update(f"{len(name)}:".encode() + name + f"{self[path].shape}".encode())
            digest.update(np.packbits(self[path].reshape(-1)).tobytes())
        return digest.hexdigest()

    @property
    def empty(self) -> tuple[str, ...]:
        """Return the paths of weights that are pruned completely."""
        return tuple(path for path, array in self.items() if not array.any())

    def table(self) -> list[Row]:
        """Return one row per layer: path, shape, size, remaining, density."""
        rows = []
        for path, array in self.items():
            remaining = int(np.count_nonzero(array))
            rows.append(Row(path, array.shape, array.size, remaining, remaining / array.size if array.size else 1.0))
        return rows

    def summary(self) -> str:
        """Return a text table with one row per layer and the total; below it the layers without any weight, if any."""
        lines = [text_table(self._cells())]
        if self.empty:
            lines.append(f"no weight remains in: {', '.join(self.empty)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table(self._cells(), note=repr(self))

    def _cells(self) -> list[tuple[str, ...]]:
        cells = [("layer", "shape", "weights", "remain", "density")]
        for row in self.table():
            shape = " × ".join(map(str, row.shape)) or "scalar"
            cells.append((shown_as(row.path), shape, f"{row.size:,}", f"{row.remaining:,}", _percent(row.density)))
        return [*cells, ("total", "", f"{self.size:,}", f"{self.remaining:,}", _percent(self.density))]

    def overlap(self, other: Masks) -> float:
        """Return |self ∧ other| / |self|, the share of these weights that the other masks keep too; NaN if |self| = 0.

        Raises:
            ValueError: other paths or shapes.
        """
        shared = (self & other).remaining
        return shared / self.remaining if self.remaining else float("nan")

    def apply(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the weights with pruned ones set to 0, in the same dtypes; arrays without a mask are returned
        unchanged.

        Raises:
            ValueError: a masked path is missing in `weights` or has another shape there.
        """
        for path, mask in self.items():
            if path not in weights or np.shape(weights[path]) != mask.shape:
                found = f"has shape {np.shape(weights[path])}" if path in weights else "is missing"
                raise ValueError(f"weight {path!r} {found}; its mask has shape {mask.shape}")
        applied = {}
        for path, weight in weights.items():
            applied[path] = weight
            if path in self:
                # where, not a product: an infinite weight times 0 is NaN.
                applied[path] = np.where(self[path], weight, np.zeros((), np.asarray(weight).dtype))
        return applied

    def __and__(self, other: Masks) -> Masks:
        return self._combine(other, np.logical_and)

    def __or__(self, other: Masks) -> Masks:
        return self._combine(other, np.logical_or)

    def __invert__(self) -> Masks:
        return Masks({path: ~array for path, array in self.items()})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        return self is other or (
            self.keys() == other.keys() and all(np.array_equal(self[path], other[path]) for path in self)
        )

    def __hash__(self) -> int:
        return int(self.digest[:15], 16)

    def __repr__(self) -> str:
        layers = "1 layer" if len(self) == 1 else f"{len(self)} layers"
        return f"Masks({layers}, {self.remaining:,} of {self.size:,} weights remain, density {_percent(self.density)})"

    def __copy__(self) -> Masks:
        return self

    def __deepcopy__(self, memo: object) -> Masks:
        return self

    def __reduce__(self) -> tuple[type[Masks], tuple[dict[str, np.ndarray]]]:
        return Masks, (dict(self),)

    def _combine(self, other: Masks, operator: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Masks:
        if not isinstance(other, Masks):
            return NotImplemented
        lines = differences(_shapes(self), _shapes(other))
        if lines:
            raise ValueError("the two masks have different weights: " + "; ".join(lines))
        return Masks({path: operator(self[path], other[path]) for path in self})


def align(
    values: Mapping[str, np.ndarray], shapes: Mapping[str, Shape], *, what: str, some_match: bool = False
) -> dict[str, np.ndarray]:
    """Match arrays made on one instance of a model to the paths of another, in the order of `shapes`.

    They are matched by path if every path is known there with the same shape; some of the paths are enough. Otherwise
    they are matched by order, if both lists of shapes are equal and no path is the same (another model of the same
    architecture with other layer names).

    Args:
        values: path → array.
        shapes: path → shape, of the target model.
        what: what the values are, for the error ("masks", "weights").
        some_match: match by order even if some of the paths are the same (``iteration`` of an optimizer).

    Raises:
        ValueError: neither rule applies; lists the differences.
    """
    pairs = match_paths(_shapes(values), shapes, what=what, some_match=some_match)
    return {target: values[source] for target, source in pairs.items()}


def match_paths(
    sources: Mapping[str, Shape], targets: Mapping[str, Shape], *, what: str, some_match: bool = False
) -> dict[str, str]:
    """Apply the rule of `align` to shapes alone; return target path → source path."""
    sources = {path: tuple(shape) for path, shape in sources.items()}
    targets = {path: tuple(shape) for path, shape in targets.items()}
    if all(targets.get(path) == shape for path, shape in sources.items()):
        return {path: path for path in targets if path in sources}
    same = [path for path in sources if path in targets]
    ordered = list(sources.values()) == list(targets.values())
    if ordered and (some_match or not same):
        return dict(zip(targets, sources, strict=True))
    lines = differences(sources, targets)
    if ordered:
        lines.append(f"the shapes match by order, but some names are the same ({few(same)}): use the model's own paths")
    raise ValueError(f"these {what} do not fit the model: " + "; ".join(lines))


def without_weights(paths: Sequence[str], layers: int) -> str:
    """Return a sentence about layers that have no weight left."""
    what = "layer is" if layers == 1 else "layers are"
    return f"{len(paths)} of {layers} {what} empty: {few(paths)}; an empty layer passes on only its bias."


def differences(sources: Mapping[str, Shape], targets: Mapping[str, Shape], limit: int = 8) -> list[str]:
    """Describe how two sets of paths and shapes differ: at most `limit` lines, then a count of the rest."""
    lines = []
    for path, shape in sources.items():
        if path not in targets:
            close = near(path, [name for name in targets if name not in sources], 1)
            lines.append(f"{path!r} {tuple(shape)} is unknown" + (f" (the nearest is {close[0]!r})" if close else ""))
        elif tuple(targets[path]) != tuple(shape):
            lines.append(f"{path!r} has shape {tuple(shape)}, expected {tuple(targets[path])}")
    lines += [f"{path!r} {tuple(shape)} is missing" for path, shape in targets.items() if path not in sources]
    return lines if len(lines) <= limit else [*lines[:limit], f"and {len(lines) - limit} more"]


def _shapes(arrays: Mapping[str, Any]) -> dict[str, Shape]:
    return {path: tuple(np.shape(array)) for path, array in arrays.items()}


def _shape_of(value: Any) -> Shape:
    shape: Sequence[int] = value.shape if hasattr(value, "shape") else value
    return tuple(int(n) for n in shape)


def _boolean(path: object, value: Any) -> np.ndarray:
    if not isinstance(path, str):
        raise TypeError(f"the path of a mask must be a string, not {path!r}")
    array = np.asarray(value)
    if array.dtype != np.bool_:
        number = array.dtype.kind in "iuf" or array.dtype.name == "bfloat16"
        if not number or not np.all((array == 0) | (array == 1)):
            raise ValueError(f"mask {path!r} must hold booleans or only 0 and 1 (dtype {array.dtype})")
    mask = np.array(array, dtype=np.bool_, order="C")
    mask.setflags(write=False)
    return mask


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
