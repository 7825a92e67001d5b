"""Maintenance of a store: list it, check it, copy it, and find what can be removed.

`sweepable` finds values that no plan names, `thinnable` values that plans name and could recompute; `drop` removes.
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
    """List every value, with the labels of its rows; of a damaged one only the name is known."""
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
    """Read every byte of every value; return the reason for each damaged one, by name."""
    return {name: reason for name in sorted(store.names()) if (reason := _damage(store, name))}


def sweepable(store: Store) -> list[Entry]:
    """Return values that no plan names: of changed configs, or of other versions of a step."""
    known = {name for plan in store.plans().values() for name in plan["names"]}
    return [entry for entry in listed(store) if entry.name not in known]


def thinnable(store: Store) -> list[Entry]:
    """Return states that could be recomputed: no plan wants them, no missing step needs them."""
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
    """Copy the values and plan records that ``target`` lacks; return the names. Every byte is checked.

    Raises ``DamagedError`` for a damaged value of ``source``; values before it have been copied.
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
    """Remove records of the same plan with other arguments that contain no step that this one lacks.

    An example is the record of a config with fewer levels.
    """
    try:
        plans = store.plans()
    except ValueError:  # one is damaged: whatever needs it reports that
        return
    if name not in plans:  # a larger run has superseded this one meanwhile
        return
    mine = set(plans[name]["names"])
    for other, known in plans.items():
        if other != name and plan_of(other) == plan_of(name) and mine.issuperset(known["names"]):
            store.drop_plan(other)


def distinguishing(store: Store, name: str) -> str:
    """Return the arguments in which a record differs from others of the same plan, such as "config.levels=15"."""
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
    """Return the plan whose record has this name."""
    return re.sub(r"-[0-9a-f]{8}$", "", record)


def bytes_of(entries: Iterable[Entry]) -> int:
    """Return the total size of the values."""
    return sum(entry.bytes for entry in entries)


def drop(store: Store, entries: Iterable[Entry]) -> None:
    """Remove the values, durably."""
    for entry in entries:
        store.drop(entry.name)
    store.settle()


def abandoned(store: Store) -> list[str]:
    """Return the keys of trainings in progress that no plan names."""
    known = {key for plan in store.plans().values() for key in plan["keys"]}
    return sorted(store.under_way() - known)


def clear(store: Store, key: str) -> bool:
    """Remove the commits of a training unless a process works on it; return whether they were removed."""
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
