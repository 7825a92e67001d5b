"""The store of one IMP run: the values of its levels under fixed names, and the plan that lists its rows.

``imp.origin`` is the state of step 0, ``imp.rewind`` the state of step k. Each level has ``imp.level_NN.masks``,
``.trained`` (its final weights), ``.layers`` and ``.curve`` (rows), and last ``imp.level_NN``, its results.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from keras_lth import files
from keras_lth.masks import Masks
from keras_lth.store import DamagedError, MissingError, Store, Value
from keras_lth.tickets import Snapshot, snapshot_of, value_of

PLAN = "imp"
ORIGIN, REWIND = f"{PLAN}.origin", f"{PLAN}.rewind"
_PARTS = ("masks", "layers", "curve", "trained")
# A message names at most this many differences.
_LISTED = 4


def level_name(level: int, part: str = "") -> str:
    """Return the name of a level's value."""
    return f"{PLAN}.level_{level:02d}" + (f".{part}" if part else "")


class RunStore:
    """The store of one run, local or in an object store, locked while a ``fit`` writes to it.

    If several hosts train together, only the chief writes; the others read what it has opened.

    Raises ``RuntimeError`` if another process holds the folder, and ``ValueError`` if it contains another run or is of
    an earlier version.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self.writes = True
        self._lock: files.DirectoryLock | None = None

    # Reading, also possible before the run is opened.
    def config(self) -> dict[str, Any] | None:
        """Return the settings of the run in the folder; None if there is none."""
        store = self._store()
        return None if store is None else store.plans().get(PLAN, {}).get("arguments", {}).get("config")

    def masks(self, level: int) -> Masks | None:
        """Return the masks of a level; None if they are missing or damaged."""
        value = self._value(level_name(level, "masks"))
        return None if value is None else Masks(value.arrays)

    def all_masks(self) -> list[Masks]:
        """Return the masks of the levels from 0 up to the first that are missing or damaged."""
        found: list[Masks] = []
        while (masks := self.masks(len(found))) is not None:
            found.append(masks)
        return found

    def trained(self, level: int) -> Snapshot | None:
        """Return the state at the end of a level, without slots; None if it is missing or damaged."""
        return self._state(level_name(level, "trained"))

    def origin(self) -> Snapshot | None:
        """Return the state of step 0; None if it is missing or damaged."""
        return self._state(ORIGIN)

    def rewind(self) -> Snapshot:
        """Return the state of step k, where every level starts. Raises ``ValueError`` if it is missing or damaged."""
        return snapshot_of(self._needed(REWIND))

    def curve(self, level: int) -> list[dict[str, Any]]:
        """Return the rows of the epochs of a level; empty if they are missing or damaged."""
        value = self._value(level_name(level, "curve"))
        return [] if value is None else value.rows

    # One fit at a time.
    def open(
        self,
        config: Mapping[str, Any],
        *,
        resume: bool,
        free: Collection[str] = (),
        abandoned: Callable[[], bool] | None = None,
    ) -> list[dict[str, Any]]:
        """Lock the folder and return the ``about`` of the finished levels of a run with this config, oldest first.

        ``free`` are dotted names of settings that need not match.
        """
        self.close()
        if self.writes:
            lock = files.DirectoryLock(self.folder)
            lock.acquire(abandoned)
            self._lock = lock
        try:
            return self._opened(json.loads(json.dumps(config)), resume, free)
        except BaseException:
            self.close()
            raise

    def _opened(self, config: dict[str, Any], resume: bool, free: Collection[str]) -> list[dict[str, Any]]:
        store = Store(self.folder, create=self.writes)
        known = store.plans().get(PLAN)
        if known is not None and resume:
            _refuse_another(self.folder, known["arguments"]["config"], config, free)
            return self._levels(store)
        if self.writes:
            # Remove the levels first, then the values that they refer to.
            names = sorted((name for name in store.names() if name.startswith(f"{PLAN}.")), key=lambda n: n.count("."))
            for name in names:
                store.drop(name)
            if names:
                store.settle()
            self.expect(0, config, {})
        return []

    def _levels(self, store: Store) -> list[dict[str, Any]]:
        """The finished levels. The last one is trained again if its final state is missing or damaged."""
        found: list[dict[str, Any]] = []
        while store.has(level_name(len(found))):
            found.append(dict(self._needed(level_name(len(found))).meta["level"]))
        if found and self.trained(len(found) - 1) is None:
            found.pop()
        if self.writes:
            if not found:
                store.drop(REWIND)
            for name in store.names():  # what is made again; the next level's masks are what its training began with
                number, _, part = name.removeprefix(f"{PLAN}.level_").partition(".")
                if number.isdigit() and (int(number), part not in ("masks", "layers")) >= (len(found), True):
                    store.drop(name)
        return found

    def close(self) -> None:
        """Release the folder; safe to call twice."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # Writing.
    def expect(self, levels: int, setting: Mapping[str, Any], labels: Mapping[str, Any]) -> None:
        """Record which rows the run will have, for ``levels`` levels."""
        rows: list[Any] = []
        names = [ORIGIN, REWIND]
        for level in range(levels):
            about = {**labels, "level": level}
            names += [level_name(level), *(level_name(level, part) for part in _PARTS)]
            rows.append([{"table": "results", **about}, [level_name(level)]])
            rows.append([{"table": "curves", **about}, [level_name(level, "curve")]])
            rows.append([{"table": "layers", **about}, [level_name(level, "layers")]])
        Store(self.folder).put_plan(
            PLAN,
            {
                "names": names, "wanted": names, "sources": {name: [] for name in names}, "keys": [], "rows": rows,
                "arguments": {"config": dict(setting)},
            },
        )  # fmt: skip

    def put_state(self, name: str, state: Snapshot) -> None:
        """Store a state, unless one of that name exists."""
        store = Store(self.folder)
        store.put(name, value_of(state), {"kind": "state", "step": state.step})

    def put_masks(self, level: int, masks: Masks) -> None:
        """Store the masks of a level, and one row per layer."""
        store, columns = Store(self.folder), ("path", "size", "remaining", "density")
        rows = [{name: getattr(row, name) for name in columns} for row in masks.table()]
        store.put(level_name(level, "masks"), Value(dict(masks)), {"kind": "masks"})
        store.put(level_name(level, "layers"), Value({}, {"rows": rows}), {"kind": "layers"})

    def put_level(
        self, level: int, row: Mapping[str, Any], curve: Sequence[Mapping[str, Any]], about: Mapping[str, Any]
    ) -> None:
        """Store the results of a finished level, after everything else of the level; `open` returns ``about``."""
        store = Store(self.folder)
        store.put(level_name(level, "curve"), Value({}, {"rows": list(curve)}), {"kind": "curve"})
        store.put(level_name(level), Value({}, {"rows": [row], "level": about}), {"kind": "level"})

    def _store(self) -> Store | None:
        try:
            return Store(self.folder, create=False)
        except FileNotFoundError:
            return None

    def _state(self, name: str) -> Snapshot | None:
        value = self._value(name)
        return None if value is None else snapshot_of(value)

    def _value(self, name: str) -> Value | None:
        """A value that the run can do without; a damaged one is removed."""
        store = self._store()
        try:
            return None if store is None else store.get(name)
        except MissingError:
            return None
        except DamagedError as error:
            warnings.warn(f"{self.folder}: {error}. It was removed and will be recomputed if needed", stacklevel=2)
            if self.writes and store is not None:
                store.drop(name)
            return None

    def _needed(self, name: str) -> Value:
        """A value that only the whole run could recompute."""
        try:
            return Store(self.folder, create=False).get(name)
        except (MissingError, DamagedError) as error:
            raise ValueError(
                f"{self.folder}: {error}. Restore it from a copy, or start the run over with resume=False."
            ) from error


def _refuse_another(folder: str, there: Mapping[str, Any], here: Mapping[str, Any], free: Collection[str]) -> None:
    before, now = _flat(there), _flat(here)
    names = sorted({*before, *now}, key=lambda name: (not name.endswith(".class"), name))
    differs = [name for name in names if before.get(name) != now.get(name) and name not in free]
    if differs:
        pairs = [
            f"{name}: {_brief(before.get(name))} there, {_brief(now.get(name))} here" for name in differs[:_LISTED]
        ]
        pairs += [f"and {len(differs) - _LISTED} more"] if len(differs) > _LISTED else []
        raise ValueError(
            f"{folder} contains another run ({'; '.join(pairs)}). Use another directory, or resume=False to "
            "overwrite it."
        )


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, so that a difference names the one setting."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
