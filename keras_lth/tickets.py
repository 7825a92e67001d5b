"""Snapshots and tickets: what a training needs at a step, and what a user shares.

A *snapshot* is the state of a training at step k (W_k with everything that belongs to it). A *ticket* is masks, the
snapshot they were rewound to (Frankle's thesis, 4.2.2), and provenance. This module needs neither Keras nor TensorFlow.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from keras_lth import __version__, files
from keras_lth.files.plain import plain
from keras_lth.masks import Masks
from keras_lth.store import Value
from keras_lth.tables import html_table

FORMAT = "keras_lth ticket 1"
PARTS = ("weights", "optimizer", "seeds", "state")
# Keys of the optimizer part that are not slots: counters, rates, and which weights an optimizer updates.
_NAMES = "iteration|learning_rate|dynamic_scale|step_counter"
_CLOCK = re.compile(rf"(@[^/]+/|optimizer_\d+/)?(inner_\d+/)?(of/.*|correction_start|(\d+/)?({_NAMES}))")
_PACKAGES = ("keras", "tensorflow", "numpy")


class _Value:
    """Immutable: a copy is the object itself, because mapping proxies cannot be copied or pickled."""

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: object) -> Any:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(dict(v) if isinstance(v, MappingProxyType) else v for v in vars(self).values())


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot(_Value):
    """Everything a training needs at a step. Arrays are copied and read-only.

    Attributes:
        weights: path → array, every variable of the model (normalisation statistics too) except seed generators.
        optimizer: path → array, every variable of the optimizers; empty if there is none.
        step: training steps done, ≥ 0.
        seeds: path → array, the states of seed generators.
        state: path → array, variables that are not weights: the states of a stateful RNN, a model's own counters.

    Raises:
        ValueError: a negative step.
    """

    weights: Mapping[str, np.ndarray]
    optimizer: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    step: int = 0
    seeds: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    state: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if int(self.step) != self.step or self.step < 0:
            raise ValueError(f"step must be a whole number ≥ 0, not {self.step!r}")
        object.__setattr__(self, "step", int(self.step))
        for part in PARTS:
            object.__setattr__(self, part, _frozen(getattr(self, part)))

    @property
    def slots(self) -> list[str]:
        """Return the optimizer keys that are slots (moments, averages), without counts, rates and loss scales."""
        return [key for key in self.optimizer if not _CLOCK.fullmatch(key)]

    @property
    def has_slots(self) -> bool:
        """Return whether an optimizer can resume from this snapshot with its moments."""
        return bool(self.slots)

    def without_slots(self) -> Snapshot:
        """Return this state without slots, but with counts, rates and loss scales: the start of a fresh optimizer."""
        clock = {key: value for key, value in self.optimizer.items() if _CLOCK.fullmatch(key)}
        return dataclasses.replace(self, optimizer=clock)

    def named(self) -> Iterator[tuple[str, np.ndarray]]:
        """Return all arrays, each under one name such as ``weights/dense/kernel``."""
        return ((f"{part}/{path}", array) for part in PARTS for path, array in getattr(self, part).items())

    @classmethod
    def from_named(cls, arrays: Mapping[str, np.ndarray], step: int) -> Snapshot:
        """Rebuild the snapshot from the ``arrays`` of `named`; names of unknown parts are ignored."""
        parts = _parts(arrays)
        return cls(step=step, **{"weights": {}} | {part: held for part, held in parts.items() if part in PARTS})

    def differences(self, other: Snapshot) -> list[str]:
        """List what differs, bit by bit, one line per variable; equal NaNs are equal, -0 differs from 0."""
        lines = [] if self.step == other.step else [f"step: {self.step} and {other.step}"]
        for part in PARTS:
            mine, yours = getattr(self, part), getattr(other, part)
            lines += [f"{part}/{path}: only in the first" for path in mine if path not in yours]
            lines += [f"{part}/{path}: only in the second" for path in yours if path not in mine]
            for path in (path for path in mine if path in yours):
                a, b = mine[path], yours[path]
                if (a.dtype, a.shape) != (b.dtype, b.shape):
                    lines.append(f"{part}/{path}: {a.dtype} {a.shape} and {b.dtype} {b.shape}")
                elif count := _different_values(a, b):
                    lines.append(f"{part}/{path}: {count} of {a.size} values differ")
        return lines

    def same_bits(self, other: Snapshot) -> bool:
        """Return whether step, paths, dtypes, shapes and every bit are equal."""
        return not self.differences(other)

    def __eq__(self, other: object) -> bool:
        return self.same_bits(other) if isinstance(other, Snapshot) else NotImplemented

    def __repr__(self) -> str:
        count = sum(array.size for array in self.weights.values())
        return f"Snapshot(step {self.step}, {len(self.weights)} variables, {count:,} values)"

    def _repr_html_(self) -> str:
        rows = [
            (part, f"{len(held):,}", f"{sum(array.size for array in held.values()):,}")
            for part, held in ((part, getattr(self, part)) for part in PARTS)
        ]
        return html_table([("part", "variables", "values"), *rows], note=f"Snapshot of step {self.step}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, atomically."""
        files.write_arrays(path, dict(self.named()), kind="snapshot", meta={"step": self.step})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Snapshot:
        """Read a snapshot that `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is truncated, edited, of another kind or of a newer version.
        """
        arrays, meta = files.read_arrays(path, kind="snapshot")
        with _reason(path, "snapshot"):
            return _snapshot(arrays, meta)


@dataclasses.dataclass(frozen=True, eq=False)
class Ticket(_Value):
    """Masks, the snapshot they were rewound to, and provenance.

    Attributes:
        masks: which weights remain.
        snapshot: W_k and what belongs to it; its weights are not masked; `apply_to` sets the pruned ones to 0.
        provenance: JSON-able. `format`, `criterion`, `density` and package `versions` are always there.
        keep_slots: whether to keep the optimizer's slots, for a run that begins with ``restore_optimizer=True``. By
            default a ticket has only the optimizer's counts and rates, because Adam's slots would triple the file.

    Raises:
        ValueError: a mask whose path and shape match no weight of the snapshot.
        TypeError: a provenance that JSON cannot hold; names the key.
    """

    masks: Masks
    snapshot: Snapshot
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keep_slots: dataclasses.InitVar[bool] = False

    def __post_init__(self, keep_slots: bool) -> None:
        if not keep_slots:
            object.__setattr__(self, "snapshot", self.snapshot.without_slots())
        for path, mask in self.masks.items():
            weight = self.snapshot.weights.get(path)
            if weight is None or weight.shape != mask.shape:
                found = "none" if weight is None else f"one of shape {weight.shape}"
                raise ValueError(f"mask {path!r} needs a weight of shape {mask.shape}, but the snapshot has {found}")
        if not isinstance(self.provenance, Mapping):
            raise TypeError(f"provenance must be a mapping, not a {type(self.provenance).__name__}")
        given = plain(self.provenance, "provenance")
        defaults = {"format": FORMAT, "criterion": "unknown", "versions": _versions()}
        object.__setattr__(self, "provenance", MappingProxyType({**defaults, **given, "density": self.density}))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.masks, self.snapshot, dict(self.provenance), True)

    @property
    def density(self) -> float:
        """Return the share of the masked weights that remain."""
        return self.masks.density

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ticket):
            return NotImplemented
        return (self.masks, self.snapshot, self.provenance) == (other.masks, other.snapshot, other.provenance)

    def __repr__(self) -> str:
        return f"Ticket({self.masks!r}, {self.snapshot!r})"

    def summary(self) -> str:
        """Return the table of its masks, then one line for the step and each entry of the provenance."""
        lines = [f"{key}: {value}" for key, value in {"step": self.snapshot.step, **self.provenance}.items()]
        return "\n".join([self.masks.summary(), *lines])

    def _repr_html_(self) -> str:
        rows = [(str(key), str(value)) for key, value in {"step": self.snapshot.step, **self.provenance}.items()]
        return self.masks._repr_html_() + html_table([("provenance", ""), *rows])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, atomically; the file is all that is needed to train the ticket elsewhere."""
        arrays = {f"masks/{name}": mask for name, mask in self.masks.items()} | dict(self.snapshot.named())
        meta = {"step": self.snapshot.step, "provenance": dict(self.provenance)}
        files.write_arrays(path, arrays, kind="ticket", meta=meta)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ticket:
        """Read a ticket that `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is truncated, edited, of another kind or of a newer version.
        """
        arrays, meta = files.read_arrays(path, kind="ticket")
        masks = _parts(arrays).get("masks", {})
        with _reason(path, "ticket"):
            snapshot = _snapshot({name: arrays[name] for name in arrays if not name.startswith("masks/")}, meta)
            return cls(Masks(masks), snapshot, meta.get("provenance", {}), keep_slots=True)

    def apply_to(self, model: Any) -> None:
        """Set a built model to this ticket, as `keras_lth.rewind` does: weights, statistics, masks, step and schedule.

        Compile the model first, so that it has an optimizer to set. Another instance of the same architecture works
        too.

        Raises:
            ValueError: an unbuilt model, or another architecture; lists the differences. The model is then unchanged.
        """
        from keras_lth import surgery

        surgery.rewind(model, self)


def value_of(snapshot: Snapshot) -> Value:
    """Return a snapshot as a value of a store: arrays by part and path, with the step in the metadata."""
    return Value(dict(snapshot.named()), {"step": snapshot.step})


def snapshot_of(value: Value) -> Snapshot:
    """Return the snapshot that `value_of` was given; without slots if the value was stored without them."""
    return Snapshot.from_named(value.arrays, value.meta["step"])


def _frozen(arrays: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    frozen = {}
    for path, value in arrays.items():
        frozen[path] = np.array(value, order="C")
        frozen[path].setflags(write=False)
    return MappingProxyType(frozen)


def _different_values(a: np.ndarray, b: np.ndarray) -> int:
    if a.size == 0:
        return 0
    bytes_a, bytes_b = (np.frombuffer(x.tobytes(), np.uint8).reshape(x.size, x.itemsize) for x in (a, b))
    return int(np.count_nonzero((bytes_a != bytes_b).any(axis=1)))


def _parts(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        part, _, path = name.partition("/")
        parts.setdefault(part, {})[path] = array
    return parts


def _snapshot(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Snapshot:
    parts, step = {name.partition("/")[0] for name in arrays}, meta.get("step")
    if parts - set(PARTS) or not isinstance(step, int):
        raise ValueError(f"it holds {sorted(parts)} at step {step!r}")
    return Snapshot.from_named(arrays, step)


@contextmanager
def _reason(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """A file whose hashes are right may still hold the wrong things."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is not a keras_lth {kind}: {error}") from error


def _versions() -> dict[str, str]:
    found = {
        of: next((d.version for d in importlib.metadata.distributions(name=of)), "not installed") for of in _PACKAGES
    }
    return {"keras_lth": __version__, **found}
