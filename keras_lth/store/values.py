"""A store: a folder, local or ``gs://…``, that keeps each value under its name.

``values/NAME.value`` is one file with the value and its record (how it was computed, where, and how long that took). It
is whole or absent, and every byte is checked when it is read. ``plans/`` records the names and the rows of each plan,
``scratch/`` has the trainings in progress, and ``errors/`` has the messages of failed steps.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np

from keras_lth import files
from keras_lth.files import stores
from keras_lth.files.arrays import FormatVersionError, read_meta
from keras_lth.files.folders import seal, unseal
from keras_lth.files.plain import plain
from keras_lth.files.stores import AnyPath
from keras_lth.store.claims import Claim, claimed

VERSION = 1
FORMAT = "keras_lth store"
_ABOUT = "store.json"
_KIND, _SUFFIX = "value", ".value"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
# Files of runs made before stores existed.
_OLD = re.compile(r"config\.json|replicate_\d+|results\.csv|levels\.json|instability(\.json)?|tickets|checkpoints")


class MissingError(LookupError):
    """No value has this name."""


class DamagedError(ValueError):
    """The file of a value differs from what was written."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"the value {name} is damaged: {reason}")
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, str(self).partition(" is damaged: ")[2])


@dataclass(frozen=True)
class Value:
    """Named arrays, and JSON-able metadata; ``meta["rows"]``, a list of ``{name: number}``, has numbers for people."""

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return its numbers."""
        return [dict(row) for row in self.meta.get("rows", ())]

    @property
    def bytes(self) -> int:
        """Return the size of its arrays in a file; booleans are packed, 8 to a byte."""
        return sum((a.size + 7) // 8 if a.dtype == np.bool_ else a.nbytes for a in self.arrays.values())


class Store:
    """The values in ``folder``; ``chief`` says whether this process writes them.

    Args:
        folder: a local path, or one of an object store.
        create: create the store if there is none; otherwise raise `FileNotFoundError`.

    Raises:
        ValueError: the folder contains something else, a run of the layout before stores, or a store of another
            version. Nothing in it is changed.
        OSError: something cannot be read or written; names it.
    """

    def __init__(self, folder: AnyPath, *, create: bool = True) -> None:
        self.folder, self.chief = os.fspath(folder), True
        path = files.join(self.folder, _ABOUT)
        try:
            about = json.loads(files.read_bytes(path))
            known = isinstance(about, dict) and about.get("format") == FORMAT
        except FileNotFoundError:
            self._check_free(create)
            text = json.dumps({"format": FORMAT, "version": VERSION}) + "\n"
            files.write_atomic(path, text.encode())
            return
        except ValueError:
            known = False
        if not known:
            raise ValueError(f"{path} is not part of a keras_lth store: choose another folder.")
        if about.get("version") != VERSION:
            raise ValueError(
                f"{self.folder} is a store of version {about.get('version')!r}, but this keras_lth reads and writes "
                f"version {VERSION}: use the keras_lth that wrote it, or choose another folder. Nothing was changed."
            )

    def agreed(self, flag: bool) -> bool:
        """Return whether any of the processes that use this store as one says yes; here there is only one."""
        return flag

    def token(self) -> str:
        """Return a unique name for a run."""
        return secrets.token_hex(8)

    def names(self) -> set[str]:
        """Return the names of all values."""
        found = files.list_names(self._in("values"))
        return {name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX) and not name.startswith(".")}

    def has(self, name: str) -> bool:
        """Return whether a value has this name."""
        return files.RunPath(self._path(name)).exists()

    def get(self, name: str) -> Value:
        """Read a value.

        Raises:
            MissingError: no value has this name.
            DamagedError: the file differs from what was written.
            ValueError: another version wrote it.
        """
        arrays, meta = self._read(name, lambda path: files.read_arrays(path, kind=_KIND))
        return Value(arrays, meta["value"])

    def record(self, name: str) -> dict[str, Any]:
        """Read what `put` recorded beside a value, without its arrays. Raises as `get` does."""
        return dict(self._read(name, lambda path: read_meta(path, kind=_KIND))["record"])

    def put(self, name: str, value: Value, record: Mapping[str, Any]) -> None:
        """Store a value; an existing one stays.

        Raises:
            TypeError: JSON cannot hold the metadata; names the place.
            OSError: names the file; the value is then absent.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"the name of a value may have letters, digits and any of -_.+, not {name!r}")
        if self.has(name):
            return
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        meta = {
            "name": name,
            "record": {"made": now, "bytes": value.bytes, **plain(record, "record")},
            "value": plain(value.meta, f"the value {name}"),
        }
        files.write_arrays(self._path(name), value.arrays, kind=_KIND, meta=meta)

    def drop(self, name: str) -> None:
        """Remove a value, if it exists; the removal is durable once `settle` returns."""
        files.remove(self._path(name))

    def settle(self) -> None:
        """Make removals durable."""
        place, folder = stores.place(self._in("values"))
        place.settle(folder)

    # Plans.
    def plans(self) -> dict[str, dict[str, Any]]:
        """Return the record of each plan by name: ``{"names": […], "rows": [[labels, [name, …]], …]}``.

        Raises ``ValueError`` that names the file of a damaged record: run that plan again.
        """
        found = {}
        for name in files.list_names(self._in("plans")):
            if name.startswith(".") or not name.endswith(".json"):
                continue
            path = self._in("plans", name)
            try:
                found[name.removesuffix(".json")] = unseal(files.read_bytes(path))
            except ValueError as error:
                raise ValueError(f"{path}: {error}. Remove it and run its plan again.") from None
        return found

    def put_plan(self, name: str, known: Mapping[str, Any]) -> None:
        """Write the record of a plan, unless the store already has it."""
        path, text = self._in("plans", f"{name}.json"), seal(plain(known, f"the plan {name}"))
        try:
            same = files.read_bytes(path) == text
        except FileNotFoundError:
            same = False
        if not same:
            files.write_atomic(path, text)

    def drop_plan(self, name: str) -> None:
        """Remove the record of a plan; its values stay."""
        files.remove(self._in("plans", f"{name}.json"))

    # Steps that failed.
    def errors(self) -> dict[str, dict[str, Any]]:
        """Return the errors that `put_error` recorded, by name."""
        found = {}
        for name in files.list_names(self._in("errors")):
            if name.endswith(".json") and not name.startswith("."):
                try:
                    found[name.removesuffix(".json")] = dict(json.loads(files.read_bytes(self._in("errors", name))))
                except (FileNotFoundError, ValueError):  # removed meanwhile, or damaged; it is only a note for people
                    continue
        return found

    def put_error(self, name: str, said: Mapping[str, Any] | None) -> None:
        """Record the error of a failed step; None removes it after a success."""
        path = self._in("errors", f"{name}.json")
        if said is not None:
            files.write_atomic(path, (json.dumps(dict(said), indent=1) + "\n").encode())
        elif f"{name}.json" in files.list_names(self._in("errors")):
            files.remove(path)

    # Trainings in progress.
    def claim(self, key: str) -> AbstractContextManager[Claim | None]:
        """Claim the work named ``key`` for this process: see `claims.claimed`."""
        return claimed(self._in("scratch", key))

    def under_way(self) -> set[str]:
        """Return the keys of trainings in progress, or that their process left behind."""
        return {key for key in files.list_names(self._in("scratch")) if not key.startswith(".")}

    def _in(self, *names: str) -> str:
        return files.join(self.folder, *names)

    def _path(self, name: str) -> str:
        return self._in("values", name + _SUFFIX)

    def _read(self, name: str, read: Any) -> Any:
        try:
            found = read(self._path(name))
        except FileNotFoundError:
            raise MissingError(f"{self.folder} has no value {name}") from None
        except FormatVersionError:
            raise
        except ValueError as error:
            raise DamagedError(name, str(error)) from None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise DamagedError(name, str(error)) from None
        meta = found[1] if isinstance(found, tuple) else found
        if meta.get("name") != name or not {"record", "value"} <= set(meta):
            raise DamagedError(name, f"{self._path(name)} holds the value {meta.get('name')}")
        return found

    def _check_free(self, create: bool) -> None:
        there = [name for name in files.list_names(self.folder) if not name.startswith(".")]
        if there and any(_OLD.fullmatch(name) for name in there):
            raise ValueError(
                f"{self.folder} holds a run of an earlier keras_lth ({', '.join(there[:4])}), which this version "
                "cannot read: choose another folder. Nothing was changed."
            )
        if there:
            raise ValueError(
                f"{self.folder} contains {there[0]!r} and is not a store: choose a new or an empty folder."
            )
        if not create:
            raise FileNotFoundError(errno.ENOENT, "there is no store", self.folder)
