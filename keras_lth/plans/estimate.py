"""Estimate plans on a store: the rows that exist, what a run would do, and how long that takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras_lth.files.stores import AnyPath
from keras_lth.plans.agenda import Agenda, Plan
from keras_lth.plans.notebook import Tidy, tidy
from keras_lth.plans.step import Step, digest
from keras_lth.store.values import DamagedError, MissingError, Store, Value

_RECORDS = 50  # number of values read per kind


class Line(NamedTuple):
    """A kind of steps. ``seconds`` and ``bytes`` are for the missing ones; None if the store has none to compare
    with.
    """

    kind: str
    there: int
    missing: int
    seconds: float | None
    bytes: float | None


@dataclass(frozen=True)
class Estimate:
    """One line per kind, and the number of places where plans wait for a value before they can name more."""

    lines: tuple[Line, ...]
    looks: int

    @property
    def seconds(self) -> float | None:
        """Return the total, in one process; None if one kind is unknown."""
        return _sum(line.seconds for line in self.lines if line.missing)

    @property
    def bytes(self) -> float | None:
        """Return the total."""
        return _sum(line.bytes for line in self.lines if line.missing)

    def __str__(self) -> str:
        rows = [("", "there", "missing", "time", "bytes")]
        rows += [
            (line.kind, str(line.there), str(line.missing), duration(line.seconds), size_text(line.bytes))
            for line in self.lines
        ]
        there, missing = sum(line.there for line in self.lines), sum(line.missing for line in self.lines)
        rows.append(("all", str(there), str(missing), duration(self.seconds), size_text(self.bytes)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        text = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        if self.looks:
            text.append(f"The plans need {self.looks} more values before they can name further steps.")
        return "\n".join(text)


class Reading:
    """Plans read on the store in ``folder``, which need not exist yet. Nothing is computed or written."""

    def __init__(self, plans: Plan | Mapping[str, Plan], folder: AnyPath) -> None:
        try:
            self.store: Store | None = Store(folder, create=False)
        except FileNotFoundError:
            self.store = None
        self.there = set() if self.store is None else self.store.names()
        self.agenda = Agenda(plans if isinstance(plans, Mapping) else {"plan": plans}, self.seen)
        self.agenda.read(self.there)

    def seen(self, step: Step) -> Value | None:
        """Return the value of a step; None if it is missing or damaged."""
        return self.value(step.name)

    def value(self, name: str) -> Value | None:
        """Return the value with this name; None if it is missing or damaged."""
        if self.store is None or name not in self.there:
            return None
        try:
            return self.store.get(name)
        except (MissingError, DamagedError):
            return None


def rows(plans: Plan | Mapping[str, Plan], folder: AnyPath) -> Tidy:
    """Return the rows whose values exist, with the label ``plan``, and the labels of those that are still incomplete.

    The rows of these plans come first, then those of other plans in the store, each row once. The incomplete rows are
    those of these plans only.
    """
    reading = Reading(plans, folder)
    agenda, known = reading.agenda, {} if reading.store is None else reading.store.plans()
    mine = {agenda.record(name): agenda.known(name)["rows"] for name in agenda.notebooks}
    once: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for record, listed in {**{name: plan["rows"] for name, plan in known.items()}, **mine}.items():
        for labels, names in listed:
            key = digest(labels, names)
            if key not in once or record in mine:
                once[key] = {"plan": record, **labels}, names
    found = tidy(once.values(), reading.value)
    found.rows.sort(key=lambda row: row["plan"] not in mine)
    return Tidy(found.rows, [labels for labels in found.missing if labels["plan"] in mine])


def estimate(plans: Plan | Mapping[str, Plan], folder: AnyPath, only: str | None = None) -> Estimate:
    """Estimate the run of plans on the store in ``folder``, which need not exist yet; compute and write nothing.

    With ``only``, the name of a step, estimate that step and what it needs. Raises ``ValueError`` if no plan has it.
    """
    reading = Reading(plans, folder)
    agenda, there, store = reading.agenda, reading.there, reading.store
    steps, missing = agenda.steps, agenda.missing(there, only)
    lines = []
    for kind in dict.fromkeys(step.kind.name for step in steps.values()):
        left = [step for step in missing.values() if step.kind.name == kind]
        records = [] if store is None or not left else list(_records(store, kind, there))
        size = _mean(record.get("bytes") for record in records)
        lines.append(
            Line(
                kind,
                sum(step.kind.name == kind and step.name in there for step in steps.values()),
                len(left),
                _seconds(left, missing, records),
                None if size is None else size * len(left),
            )
        )
    return Estimate(tuple(lines), sum(len(book.awaited) for book in agenda.notebooks.values()))


def _records(store: Store, kind: str, there: Iterable[str]) -> Iterable[dict[str, Any]]:
    names = sorted(name for name in there if name.startswith(f"{kind}-"))
    for name in names[:: max(1, len(names) // _RECORDS)]:
        with suppress(MissingError, DamagedError):
            yield store.record(name)


def _seconds(left: list[Step], missing: Mapping[str, Step], records: list[dict[str, Any]]) -> float | None:
    """Time of trainings, from their steps: one training makes all points of a trajectory, so its last point counts."""
    if not left:
        return 0.0
    if left[0].point is None:
        each = _mean(record.get("seconds") for record in records)
        return None if each is None else each * len(left)
    steps = sum(record.get("steps", 0) for record in records)
    if not steps:
        return None
    ends: dict[str, tuple[int, str]] = {}
    for step in missing.values():
        if step.point is not None:
            line = step.point.trajectory
            ends[line.id] = max(ends.get(line.id, (line.begin, "")), (step.point.step, step.kind.name))
    begins = {step.point.trajectory.id: step.point.trajectory.begin for step in left if step.point is not None}
    # The time of a training is counted once, in the line of the kind of its last point.
    mine = [ends[each][0] - begin for each, begin in begins.items() if ends[each][1] == left[0].kind.name]
    return sum(record.get("seconds", 0.0) for record in records) / steps * sum(mine)


def _mean(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if known else None


def _sum(numbers: Iterable[float | None]) -> float | None:
    listed = list(numbers)
    return None if None in listed else sum(number for number in listed if number is not None)


def duration(seconds: float | None) -> str:
    """Format a duration for people."""
    if seconds is None:
        return "?"
    minutes = seconds / 60
    return f"{seconds:.1f} s" if minutes < 1 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def size_text(size: float | None) -> str:
    """Format a number of bytes for people."""
    if size is None:
        return "?"
    return f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
