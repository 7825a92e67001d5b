"""A manifest of the files in a folder: lengths and hashes, written last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from keras_lth.files.stores import AnyPath, Chunk, join, place, reading
from keras_lth.files.whole import read_bytes, write_atomic

MANIFEST = "manifest.json"


def write_manifest(folder: AnyPath, names: Iterable[str]) -> None:
    """Write `manifest.json` = {name: {bytes, sha256}} for files of `folder`; call it after they are written."""
    entries = {}
    for name in names:
        store, path = place(join(folder, name))
        with reading(path), store.open(path) as file:
            entries[name] = fingerprint(file)
    write_atomic(join(folder, MANIFEST), (json.dumps(entries, indent=1) + "\n").encode())


def check_manifest(folder: AnyPath) -> list[str]:
    """Check the length and hash of each file in `manifest.json`, and return the names.

    Raises:
        FileNotFoundError: no manifest.
        ValueError: names the first file that is missing or differs.
    """
    path = join(folder, MANIFEST)
    try:
        entries = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a keras_lth manifest: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path} is not a keras_lth manifest: it lists no names")
    for name, entry in entries.items():
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise ValueError(f"{path} lists {name!r}, which is not a file of that folder")
        store, file_path = place(join(folder, name))
        try:
            with reading(file_path), store.open(file_path) as file:
                found = fingerprint(file)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            raise ValueError(f"{path} lists {name!r}, which is not a file of that folder") from None
        if entry != found:
            raise ValueError(f"{file_path} was changed: its manifest says {entry}, it has {found}")
    return list(entries)


def fingerprint(content: BinaryIO | Sequence[Chunk]) -> dict[str, Any]:
    """Return length and SHA-256 of a file, or of its pieces."""
    digest, size = hashlib.sha256(), 0
    blocks = content if isinstance(content, Sequence) else iter(lambda: content.read(1 << 20), b"")
    for block in blocks:
        digest.update(block)
        size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def seal(fields: dict[str, Any]) -> bytes:
    """Return a JSON object, readable by people, that contains its own hash under ``digest``."""
    return _text({**fields, "digest": hashlib.sha256(_text(fields)).hexdigest()})


def unseal(data: bytes) -> dict[str, Any]:
    """Return the object that `seal` was given; raise ValueError with the reason if any byte differs."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    digest = fields.pop("digest", None) if isinstance(fields, dict) else None
    if digest is None:
        raise ValueError("it has no digest")
    if digest != hashlib.sha256(_text(fields)).hexdigest() or data != _text({**fields, "digest": digest}):
        raise ValueError("it was edited or damaged")
    return fields


def _text(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, indent=1) + "\n").encode()
