"""Ways to write files that are wrong: the cases must find each of them out."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_lth import files
from keras_lth.files import local
from keras_lth.files.checkpoints import Checkpoints
from keras_lth.files.local import LocalStore


def _no_sync_of_files() -> None:
    _sync_only(stat.S_ISDIR)


def _no_sync_of_folders() -> None:
    _sync_only(stat.S_ISREG)


def _sync_only(kind: Callable[[int], bool]) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if kind(os.fstat(descriptor).st_mode):
            real(descriptor)

    os.fsync = fsync


def _in_place() -> None:
    def write(self: LocalStore, path: str, chunks: Any) -> None:
        local.make_folder(Path(path).parent)
        local._write(Path(path), os.O_TRUNC, local._blocks(chunks))
        local._sync_folder(Path(path).parent)

    LocalStore.write = write


def _manifest_first() -> None:
    real, waiting = LocalStore.write, []

    def write(self: LocalStore, path: str, chunks: Any) -> None:
        if "checkpoints" not in path:
            real(self, path, chunks)
            return
        waiting.append((path, chunks))
        if path.endswith("manifest.json"):
            for each in reversed(waiting):
                real(self, *each)
            waiting.clear()

    LocalStore.write = write


def _old_ones_removed_first() -> None:
    real = Checkpoints.save

    def save(self: Checkpoints, *arguments: Any) -> None:
        for commit in self._commits():
            self._remove([commit.file(kind) for kind in ("safetensors", "state.json", "manifest.json")])
        real(self, *arguments)

    Checkpoints.save = save


def _parts_of_old_ones_first() -> None:
    real = Checkpoints._remove

    def remove(self: Checkpoints, names: list[str], *, settle: bool = False) -> bool:
        if settle:
            for kind in ("safetensors", "state.json"):
                real(self, [name.replace("manifest.json", kind) for name in names])
        return real(self, names, settle=settle)

    Checkpoints._remove = remove


def _removals_not_settled() -> None:
    LocalStore.settle = lambda self, folder: None


def _lines_stay() -> None:
    files.keep_lines = lambda path, count: None


def _nothing_swept() -> None:
    Checkpoints._leftovers = lambda self: []
    local.abandoned = lambda *names: False


def _errors_ignored() -> None:
    real = LocalStore.write

    def write(self: LocalStore, path: str, chunks: Any) -> None:
        try:
            real(self, path, chunks)
        except OSError:
            return

    LocalStore.write = write


# Each with the suite that finds it.
MUTANTS: dict[str, tuple[str, Callable[[], None]]] = {
    "no sync of files": ("deaths", _no_sync_of_files),
    "no sync of folders": ("deaths", _no_sync_of_folders),
    "in place": ("deaths", _in_place),
    "manifest first": ("deaths", _manifest_first),
    "old ones removed first": ("deaths", _old_ones_removed_first),
    "parts of old ones removed first": ("deaths", _parts_of_old_ones_first),
    "removals not settled": ("deaths", _removals_not_settled),
    "lines stay": ("deaths", _lines_stay),
    "nothing swept": ("deaths", _nothing_swept),
    "errors ignored": ("errors", _errors_ignored),
}


def apply(name: str) -> None:
    """Make this process's package wrong in the way of that name; not at all for no name."""
    if name:
        MUTANTS[name][1]()
