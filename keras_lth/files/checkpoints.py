"""Checkpoints: the state of a run, committed so that a crash at any moment leaves the last one undamaged.

A checkpoint is three files that begin with the number of the commit and the step: ``000007_step_20.safetensors`` (the
arrays), ``….state.json`` (the rest) and ``….manifest.json`` (lengths and SHA-256 of the two). The manifest is written
last and removed first: a checkpoint exists if its manifest does. Checkpoints are ordered by commit, so the step may
decrease, as it does at a rewind. docs/checkpoints.md lists what a crash leaves at each moment.
"""

from __future__ import annotations

import errno
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from keras_lth.files.arrays import decode, encode
from keras_lth.files.folders import fingerprint, seal, unseal
from keras_lth.files.plain import plain
from keras_lth.files.stores import AnyPath, Chunk, join, place, reading

VERSION = 1
_FORMAT, _KIND = "keras_lth checkpoint", "checkpoint"
_ARRAYS, _STATE, _MANIFEST = "safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"(\d{6,})_step_(\d+)\.(safetensors|state\.json|manifest\.json)")
_TEMPORARY = re.compile(r"\.\d{6,}_step_\d+\.(safetensors|state\.json|manifest\.json)\.\d+\.tmp")
_MANIFEST_LIMIT = 1 << 16  # bytes; ours have about 500
_TRIES = 10  # to read while another process commits and removes


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, as `Checkpoints.save` was given it.

    Attributes:
        step: as given.
        arrays: name → array, read-only, in the order they were given.
        state: as given, with tuples as lists.
        path: the path of its manifest, for messages.
    """

    step: int
    arrays: Mapping[str, np.ndarray]
    state: Mapping[str, Any]
    path: str


class _Commit(NamedTuple):
    number: int
    step: int

    def file(self, kind: str) -> str:
        return f"{self.number:06d}_step_{self.step}.{kind}"


class _BrokenError(Exception):
    """Why a checkpoint cannot be read."""


class _GoneError(Exception):
    """The checkpoint was removed while it was being read, because its writer has made newer ones."""


class UnreadError(ValueError):
    """The folder has checkpoints that this run has not read."""


class Checkpoints:
    """The checkpoints of one run in `folder`, a local path or one of an object store (``gs://…``).

    One process writes at a time (hold a `DirectoryLock`); any process may read.

    Args:
        folder: created at the first `save`. Files in it that are not checkpoints are left alone.
        keep: number of checkpoints to keep, ≥ 1.
    """

    def __init__(self, folder: AnyPath, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self.folder = os.fspath(folder)
        self.keep = keep
        self._store = place(self.folder)[0]
        # Commits that this object has read or made, and those of them that cannot be read.
        self._known: set[_Commit] = set()
        self._broken: set[_Commit] = set()

    def save(self, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
        """Commit a checkpoint, then remove those beyond `keep`. When this returns, the checkpoint survives a crash.

        Args:
            step: ≥ 0, for people and for `steps`; it need not increase.
            arrays: name → array, of the dtypes that `write_arrays` takes.
            state: numbers, strings, lists and dicts with string keys.

        Raises:
            TypeError: JSON cannot hold `state`; names the place.
            ValueError: an array cannot be stored (names it), or the folder has checkpoints that `latest` has not read
                and that this run would therefore remove unseen.
            OSError: names the file. Earlier checkpoints are unchanged, and `save` may be called again.
        """
        if int(step) != step or step < 0:
            raise ValueError(f"step must be a whole number ≥ 0, not {step!r}")
        content = json.dumps(plain(state, "state"), indent=1).encode() + b"\n"
        commits = self._commits()
        if unknown := [commit for commit in commits if commit not in self._known]:
            raise UnreadError(
                f"{self.folder} holds checkpoints that this run has not read, the newest of step {unknown[-1].step}: "
                f"resume from latest(), or choose another folder"
            )
        self._remove(self._leftovers())
        commit = _Commit(1 + max((other.number for other in commits), default=0), int(step))
        pieces = encode(arrays, kind=_KIND, meta={"step": commit.step}, name=self._path(commit, _ARRAYS))
        parts: dict[str, list[Chunk]] = {commit.file(_ARRAYS): pieces, commit.file(_STATE): [content]}
        try:
            for name, chunks in parts.items():
                self._store.write(join(self.folder, name), chunks)
        except BaseException:
            self._remove(list(parts))
            raise
        entries = {name: fingerprint(chunks) for name, chunks in parts.items()}
        # From here on the checkpoint may exist even if the call fails.
        self._known.add(commit)
        fields = {"format": _FORMAT, "version": VERSION, "commit": commit.number, "step": commit.step, "files": entries}
        self._store.write(self._path(commit, _MANIFEST), [seal(fields)])
        self._prune([*commits, commit], committed=True)

    def latest(self) -> Checkpoint | None:
        """Return the newest undamaged checkpoint, with every byte checked; None if there is none.

        A newer damaged one is skipped with a warning that names the file and the reason. It stays until the next `save`
        has committed.

        Raises:
            ValueError: the newest has another version of the format; says what to do.
            OSError: it cannot be read, for reasons other than damage.
        """
        for _ in range(_TRIES):
            commits = self._commits()
            try:
                found = next((found for found in map(self._load, reversed(commits)) if found is not None), None)
            except _GoneError:
                continue
            self._known.update(commits)
            return found
        raise OSError(
            errno.EAGAIN,
            f"checkpoints were removed while they were being read, {_TRIES} times: is another process using this "
            "folder?",
            self.folder,
        )

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints in the folder, in the order of their commits; read none of them."""
        return [commit.step for commit in self._commits()]

    def sweep(self) -> None:
        """Remove what a crash left: temporaries, files without a manifest, checkpoints beyond `keep`.

        The writer calls it after `latest`, when a run begins. `save` does the same.
        """
        self._remove(self._leftovers())
        commits = self._commits()
        if self._known.issuperset(commits):
            self._prune(commits, committed=False)

    def _path(self, commit: _Commit, kind: str) -> str:
        return join(self.folder, commit.file(kind))

    def _commits(self) -> list[_Commit]:
        found = [_NAME.fullmatch(name) for name in self._store.names(self.folder)]
        return sorted(_Commit(int(m[1]), int(m[2])) for m in found if m is not None and m[3] == _MANIFEST)

    def _leftovers(self) -> list[str]:
        names = self._store.names(self.folder)
        found = {name: _NAME.fullmatch(name) for name in names}
        committed = {(m[1], m[2]) for m in found.values() if m is not None and m[3] == _MANIFEST}
        parts = [name for name, m in found.items() if m is not None and (m[1], m[2]) not in committed]
        return parts + [name for name in names if _TEMPORARY.fullmatch(name)]

    def _prune(self, commits: list[_Commit], *, committed: bool) -> None:
        good = [commit for commit in commits if commit not in self._broken]
        gone = good[: -self.keep] + [commit for commit in commits if committed and commit in self._broken]
        if not gone:
            return
        # Remove the manifest first, durably: no checkpoint loses its files while it has a manifest.
        if self._remove([commit.file(_MANIFEST) for commit in gone], settle=True):
            self._remove([commit.file(kind) for commit in gone for kind in (_ARRAYS, _STATE)])

    def _remove(self, names: list[str], *, settle: bool = False) -> bool:
        try:
            for name in names:
                self._store.remove(join(self.folder, name))
            if settle:
                self._store.settle(self.folder)
        except OSError as error:  # not a reason to stop a run: the next `save` tries again
            warnings.warn(f"an old checkpoint could not be removed, the next save tries again: {error}", stacklevel=4)
            return False
        return True

    def _load(self, commit: _Commit) -> Checkpoint | None:
        try:
            return self._whole(commit)
        except _BrokenError as reason:
            warnings.warn(f"the checkpoint of step {commit.step} is skipped: {reason}", stacklevel=3)
            self._broken.add(commit)
            return None

    def _whole(self, commit: _Commit) -> Checkpoint:
        entries = self._manifest(commit)
        arrays, meta = self._read(commit, _ARRAYS, entries, lambda file: decode(file, kind=_KIND))
        state = self._read(commit, _STATE, entries, json.load)
        if meta != {"step": commit.step} or not isinstance(state, dict):
            raise _BrokenError(f"{self._path(commit, _ARRAYS)} belongs to another checkpoint")
        return Checkpoint(commit.step, arrays, state, self._path(commit, _MANIFEST))

    def _manifest(self, commit: _Commit) -> dict[str, Any]:
        path = self._path(commit, _MANIFEST)
        try:
            with _damage(path), reading(path), self._store.open(path) as file:
                data = file.read(_MANIFEST_LIMIT)
        except FileNotFoundError:
            raise _GoneError from None
        with _damage(path):
            fields = unseal(data)
            if fields.pop("format", None) != _FORMAT:
                raise ValueError("it is not the manifest of a checkpoint")
        if type(version := fields.pop("version", None)) is not int or version != VERSION:
            raise ValueError(
                f"{path} has format version {version!r}, but this keras_lth reads and writes version {VERSION}: "
                f"continue with the keras_lth that wrote it, or choose another folder"
            )
        entries = fields.pop("files", None)
        names = {commit.file(_ARRAYS), commit.file(_STATE)}
        named = isinstance(entries, dict) and set(entries) == names
        if not named or fields != {"commit": commit.number, "step": commit.step}:
            raise _BrokenError(f"{path} belongs to another checkpoint")
        return entries

    def _read(self, commit: _Commit, kind: str, entries: dict[str, Any], parse: Callable[[BinaryIO], Any]) -> Any:
        path = self._path(commit, kind)
        try:
            with _damage(path), reading(path), self._store.open(path) as file:
                # The file stays open, so that the parsed bytes are the hashed ones.
                found, said = fingerprint(file), entries[commit.file(kind)]
                if found != said:
                    size = said.get("bytes") if isinstance(said, dict) else None
                    shorter = f"it has {found['bytes']} bytes, but its manifest says {size}"
                    raise ValueError("its SHA-256 does not match the manifest" if size == found["bytes"] else shorter)
                file.seek(0)
                return parse(file)
        except FileNotFoundError:
            if commit not in self._commits():
                raise _GoneError from None
            raise _BrokenError(f"{path} is missing") from None


@contextmanager
def _damage(path: str) -> Iterator[None]:
    """The damage of a file itself, as opposed to errors in reaching it."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise _BrokenError(f"{path} is damaged: {error}") from None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise _BrokenError(str(error)) from None
