"""``python -m tests.crash.calls ROOT``: calls of every name that strike.c knows, as the library saw them.

Prints the kinds it counted, and whether the model of the disk is what the folder shows.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.crash.disk import Disk, read_tree
from tests.crash.strike import Arm, Kind, Mode, Striker

# A name of the C library and what it counts as.
EXPECTED = [
    ("mkdir", "MKDIR"), ("mkdirat", "MKDIR"), ("open", "OPEN_READ"), ("creat", "OPEN_WRITE"), ("creat64", "OPEN_WRITE"),
    ("open64", "OPEN_WRITE"), ("openat", "OPEN_WRITE"), ("openat64", "OPEN_WRITE"), ("write", "WRITE"),
    ("pwrite", "WRITE"), ("pwrite64", "WRITE"), ("writev", "WRITE"), ("ftruncate", "TRUNCATE"),
    ("ftruncate64", "TRUNCATE"), ("fsync", "SYNC"), ("fdatasync", "SYNC"), ("read", "READ"), ("pread", "READ"),
    ("pread64", "READ"), ("close", "CLOSE"), ("rename", "RENAME"), ("renameat", "RENAME"), ("renameat2", "RENAME"),
    ("unlink", "UNLINK"), ("unlinkat", "UNLINK"), ("rmdir", "UNLINK"),
]  # fmt: skip


class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("size", ctypes.c_size_t)]


def main(folder: str) -> None:
    root = Path(folder)
    striker = Striker(root)
    library = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: Any) -> int:
        result = getattr(library, name)(*arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), name)
        return result

    def program(told: Any) -> None:
        top, long = os.fsencode(root), ctypes.c_long
        os.chdir(root)  # paths may be relative
        call("mkdir", top + b"/one", 0o777)
        call("mkdirat", -100, b"two", 0o777)
        one = call("open", top + b"/one", os.O_RDONLY | os.O_DIRECTORY)
        made = [call("creat", b"a", 0o666), call("creat64", top + b"/b", 0o666)]
        made.append(call("open64", b"c", os.O_RDWR | os.O_CREAT, 0o666))
        made.append(call("openat", one, b"d", os.O_RDWR | os.O_CREAT, 0o666))
        made.append(call("openat64", one, b"e", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666))
        file = made[2]
        call("write", file, b"0123456789", 10)
        call("pwrite", file, b"ab", 2, long(12))
        call("pwrite64", file, b"cd", 2, long(1))
        call("writev", file, (Piece * 2)(Piece(b"ef", 2), Piece(b"ghi", 3)), 2)
        call("ftruncate", file, long(14))
        call("ftruncate64", made[0], long(3))
        call("fsync", file)
        call("fdatasync", made[4])
        buffer = ctypes.create_string_buffer(4)
        call("read", file, buffer, 4)
        call("pread", file, buffer, 4, long(0))
        call("pread64", file, buffer, 4, long(0))
        for each in [*made, one]:
            call("close", each)
        call("rename", b"a", top + b"/a2")
        call("renameat", -100, b"b", -100, b"b2")
        call("renameat2", -100, b"a2", -100, b"b2", 0)
        call("unlink", b"b2")
        call("unlinkat", -100, b"one/e", 0)
        call("rmdir", b"two")
        # Other folders are not its business.
        with open("/proc/self/stat", "rb") as other:
            other.read()

    ended = striker.run(program, Arm(kinds=~0))
    assert not ended.text, ended.text
    disk = Disk(str(root))
    disk.play(ended.records)
    same = disk.now() == read_tree(root)
    content = disk.now()["c"]
    assert content is not None

    seen = []
    for n in range(ended.calls):
        for path in sorted(root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        struck = striker.run(program, Arm(n, Mode.FAIL, 28, ~0))
        seen.append([struck.text.split(": ")[-1].split("] ")[-1], struck.call.split()[0], struck.struck])
    kinds = [Kind(record.kind).name for record in ended.records]
    print(json.dumps({"same": same, "content": content.decode("latin-1"), "kinds": kinds, "seen": seen}))


if __name__ == "__main__":
    main(sys.argv[1])
