"""Python's side of strike.c: build it, run a function in a child that is struck, read what the child did."""

from __future__ import annotations

import ctypes
import enum
import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

SOURCE = Path(__file__).with_name("strike.c")
FLAGS = ["-shared", "-fPIC", "-O1", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]


class Kind(enum.IntFlag):
    """Kinds of calls, as in strike.c."""

    OPEN_READ = 1
    OPEN_WRITE = 2
    READ = 4
    WRITE = 8
    SYNC = 16
    RENAME = 32
    UNLINK = 64
    MKDIR = 128
    TRUNCATE = 256
    CLOSE = 512


# Every call but reads: what leaves another folder behind when the process dies before it, and some that do not.
COUNTED = ~Kind.READ
# What fails on a full disk, and in a folder that became read-only.
GROWING = Kind.OPEN_WRITE | Kind.WRITE | Kind.SYNC | Kind.RENAME | Kind.MKDIR | Kind.CLOSE
CHANGING = Kind.OPEN_WRITE | Kind.WRITE | Kind.RENAME | Kind.UNLINK | Kind.MKDIR | Kind.TRUNCATE
READING = Kind.OPEN_READ | Kind.READ
LIMIT = 900  # s; a child that takes longer hangs, and dies of it


class Mode(enum.IntEnum):
    """What happens at the n-th call: nothing, death before it, death in the middle of a write, an error, errors from
    there on."""

    COUNT = 0
    KILL = 1
    TEAR = 2
    FAIL = 3
    FAIL_ON = 4


Program = Callable[[Callable[[str, Any], None]], None]


class Arm(NamedTuple):
    """Where and how to strike; the n-th call is that among the kinds."""

    n: int = -1
    mode: Mode = Mode.COUNT
    error: int = 0
    kinds: int = COUNTED


class Record(NamedTuple):
    """One call that took effect."""

    kind: int
    fd: int
    flags: int
    path: str
    path2: str
    data: bytes
    offset: int


@dataclass
class Ended:
    """How a child ended. ``signal``: what killed it; else ``code``: what it exited with, and ``text``: nothing, or the
    exception it ended with, which may be ``other`` than an OSError. ``told``: what it said while it ran."""

    signal: int
    code: int
    text: str
    other: bool
    warnings: list[str]
    told: list[tuple[str, Any]]
    calls: int
    struck: int
    call: str
    records: list[Record]


def build(folder: Path) -> Path:
    """Compile the library."""
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    target = folder / "strike.so"
    subprocess.run([compiler, *FLAGS, SOURCE, "-o", target, "-ldl"], check=True)
    return target


class Striker:
    """For a process that was started with the library preloaded."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root).encode()
        self._library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._library.strike_shared.restype = ctypes.c_void_p
        self._library.strike_log_offset.restype = ctypes.c_int64
        self._library.strike_arm.argtypes = [ctypes.c_char_p, ctypes.c_int64, ctypes.c_int, ctypes.c_int, ctypes.c_int]
        self._shared = self._library.strike_shared()

    @property
    def calls(self) -> int:
        """Calls counted so far, also while a child runs."""
        return int(struct.unpack("q", ctypes.string_at(self._shared, 8))[0])

    def run(
        self, function: Program, arm: Arm | None = None, meanwhile: Callable[[int], None] = lambda child: None
    ) -> Ended:
        """Run ``function`` in a child under ``arm``; its calls are recorded without one too.

        ``meanwhile`` is called here with the child's process id.
        """
        self._library.strike_reset()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            self._child(function, arm or Arm(), writer)
        os.close(writer)
        meanwhile(child)
        with open(reader) as file:
            # A child may be killed in the middle of a line.
            said = [json.loads(line) for line in file if line.endswith("\n")]
        _, status = os.waitpid(child, 0)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
        told = [(what, which) for what, which in said if what not in ("warning", "error", "other")]
        warned = [which for what, which in said if what == "warning"]
        text = "".join(which for what, which in said if what in ("error", "other"))
        other = any(what == "other" for what, _ in said)
        calls, struck, kind = struct.unpack("qqi", ctypes.string_at(self._shared, 20))
        where = ctypes.string_at(self._shared + 20).decode()
        call = f"{Kind(kind).name} {os.path.relpath(where, self._root.decode())}" if struck else ""
        return Ended(number, code, text, other, warned, told, calls, struck, call, self._records())

    def _child(self, function: Program, arm: Arm, writer: int) -> None:
        def tell(what: str, which: Any) -> None:
            os.write(writer, (json.dumps([what, which]) + "\n").encode())

        code = 0
        try:
            signal.alarm(LIMIT)
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of other packages
            warnings.showwarning = lambda message, *rest: tell("warning", str(message))
            self._library.strike_arm(self._root, arm.n, arm.mode, arm.error, arm.kinds)
            try:
                function(tell)
            except OSError as error:
                code = 1
                tell("error", f"{errno.errorcode.get(error.errno or 0)} {error.filename}: {error}")
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            code = 1
            tell("other", traceback.format_exc())
        finally:
            os._exit(code)

    def _records(self) -> list[Record]:
        start = self._library.strike_log_offset()
        used = struct.unpack("q", ctypes.string_at(self._shared + start - 8, 8))[0]
        data = ctypes.string_at(self._shared + start, used)
        records, at = [], 0
        while at < used:
            kind, fd, flags, a, b, size, offset = struct.unpack_from("iiiiiiq", data, at)
            at += struct.calcsize("iiiiiiq")
            path, path2 = data[at : at + a].decode(), data[at + a : at + a + b].decode()
            records.append(Record(kind, fd, flags, path, path2, data[at + a + b : at + a + b + size], offset))
            at += a + b + size
        return records
