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
    """A plan looks at a value that is not there yet. Not an ``Exception``: no plan should handle it."""


@dataclass(frozen=True)
class Row:
    """Labels, and the values whose numbers stand beside them."""

    labels: dict[str, Any]
    steps: tuple[Step, ...]


class Notebook:
    """What a plan is given.

    Args:
        value: the value of a kept step, None where it is not there yet.

    Attributes:
        rows: in the order in which the plan named them.
        wanted: steps that the plan needs without a row.
        besides: pairs of steps: where the first is made, the second is made with it.
        awaited: those of them that it cannot continue without.
    """

    def __init__(self, value: Callable[[Step], Value | None]) -> None:
        self._value = value
        self.rows: list[Row] = []
        self.wanted: list[Step] = []
        self.awaited: list[Step] = []
        self.besides: list[tuple[Step, Step]] = []

    def row(self, *steps: Step, **labels: Any) -> None:
        """Name a row: labels, and the steps whose numbers stand in it."""
        for step in steps:
            _check_kept(step)
        self.rows.append(Row(labels, steps))

    def want(self, *steps: Step) -> None:
        """Have values made that stand in no row."""
        for step in steps:
            _check_kept(step)
        self.wanted += steps

    def beside(self, step: Step, other: Step) -> None:
        """Have ``other`` made where ``step`` is, at no cost: the slots of a state that may be forked later."""
        _check_kept(other)
        self.besides.append((step, other))

    @property
    def steps(self) -> list[Step]:
        """All steps that the plan wants."""
        return [*self.wanted, *(step for row in self.rows for step in row.steps)]

    def look(self, step: Step) -> Value:
        """The value of a step, where the plan needs it to go on: where it is not there the plan stops here, and is run
        again when it is. Use `each` so that other branches do not wait for it."""
        _check_kept(step)
        self.wanted.append(step)
        found = self._value(step)
        if found is None:
            self.awaited.append(step)
            raise Waiting(step.name)
        return found

    def each(self, items: Iterable[T], branch: Callable[[T], U]) -> list[U]:
        """``[branch(item), …]``; a branch that waits for a value keeps no other from going on."""
        found: list[U] = []
        listed = list(items)
        for item in listed:
            with suppress(Waiting):
                found.append(branch(item))
        if len(found) < len(listed):
            raise Waiting(f"{len(listed) - len(found)} branches")
        return found


class Tidy(NamedTuple):
    """Rows with their numbers, and the labels of those of which a value is missing."""

    rows: list[dict[str, Any]]
    missing: list[dict[str, Any]]


def tidy(rows: Iterable[tuple[dict[str, Any], Sequence[str]]], value: Callable[[str], Value | None]) -> Tidy:
    """One flat row for each row of numbers: ``{**labels, **numbers}``, those of several values side by side.

    Args:
        rows: labels and the names of values, as a store keeps them of a plan.
        value: gives the value of a name, None where it is not there.

    Raises ``ValueError`` where a number has the name of a label, or two values that stand in a row have many rows.
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
