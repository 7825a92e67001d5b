"""The notebook of a plan: the rows it names, and the values it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from keras_lth.plans.step import Step
from keras_lth.store.values import Value

T = TypeVar("T")
U = TypeVar("U")


class Waiting(BaseException):
    """Raised when a plan looks at a missing value. Not an ``Exception``, so that no plan catches it by accident."""


@dataclass(frozen=True)
class Row:
    """Labels, and the values that supply the numbers of the row."""

    labels: dict[str, Any]
    steps: tuple[Step, ...]


class Notebook:
    """The argument that a plan gets.

    Args:
        value: returns the value of a stored step, None if it does not exist yet.

    Attributes:
        rows: rows in the order in which the plan named them.
        wanted: steps that the plan needs without a row.
        besides: pairs of steps: whenever the first is computed, the second is computed with it.
        awaited: wanted steps that the plan cannot continue without.
    """

    def __init__(self, value: Callable[[Step], Value | None]) -> None:
        self._value = value
        self.rows: list[Row] = []
        self.wanted: list[Step] = []
        self.awaited: list[Step] = []
        self.besides: list[tuple[Step, Step]] = []

    def row(self, *steps: Step, **labels: Any) -> None:
        """Name a row: labels, and the steps that supply its numbers."""
        for step in steps:
            _check_kept(step)
        self.rows.append(Row(labels, steps))

    def want(self, *steps: Step) -> None:
        """Request values that are in no row."""
        for step in steps:
            _check_kept(step)
        self.wanted += steps

    def beside(self, step: Step, other: Step) -> None:
        """Compute ``other`` whenever ``step`` is, at no extra cost: the slots of a state that may be forked later."""
        _check_kept(other)
        self.besides.append((step, other))

    @property
    def steps(self) -> list[Step]:
        """Return all steps that the plan requests."""
        return [*self.wanted, *(step for row in self.rows for step in row.steps)]

    def look(self, step: Step) -> Value:
        """Return the value of a step that the plan needs to continue.

        If it is missing, the plan stops here, and is run again once the value exists. Use `each` so that other branches
        do not wait for it.
        """
        _check_kept(step)
        self.wanted.append(step)
        found = self._value(step)
        if found is None:
            self.awaited.append(step)
            raise Waiting(step.name)
        return found

    def each(self, items: Iterable[T], branch: Callable[[T], U]) -> list[U]:
        """Return ``[branch(item), …]``; a branch that waits for a value does not stop the others."""
        found: list[U] = []
        listed = list(items)
        for item in listed:
            with suppress(Waiting):
                found.append(branch(item))
        if len(found) < len(listed):
            raise Waiting(f"{len(listed) - len(found)} branches")
        return found


class Tidy(NamedTuple):
    """Rows with their numbers, and the labels of rows with a missing value."""

    rows: list[dict[str, Any]]
    missing: list[dict[str, Any]]


def tidy(rows: Iterable[tuple[dict[str, Any], Sequence[str]]], value: Callable[[str], Value | None]) -> Tidy:
    """Make one flat row for each row of numbers: ``{**labels, **numbers}``, several values side by side.

    Args:
        rows: labels and the names of values, as a store records them.
        value: returns the value with a name, None if it does not exist.

    Raises ``ValueError`` if a number has the name of a label, or if two values of a row have several rows each.
    """
    found, missing = [], []
    for labels, names in rows:
        values = [value(name) for name in names]
        there = [each for each in values if each is not None]
        if len(there) < len(values):
            missing.append(dict(labels))
            continue
        made: list[dict[str, Any]] = [dict(labels)]
        for each in there:
            if len(made) > 1 and len(each.rows) > 1:
                raise ValueError(
                    f"the row {labels} has two values with several rows each: give each value its own row."
                )
            made = [_joined(row, numbers) for row in made for numbers in each.rows]
        found += made
    return Tidy(found, missing)


def _joined(row: dict[str, Any], numbers: dict[str, Any]) -> dict[str, Any]:
    if twice := [name for name in numbers if name in row and row[name] != numbers[name]]:
        raise ValueError(f"the row {row} has {twice[0]!r} twice: choose another label.")
    return {**row, **numbers}


def _check_kept(step: Step) -> None:
    if not step.kind.keep:
        raise ValueError(f"a {step.kind.name} is not stored, so rows and lab.look cannot use it.")
