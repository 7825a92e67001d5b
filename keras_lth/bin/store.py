"""Looks after a store: lists it, checks it, removes what is no longer needed, copies it.

python -m keras_lth.bin.store --workdir=runs/lenet                lists kind, labels, age and bytes, and the plans
python -m keras_lth.bin.store --workdir=runs/lenet --check        reads every value
python -m keras_lth.bin.store --workdir=runs/lenet --sweep --yes  removes what no plan names
python -m keras_lth.bin.store --workdir=runs/lenet --forget=PLAN --yes   and what PLAN knows, for the next --sweep
python -m keras_lth.bin.store --workdir=runs/lenet --thin --yes   removes what could be made again
python -m keras_lth.bin.store --workdir=runs/lenet --copy_to=gs://bucket/lenet
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from absl import app, flags

from keras_lth.plans.estimate import duration, size_text
from keras_lth.store import Store, check, copy, listed, sweepable, thinnable
from keras_lth.store.upkeep import Entry, abandoned, bytes_of, clear, distinguishing, drop


def main(argv: Sequence[str]) -> None:
    """Do what the flags say; without ``--yes`` nothing is removed."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    given = flags.FLAGS
    try:
        store = Store(given.workdir, create=False)
        if given.check:
            _check(store)
        elif given.sweep or given.thin:
            if given.sweep:
                _clear(store, yes=given.yes)
            _remove(store, sweepable(store) if given.sweep else thinnable(store), yes=given.yes)
        elif given.forget:
            _forget(store, given.forget, yes=given.yes)
        elif given.copy_to:
            copied = copy(store, Store(given.copy_to))
            print(f"copied {len(copied)} values to {given.copy_to}")
        else:
            _list(listed(store))
            _list_plans(store)
    except (ValueError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def _check(store: Store) -> None:
    damaged = check(store)
    for reason in damaged.values():
        print(reason)
    print(
        f"{len(store.names())} values, {len(damaged)} damaged" + ("; the next run recomputes them" if damaged else "")
    )
    if damaged:
        raise SystemExit(1)


def _remove(store: Store, entries: list[Entry], *, yes: bool) -> None:
    _list(entries)
    if not yes:
        print("Nothing was removed. Add --yes to remove these.")
        return
    drop(store, entries)
    print("These were removed.")


def _clear(store: Store, *, yes: bool) -> None:
    for key in abandoned(store):
        removed = yes and clear(store, key)
        print(f"scratch/{key}: a training that no plan names" + (", removed" if removed else ""))


def _list(entries: Sequence[Entry]) -> None:
    for entry in entries:
        size = size_text(entry.bytes)
        print(f"{_age(entry.made):>7}  {size:>8}  {entry.kind:<10} {entry.name}  {entry.labels}".rstrip())
    print(f"{len(entries)} values, {size_text(bytes_of(entries))}")


def _list_plans(store: Store) -> None:
    there = store.names()
    for name, known in store.plans().items():
        kept = len(there.intersection(known["names"]))
        told = distinguishing(store, name)
        print(f"plan {name}: {kept} of {len(known['names'])} values, {len(known['rows'])} rows  {told}".rstrip())


def _forget(store: Store, name: str, *, yes: bool) -> None:
    if name not in (plans := store.plans()):
        raise ValueError(f"there is no plan {name}; the store has {', '.join(plans) or 'none'}.")
    if yes:
        store.drop_plan(name)
    print(
        f"The record of plan {name} was removed; --sweep finds its values."
        if yes
        else "Add --yes to remove the record of this plan."
    )


def _age(made: str) -> str:
    try:
        return duration((datetime.now(timezone.utc) - datetime.fromisoformat(made)).total_seconds())
    except ValueError:
        return "?"


def run() -> None:
    """Define the flags and run. Flags are not defined at import, so that they cannot clash with another program's."""
    flags.DEFINE_string("workdir", None, "The folder of the store, local or gs://.")
    flags.DEFINE_bool("check", False, "Read every byte of every value and list the damaged ones.")
    flags.DEFINE_bool("sweep", False, "List the values that no plan names.")
    flags.DEFINE_string("forget", None, "Remove the record of this plan, for example after its config changed.")
    flags.DEFINE_bool("thin", False, "List the states that could be recomputed and that no missing value needs.")
    flags.DEFINE_bool("yes", False, "Remove what --sweep, --forget or --thin lists.")
    flags.DEFINE_string("copy_to", None, "Another store; copy to it the values that it lacks.")
    flags.mark_flag_as_required("workdir")
    app.run(main)


if __name__ == "__main__":
    run()
