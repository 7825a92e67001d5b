"""A disk that loses power: what is left of files and folders that were not synced.

The model of POSIX, as pessimistic as it allows: what was written to a file is safe once that file was synced, a name
(created, renamed, removed) once its folder was synced. Of everything else any part may be there: a file may have its
name and no content, a rename may be there and an earlier one not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from tests.crash.strike import Kind, Record

# A path below a folder and its content, None for a folder.
Tree = dict[str, bytes | None]


@dataclass
class File:
    """Content on the disk, and what was written since: (offset, data), or (length, None) for a cut."""

    safe: bytes = b""
    waiting: list[tuple[int, bytes | None]] = field(default_factory=list)

    def content(self, count: int | None = None) -> bytes:
        data = bytearray(self.safe)
        for offset, piece in self.waiting[:count]:
            if piece is None:
                data[offset:] = bytes(max(0, offset - len(data)))
            else:
                data.extend(bytes(max(0, offset - len(data))))
                data[offset : offset + len(piece)] = piece
        return bytes(data)

    def sync(self) -> None:
        self.safe, self.waiting = self.content(), []


@dataclass
class Folder:
    """Names on the disk, and what was done since, each act one or two names: what they stand for, None if removed."""

    safe: dict[str, File | Folder] = field(default_factory=dict)
    waiting: list[dict[str, File | Folder | None]] = field(default_factory=list)

    def names(self, keep: Callable[[], bool] = lambda: True) -> dict[str, File | Folder]:
        found: dict[str, File | Folder | None] = dict(self.safe)
        for act in self.waiting:
            if keep():
                found |= act
        return {name: node for name, node in found.items() if node is not None}

    def sync(self) -> None:
        self.safe, self.waiting = self.names(), []


class Disk:
    """The folder `root`, empty and safe at first, after the calls that `play` is given."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.top = Folder()
        self._open: dict[int, File | Folder] = {}

    def play(self, records: list[Record]) -> None:
        """What the calls did."""
        for record in records:
            self._one(record)

    def _one(self, record: Record) -> None:
        kind = record.kind
        if kind in (Kind.OPEN_READ, Kind.OPEN_WRITE):
            self._opened(record)
        elif kind == Kind.WRITE:
            self._file(record.fd).waiting.append((record.offset, record.data))
        elif kind == Kind.TRUNCATE:
            self._file(record.fd).waiting.append((record.offset, None))
        elif kind == Kind.SYNC:
            self._open[record.fd].sync()
        elif kind == Kind.CLOSE:
            del self._open[record.fd]
        elif kind == Kind.MKDIR:
            parent, name = self._parent(record.path)
            parent.waiting.append({name: Folder()})
        elif kind == Kind.UNLINK:
            parent, name = self._parent(record.path)
            parent.waiting.append({name: None})
        elif kind == Kind.RENAME:
            (before, old), (parent, name) = self._parent(record.path), self._parent(record.path2)
            assert before is parent, "a rename between folders"
            parent.waiting.append({old: None, name: parent.names()[old]})

    def _opened(self, record: Record) -> None:
        if record.path == self._root:
            self._open[record.fd] = self.top
            return
        parent, name = self._parent(record.path)
        node = parent.names().get(name)
        if node is None:
            assert record.flags & os.O_CREAT
            node = File()
            parent.waiting.append({name: node})
        elif record.flags & os.O_TRUNC:
            assert isinstance(node, File)
            node.waiting.append((0, None))
        self._open[record.fd] = node

    def _file(self, descriptor: int) -> File:
        node = self._open[descriptor]
        assert isinstance(node, File)
        return node

    def _parent(self, path: str) -> tuple[Folder, str]:
        *parts, name = os.path.relpath(path, self._root).split("/")
        node: File | Folder = self.top
        for part in parts:
            assert isinstance(node, Folder)
            node = node.names()[part]
        assert isinstance(node, Folder)
        return node, name

    def now(self) -> Tree:
        """Every path and its content (None for a folder) while the power is on."""
        return dict(_walk(self.top, "", lambda: True, lambda file: file.content()))

    def left(self, names: Callable[[], bool], part: Callable[[int], int]) -> Tree:
        """What is left when the power goes: the acts on names where ``names()``, and of the ``count`` writes to a file
        that wait the first ``part(count)``."""
        return dict(_walk(self.top, "", names, lambda file: file.content(part(len(file.waiting)))))

    def losses(self, seeds: range) -> dict[str, Tree]:
        """Some ways to lose power: without all that was not synced, only content, only names, or a part by chance."""
        ways = {
            "all that was not synced": self.left(lambda: False, lambda count: 0),
            "content that was not synced": self.left(lambda: True, lambda count: 0),
            "names that were not synced": self.left(lambda: False, lambda count: count),
        }
        for seed in seeds:
            chance = Random(seed)
            ways[f"by chance {seed}"] = self.left(partial(chance.choice, (True, False)), partial(chance.randint, 0))
        return ways


def _walk(
    folder: Folder, path: str, names: Callable[[], bool], content: Callable[[File], bytes]
) -> Iterator[tuple[str, bytes | None]]:
    for name, node in sorted(folder.names(names).items()):
        below = f"{path}{name}"
        if isinstance(node, Folder):
            yield below, None
            yield from _walk(node, below + "/", names, content)
        else:
            yield below, content(node)


def read_tree(root: Path) -> Tree:
    """Every path below `root` and its content, None for a folder."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in sorted(root.rglob("*"))
    }


def write_tree(root: Path, tree: Tree) -> None:
    """Put the files there; `root` is empty."""
    for path, content in tree.items():
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


def normal(tree: Tree) -> Tree:
    """A tree without what depends on the process: the text of the lock, the number in the name of a temporary."""
    return {
        re.sub(r"\.\d+\.tmp$", ".tmp", path): b"" if content is not None and path.endswith(".lock") else content
        for path, content in tree.items()
    }
