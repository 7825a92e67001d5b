"""Folders of a run: a manifest of what is in them, and one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from keras_lth.files.whole import make_folder, naming, write_atomic

MANIFEST = "manifest.json"


def write_manifest(folder: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Write `manifest.json` = {name: {bytes, sha256}} for files of `folder`; call it after they are written."""
    entries = {name: _fingerprint(Path(folder, name)) for name in names}
    write_atomic(Path(folder, MANIFEST), (json.dumps(entries, indent=1) + "\n").encode())


def check_manifest(folder: str | os.PathLike[str]) -> list[str]:
    """The names in `manifest.json`, once each of these files has the length and hash it says.

    Raises:
        FileNotFoundError: no manifest.
        ValueError: naming the first file that is missing or differs.
    """
    path = Path(folder, MANIFEST)
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a keras_lth manifest: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path} is not a keras_lth manifest: no names in it")
    for name, entry in entries.items():
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if not inside or not Path(folder, name).is_file():
            raise ValueError(f"{path} lists {name!r}, which is not a file of that folder")
        found = _fingerprint(Path(folder, name))
        if entry != found:
            raise ValueError(f"{Path(folder, name)} was changed: its manifest says {entry}, it has {found}")
    return list(entries)


def _fingerprint(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


class DirectoryLock:
    """One process at a time in `folder`: a lock on `folder/.lock` that the system releases when its holder dies.

    Also refused to the process that holds it already. Use as a context manager, or `acquire` and `release`.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._descriptor: int | None = None

    def acquire(self, abandoned: Callable[[], bool] | None = None) -> None:
        """Take the lock; the folder is created when missing.

        ``abandoned`` is asked when this very process holds it: True when the holder will never release it, such as a
        callback whose ``fit`` raised and which a traceback still refers to. Its lock is then set aside.

        Raises:
            RuntimeError: another process (or this one) holds it: its pid, host and since when.
            OSError: the folder cannot be made or written.
        """
        path = self.folder / ".lock"
        with naming(path):
            make_folder(self.folder)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holder = {"pid": os.getpid(), "host": socket.gethostname()}
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps({**holder, "since": now}).encode())
        except BlockingIOError:
            pid, holder_text = _holder(descriptor)
            os.close(descriptor)
            if pid == os.getpid() and abandoned is not None and abandoned():
                path.unlink()
                self.acquire()
                return
            raise RuntimeError(f"{self.folder} is in use by {holder_text}") from None
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> DirectoryLock:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def _holder(descriptor: int) -> tuple[int | None, str]:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return holder["pid"], f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # its holder has not written it yet
        return None, "another process"
