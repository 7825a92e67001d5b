"""The agenda of plans: the steps they need, what of it is missing, and what can be made now. Names only, no files."""

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
    """Steps that are made together: one, or those of one training. ``key``: what it is claimed by; None: not at all."""

    key: str | None
    steps: list[Step]


class Agenda:
    """What plans want.

    Args:
        plans: functions of a `Notebook`, by name.
        value: the value of a kept step, None where it is not there: what plans look at.

    Attributes:
        notebooks: of the plans that were read, by name.
    """

    def __init__(self, plans: Mapping[str, Plan], value: Callable[[Step], Value | None]) -> None:
        self._plans, self._value = plans, value
        self.notebooks: dict[str, Notebook] = {}

    def read(self, there: Collection[str]) -> list[str]:
        """Run the plans that were not run yet, or that wait for a value that is there now; returns their names."""
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
        """The name under which a store keeps what it knows of a plan: that of the plan, and a digest of its arguments,
        such as a config, so that one plan under two configs has two records."""
        given = arguments_of(self._plans[name])
        return f"{name}-{digest(given)[:8]}" if given else name

    def known(self, name: str) -> dict[str, Any]:
        """What a store keeps of a plan: its arguments, the names of its steps, the steps each is made of, its rows, and
        the names of the values that it waits for before it can name more."""
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
        """All kept steps that the plans need, inputs first."""
        return _all(self.notebooks.values())

    def rows(self, value: Callable[[Step], Value | None]) -> Tidy:
        """The rows of the plans, with the numbers of the values that are there."""
        listed = [row for notebook in self.notebooks.values() for row in notebook.rows]
        steps = {step.name: step for row in listed for step in row.steps}
        return tidy([(row.labels, [s.name for s in row.steps]) for row in listed], lambda name: value(steps[name]))

    def labels(self) -> dict[str, str]:
        """What each step is made for: the labels of the first row that needs it."""
        found: dict[str, str] = {}
        for row in (row for notebook in self.notebooks.values() for row in notebook.rows):
            text = " ".join(f"{key}={value}" for key, value in row.labels.items())
            found |= dict.fromkeys(closure(row.steps, found), text)
        return found

    def missing(self, there: Collection[str], only: str | None = None) -> Steps:
        """The steps that must be made for what the plans want, or for the step named ``only``; inputs first.

        Raises ``ValueError`` where no plan has that step.
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
    """The arguments that a `functools.partial` gives; none where they have no canonical form."""
    given = {}
    if isinstance(plan, partial):
        with suppress(TypeError, ValueError):
            given = canonical({**{str(place): value for place, value in enumerate(plan.args)}, **plan.keywords})
    return given


def _all(notebooks: Iterable[Notebook]) -> Steps:
    return closure(step for book in notebooks for step in (*book.steps, *(other for _, other in book.besides)))


def ready(missing: Mapping[str, Step], there: Collection[str], failed: Collection[str]) -> list[Task]:
    """What can be made now, in the order of ``missing``; the points of one trajectory are one task."""
    tasks: dict[Any, Task] = {}
    for step in missing.values():
        if step.name in failed or any(each.name not in there for each in step.sources):
            continue
        together = step.name if step.point is None else (key_of(step), digest(step.point.trajectory.rates))
        tasks.setdefault(together, Task(key_of(step), [])).steps.append(step)
    return list(tasks.values())


def key_of(step: Step) -> str | None:
    """What a step is claimed by while it is made: its trajectory, or its own name where it takes long."""
    if step.point is not None:
        return step.point.trajectory.id
    return step.name if step.kind.long else None


def closure(wanted: Iterable[Step], there: Collection[str] = ()) -> Steps:
    """The kept steps that are needed for these, inputs first; those that are there, and what they need, left out."""
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
