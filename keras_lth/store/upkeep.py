"""Looking after a store: list it, check it, copy it, and find what may go.

`sweepable` is what no plan names, `thinnable` what plans name and could make again; `drop` removes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from keras_lth.store.values import DamagedError, MissingError, Store


class Entry(NamedTuple):
    """A line of a listing."""

    name: str
    kind: str
    labels: str
    made: str
    bytes: int
    thin: bool


def listed(store: Store) -> list[Entry]:
    """Every value, with the labels of the rows that it stands in; of a damaged one only the name is known."""
    labels: dict[str, list[str]] = {}
    for plan in store.plans().values():
        for row, names in plan["rows"]:
            for name in names:
                labels.setdefault(name, []).append(" ".join(f"{key}={value}" for key, value in row.items()))
    found = []
    for name in sorted(store.names()):
        try:
            record = store.record(name)
        except MissingError:
            continue
        except DamagedError:
            record = {"kind": "damaged"}
        text = "; ".join(labels.get(name, ()))
        kind, made, size = record.get("kind", "?"), record.get("made", "?"), int(record.get("bytes", 0))
        found.append(Entry(name, kind, text, made, size, bool(record.get("thin"))))
    return found


def check(store: Store) -> dict[str, str]:
    """Read every byte of every value: the reason, by the name, of each one that is damaged."""
    return {name: reason for name in sorted(store.names()) if (reason := _damage(store, name))}


def sweepable(store: Store) -> list[Entry]:
    """Values that no plan names: of configs that were changed, or steps of another version."""
    known = {name for plan in store.plans().values() for name in plan["names"]}
    return [entry for entry in listed(store) if entry.name not in known]


def thinnable(store: Store) -> list[Entry]:
    """Values that no plan wants and no missing step needs, of kinds that say that they may be made again: states."""
    there = store.names()
    needed: set[str] = set()
    for plan in store.plans().values():
        stack = list(plan["wanted"])
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                stack += [] if name in there else plan["sources"][name]
    return [entry for entry in listed(store) if entry.thin and entry.name not in needed]


def copy(source: Store, target: Store, said: Callable[[str], None] = lambda name: None) -> list[str]:
    """Copy values, and what plans know, that ``target`` does not have; returns the names. Every byte is checked.

    Raises ``DamagedError`` for a value of ``source`` that is damaged; those before it are copied.
    """
    copied = []
    for name in sorted(source.names() - target.names()):
        target.put(name, source.get(name), source.record(name))
        copied.append(name)
        said(name)
    for name, known in source.plans().items():
        if name not in target.plans():
            target.put_plan(name, known)
    return copied


def supersede(store: Store, name: str) -> None:
    """Drop the records of the same plan with other arguments that know no step that this one does not: the one of
    fewer levels, for example."""
    try:
        plans = store.plans()
    except ValueError:  # one is damaged: who needs it says so
        return
    if name not in plans:  # a run of more has superseded this one meanwhile
        return
    mine = set(plans[name]["names"])
    for other, known in plans.items():
        if other != name and plan_of(other) == plan_of(name) and mine.issuperset(known["names"]):
            store.drop_plan(other)


def distinguishing(store: Store, name: str) -> str:
    """The arguments in which a record differs from others of the same plan, such as "config.levels=15"."""
    given = {each: _flat(known.get("arguments", {})) for each, known in store.plans().items()}
    alike = [given[each] for each in given if each != name and plan_of(each) == plan_of(name)]
    mine = given[name]
    return ", ".join(f"{key}={value!r}" for key, value in mine.items() if any(each.get(key) != value for each in alike))


def _flat(arguments: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in arguments.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {above + key: value}
    return found


def plan_of(record: str) -> str:
    """The plan whose record has this name."""
    return re.sub(r"-[0-9a-f]{8}$", "", record)


def bytes_of(entries: Iterable[Entry]) -> int:
    """What they take."""
    return sum(entry.bytes for entry in entries)


def drop(store: Store, entries: Iterable[Entry]) -> None:
    """Remove them, durably."""
    for entry in entries:
        store.drop(entry.name)
    store.settle()


def abandoned(store: Store) -> list[str]:
    """The keys of trainings under way that no plan names."""
    known = {key for plan in store.plans().values() for key in plan["keys"]}
    return sorted(store.under_way() - known)


def clear(store: Store, key: str) -> bool:
    """Remove what a training has committed, unless a process is at it; whether it was removed."""
    with store.claim(key) as claim:
        if claim is not None:
            claim.clear()
    return claim is not None


def _damage(store: Store, name: str) -> str:
    try:
        store.get(name)
    except DamagedError as error:
        return str(error)
    except MissingError:  # removed meanwhile
        return ""
    return ""
