"""Compute points: one training, from the nearest stored state, computes all missing points of a trajectory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from keras_lth.plans.step import Step, blaming, canonical, digest, filled, resolve
from keras_lth.plans.trajectory import Trajectory, taken
from keras_lth.store.claims import Claim
from keras_lth.store.values import Value

# The part of a state that is needed only by a training that starts from it.
SLOTS = "optimizer/"


class Trainer(Protocol):
    """What ``make`` of a kind of training returns, called with the rates and the parameters: a network in training."""

    calls: int  # steps in one call, at most

    def load(self, state: Value, masks: Value | None, *, first: bool) -> None:
        """Start from a state; ``first`` if it is the start of the trajectory, at which its noise begins."""

    def advance(self, to: int) -> None:
        """Train up to this step."""

    def state(self) -> Value:
        """Return the whole state; arrays under ``optimizer/`` are slots."""

    def observe(self, what: Any) -> Mapping[str, float]:
        """Measure the network in its current state."""


class Reader(Protocol):
    """Access to the values of steps."""

    def value(self, step: Step) -> Value:
        """Return the value of a step that exists, or that is computed in memory."""

    def has(self, step: Step) -> bool:
        """Return whether a stored step exists."""

    def names(self) -> set[str]:
        """Return the names of all stored values."""

    def agreed(self, flag: bool) -> bool:
        """Return whether any of the hosts that train together says yes."""

    def put(self, step: Step, value: Value, **record: Any) -> None:
        """Store the value of a step."""


class _Source(NamedTuple):
    """A state to continue from, with the rows up to it; its training began at ``origin`` and has taken ``seconds``."""

    step: int
    value: Value
    rows: dict[str, list[dict[str, Any]]]
    origin: int
    seconds: float = 0.0


def train(
    missing: Sequence[Step],
    values: Reader,
    claim: Claim,
    *,
    commit_every: float = 60.0,
    ending: Callable[[], bool] = lambda: False,
) -> None:
    """Compute missing points of one trajectory, in one training from the nearest stored or committed state.

    It commits every ``commit_every`` seconds. It also commits if ``ending()`` says that the process must end, and then
    raises ``SystemExit(143)``.
    """
    points = [(step, step.point) for step in missing if step.point is not None]
    line, last = points[0][1].trajectory, max(point.step for _, point in points)
    blamed = next(step for step, point in points if point.step == last)
    source = _nearest(line, missing, values, claim)
    masks = None if line.masks is None else values.value(line.masks)
    with blaming(blamed):
        trainer = trainer_of(line, last)
        trainer.load(source.value, masks, first=source.step == line.begin)
    at, rows, began = source.step, source.rows, time.monotonic() - source.seconds
    committed = time.monotonic()
    for stop in _stops(missing, line, at):
        while at < stop:
            to = min(stop, at + trainer.calls)
            with blaming(blamed):
                trainer.advance(to)
            at = to
            if at < last and values.agreed(ending() or time.monotonic() - committed >= commit_every):
                with blaming(blamed):
                    whole = trainer.state()
                held = {"meta": whole.meta, "rows": rows, "seconds": time.monotonic() - began, "origin": source.origin}
                held["rates"] = canonical(taken(line.rates, line.begin, at))
                claim.commit(at, whole.arrays, held)
                committed = time.monotonic()
                if values.agreed(ending()):
                    raise SystemExit(143)
        for key, what in _looks(missing, line, at).items():
            if not any(row["step"] == at for row in rows[key]):
                with blaming(blamed):
                    rows[key].append({"step": at, **trainer.observe(what)})
        # Slots first: then an existing state always has its slots, wherever the process dies.
        due = sorted((step for step, point in points if point.step == at), key=lambda step: step.kind.name != "slots")
        if due:
            claim.check()
            spent = {"seconds": round(time.monotonic() - began, 3), "steps": at - source.origin}
            with blaming(blamed):
                whole = trainer.state() if any(step.kind.name != "observed" for step in due) else Value()
            for step in due:
                values.put(step, _part(step, whole, rows), **spent)


def trainer_of(line: Trajectory, last: int) -> Trainer:
    """Return what trains a trajectory up to step ``last``; nothing is trained yet."""
    rates = canonical(taken(line.rates, line.begin, last))
    made: Trainer = resolve(line.kind.make)(rates=rates, **filled(line.given, line.kind.defaults))
    return made


def _part(step: Step, whole: Value, rows: Mapping[str, list[dict[str, Any]]]) -> Value:
    """The part of the whole state that a point stores."""
    if step.kind.name == "observed":
        mine = [row for row in rows[_key(step)] if _looks_at(step, row["step"])]
        return Value({}, {"rows": mine})
    slots = step.kind.name == "slots"
    arrays = {name: array for name, array in whole.arrays.items() if name.startswith(SLOTS) == slots}
    return Value(arrays, {} if slots else whole.meta)


def _nearest(line: Trajectory, missing: Sequence[Step], values: Reader, claim: Claim) -> _Source:
    """The last state before anything that is missing: committed, stored with its slots, or the start."""
    watched = {_key(step): step for step in missing if step.kind.name == "observed"}
    states = [step.params["step"] for step in missing if step.kind.name != "observed"]
    limit = min(states) if states else max(step.params["step"] for step in missing)
    commit = claim.latest()
    committed = -1
    if commit is not None and commit.step <= limit and watched.keys() <= commit.state["rows"].keys():
        same = commit.state["rates"] == canonical(taken(line.rates, line.begin, commit.step))
        committed = commit.step if same else -1
    start = f"slots-{line.id}-"
    for at in sorted({int(n[len(start) :].split("-")[0]) for n in values.names() if n.startswith(start)}, reverse=True):
        if not max(committed, line.begin) < at <= limit:
            continue
        state, slots = line.at(at), line.slots(at)
        seen = {
            key: line.observed(step.params["what"], every=step.params["every"], to=at) for key, step in watched.items()
        }
        if all(map(values.has, (state, slots, *seen.values()))):
            kept = values.value(state)
            whole = Value({**kept.arrays, **values.value(slots).arrays}, kept.meta)
            return _Source(at, whole, {key: values.value(step).rows for key, step in seen.items()}, at)
    if commit is not None and committed >= 0:
        held = commit.state
        rows = {key: list(found) for key, found in held["rows"].items()}
        return _Source(commit.step, Value(commit.arrays, held["meta"]), rows, held["origin"], held["seconds"])
    start_value = values.value(line.start)
    arrays = dict(start_value.arrays)
    for slots in line.inputs[1:2] if line.start.point is not None else ():
        arrays |= values.value(slots).arrays
    return _Source(line.begin, Value(arrays, start_value.meta), {key: [] for key in watched}, line.begin)


def _key(observed: Step) -> str:
    return digest(observed.params["what"], observed.params["every"])


def _looks_at(observed: Step, at: int) -> bool:
    every, to = observed.params["every"], observed.params["step"]
    return at <= to and (at % every == 0 or at == to)


def _stops(missing: Sequence[Step], line: Trajectory, at: int) -> list[int]:
    """The steps, from ``at`` on, at which something is stored or measured."""
    found = {step.params["step"] for step in missing}
    for step in missing:
        if step.kind.name == "observed":
            every = step.params["every"]
            found |= set(range((line.begin // every + 1) * every, step.params["step"], every))
    return sorted(stop for stop in found if stop >= at)


def _looks(missing: Sequence[Step], line: Trajectory, at: int) -> dict[str, Any]:
    """What is measured at a step, by key."""
    watched = [step for step in missing if step.kind.name == "observed"]
    return {_key(step): step.params["what"] for step in watched if line.begin < at and _looks_at(step, at)}
