"""The agenda of plans: the steps they need, which are missing, and which are ready. It uses names only, no files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from keras_lth.plans.notebook import Notebook, Tidy, Waiting, tidy
from keras_lth.plans.step import Step, canonical, digest
from keras_lth.store.values import Value

Plan = Callable[[Notebook], Any]
Steps = dict[str, Step]


@dataclass
class Task:
    """Steps that are computed together: one, or those of one training. ``key``: the name of its claim; None: no
    claim.
    """

    key: str | None
    steps: list[Step]


class Agenda:
    """The steps that plans need.

    Args:
        plans: functions of a `Notebook`, by name.
        value: returns the value of a stored step, None if it does not exist: what plans look at.

    Attributes:
        notebooks: the notebooks of the plans that were read, by name.
    """

    def __init__(self, plans: Mapping[str, Plan], value: Callable[[Step], Value | None]) -> None:
        self._plans, self._value = plans, value
        self.notebooks: dict[str, Notebook] = {}

    def read(self, there: Collection[str]) -> list[str]:
        """Run the plans that have not run yet, or whose awaited value now exists; return their names."""
        read = []
        for name, plan in self._plans.items():
            before = self.notebooks.get(name)
            if before is not None and not any(step.name in there for step in before.awaited):
                continue
            notebook = self.notebooks[name] = Notebook(self._value)
            with suppress(Waiting):
                plan(notebook)
            read.append(name)
        return read

    def record(self, name: str) -> str:
        """Return the name under which a store records a plan: the plan's name and a digest of its arguments.

        One plan under two configs therefore has two records.
        """
        given = arguments_of(self._plans[name])
        return f"{name}-{digest(given)[:8]}" if given else name

    def known(self, name: str) -> dict[str, Any]:
        """Return what a store records of a plan.

        This is its arguments, the names of its steps, the inputs of each step, its rows, and the names of the values
        that it needs before it can name more.
        """
        notebook = self.notebooks[name]
        steps = _all([notebook])
        return {
            "arguments": arguments_of(self._plans[name]),
            "names": list(steps),
            "wanted": [step.name for step in notebook.steps],
            "sources": {step.name: [each.name for each in step.sources] for step in steps.values()},
            "keys": sorted({key for step in steps.values() if (key := key_of(step))}),
            "rows": [[row.labels, [step.name for step in row.steps]] for row in notebook.rows],
            "awaited": [step.name for step in notebook.awaited],
        }

    @property
    def steps(self) -> Steps:
        """Return all stored steps that the plans need, inputs first."""
        return _all(self.notebooks.values())

    def rows(self, value: Callable[[Step], Value | None]) -> Tidy:
        """Return the rows of the plans, with the numbers of the values that exist."""
        listed = [row for notebook in self.notebooks.values() for row in notebook.rows]
        steps = {step.name: step for row in listed for step in row.steps}
        return tidy([(row.labels, [s.name for s in row.steps]) for row in listed], lambda name: value(steps[name]))

    def labels(self) -> dict[str, str]:
        """Return the purpose of each step: the labels of the first row that needs it."""
        found: dict[str, str] = {}
        for row in (row for notebook in self.notebooks.values() for row in notebook.rows):
            text = " ".join(f"{key}={value}" for key, value in row.labels.items())
            found |= dict.fromkeys(closure(row.steps, found), text)
        return found

    def missing(self, there: Collection[str], only: str | None = None) -> Steps:
        """Return the steps to compute for the plans, or for the step named ``only``; inputs first.

        Raises ``ValueError`` if no plan has that step.
        """
        if only is None:
            missing = closure((step for book in self.notebooks.values() for step in book.steps), there)
            for book in self.notebooks.values():
                for step, other in book.besides:
                    if step.name in missing:
                        missing |= closure([other], {*there, *missing})
            return missing
        steps = self.steps
        if only not in steps:
            raise ValueError(f"no plan has a step {only}: its {len(steps)} steps have other names.")
        return closure([steps[only]], there)


def arguments_of(plan: Plan) -> dict[str, Any]:
    """Return the arguments of a `functools.partial`; none if they have no canonical form."""
    given = {}
    if isinstance(plan, partial):
        with suppress(TypeError, ValueError):
            given = canonical({**{str(place): value for place, value in enumerate(plan.args)}, **plan.keywords})
    return given


def _all(notebooks: Iterable[Notebook]) -> Steps:
    return closure(step for book in notebooks for step in (*book.steps, *(other for _, other in book.besides)))


def ready(missing: Mapping[str, Step], there: Collection[str], failed: Collection[str]) -> list[Task]:
    """Return what can be computed now, in the order of ``missing``; the points of one trajectory are one task."""
    tasks: dict[Any, Task] = {}
    for step in missing.values():
        if step.name in failed or any(each.name not in there for each in step.sources):
            continue
        together = step.name if step.point is None else (key_of(step), digest(step.point.trajectory.rates))
        tasks.setdefault(together, Task(key_of(step), [])).steps.append(step)
    return list(tasks.values())


def key_of(step: Step) -> str | None:
    """Return the name of the claim on a step: its trajectory, or its own name if the step takes long."""
    if step.point is not None:
        return step.point.trajectory.id
    return step.name if step.kind.long else None


def closure(wanted: Iterable[Step], there: Collection[str] = ()) -> Steps:
    """Return the stored steps that these need, inputs first, without those that exist and their inputs."""
    found: Steps = {}
    stack = [(step, False) for step in reversed(list(wanted))]
    while stack:
        step, entered = stack.pop()
        if step.name in found or step.name in there:
            continue
        if entered:
            found[step.name] = step
        else:
            stack.append((step, True))
            stack += [(each, False) for each in reversed(step.sources)]
    return found
