"""A training is a trajectory, and its states are points on it: one state has one name, however it was reached.

A trajectory is named by its start, masks, noise and setting; a point also by its step and by the rates of the steps up
to it. A name does not contain how the training was split into calls, where it ends, or what was measured on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from keras_lth.plans.step import Kind, Step, canonical, digest

Rates = tuple[tuple[int, Any], ...]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A training without an end. `trajectory` makes it.

    Attributes:
        kind: the kind of its states; ``kind.make`` returns a `training.Trainer`.
        start: the state it starts from.
        masks: what remains; None for all.
        params: noise and setting, in canonical form.
        given: the parameters as a worker gets them.
        rates: ``((from step, rate), …)``; a rate that is not a number is a formula, in which steps count from 0.
        check: raises ``ValueError`` for what cannot be observed; not part of any name.
    """

    kind: Kind
    start: Step
    masks: Step | None
    params: Mapping[str, Any]
    given: Mapping[str, Any]
    rates: Rates
    check: Callable[[Any], None] | None = None

    @property
    def begin(self) -> int:
        """Return the step of its start."""
        return _step_of(self.start)

    @cached_property
    def id(self) -> str:
        """Return a name of the trajectory without its rates, by which a training in progress is claimed."""
        what = digest(self.kind.name, self.kind.version, self.params, [each.name for each in self.inputs])
        return what[:16]

    @cached_property
    def inputs(self) -> tuple[Step, ...]:
        """Return the start, the slots of a start that is a point of another trajectory, and the masks."""
        point = self.start.point
        slots = () if point is None else (point.trajectory.slots(point.step),)
        return (self.start, *slots, *(() if self.masks is None else (self.masks,)))

    def at(self, step: int) -> Step:
        """Name the state at a step, without slots; at its first step the start itself."""
        return self.start if step == self.begin else self._point(self.kind, step)

    def slots(self, step: int) -> Step:
        """Name the optimizer's slots at a step, which a training that starts there needs besides the state."""
        return self._point(replace(self.kind, name="slots"), step)

    def observed(self, what: Any, *, every: int, to: int) -> Step:
        """Name rows of numbers at each multiple of ``every``, and at the last step, ``to``."""
        if self.check is not None:
            self.check(what)
        kind = replace(self.kind, name="observed", thin=False)
        return self._point(kind, to, what=what, every=every)

    def under(self, rates: Any) -> Trajectory:
        """Name the same training at other learning rates, given as for `trajectory`."""
        return replace(self, rates=_pieces(rates))

    def _point(self, kind: Kind, step: int, **more: Any) -> Step:
        if int(step) != step or step <= self.begin:
            raise ValueError(
                f"a point of this training must have a step > {self.begin}, where it starts, not {step!r}."
            )
        params = {**self.params, **more, "step": int(step), "rates": taken(self.rates, self.begin, step)}
        return Step(kind, canonical(params, kind.name), self.inputs, point=Point(self, int(step)))


class Point(NamedTuple):
    """The position of a step on a trajectory."""

    trajectory: Trajectory
    step: int


def trajectory(kind: Kind, start: Step, masks: Step | None, rates: Any, **params: Any) -> Trajectory:
    """Name a training from ``start``; if the start is a point of the same training, it continues that training.

    Args:
        kind: the kind of the states.
        start: a step; its parameter ``step`` gives its position, 0 without one.
        masks: a step, or None.
        rates: a rate, or ``((from step, rate), …)`` from step 0 on.
        params: noise and setting.
    """
    pieces = _pieces(rates)
    setting = kind(**params)
    made = Trajectory(kind, start, masks, setting.params, setting.given, pieces)
    before = start.point
    if before is None or start.kind.name != kind.name:
        return made
    same = (before.trajectory.kind, before.trajectory.masks, before.trajectory.params) == (kind, masks, made.params)
    if not same:
        return made
    first = before.trajectory
    joined = [*taken(first.rates, first.begin, before.step), *taken(pieces, before.step, None)]
    return replace(first, rates=_merged(joined))


def _pieces(rates: Any) -> Rates:
    pieces: Rates = tuple(map(tuple, rates)) if isinstance(rates, (list, tuple)) else ((0, rates),)
    if not pieces or pieces[0][0] != 0 or [s for s, _ in pieces] != sorted({s for s, _ in pieces}):
        raise ValueError(f"rates must be ((0, rate), (step, rate), …) with increasing steps, not {rates!r}.")
    return pieces


def _step_of(state: Step) -> int:
    return int(state.params.get("step", 0))


def taken(rates: Rates, begin: int, end: int | None) -> Rates:
    """Return the rates of the steps from ``begin`` to ``end``, in canonical form."""
    upto = [piece for piece in rates if end is None or piece[0] < end]
    first = max(place for place, piece in enumerate(upto) if place == 0 or piece[0] <= begin)
    return _merged([(max(step, begin) if _is_number(rate) else step, rate) for step, rate in upto[first:]])


def _merged(pieces: Sequence[tuple[int, Any]]) -> Rates:
    found: list[tuple[int, Any]] = []
    for step, rate in pieces:
        if not found or digest(found[-1][1]) != digest(rate):
            found.append((step, rate))
    return tuple(found)


def _is_number(rate: Any) -> bool:
    return isinstance(rate, (int, float))
