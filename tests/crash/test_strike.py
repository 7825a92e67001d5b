"""The tools themselves: the library sees every call it claims to, and the model of the disk loses what it should."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.calls import EXPECTED
from tests.crash.disk import Disk, read_tree, write_tree
from tests.crash.strike import Kind, Mode, Record
from tests.crash.suites import ROOT, library


def test_every_name_is_counted_and_struck(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.calls", str(root)],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(library())},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    printed = json.loads(done.stdout)
    # "0123456789", "cd" at 1, "ef" "ghi" at 10, "ab" at 12 before that: cut to 14.
    assert printed["same"] and printed["content"] == "0cd3456789efgh"
    # The error that a call ended with is that which was asked for (ENOSPC), and names the C function.
    struck = [(name, kind) for name, kind, count in printed["seen"] if count == 1]
    closes = 5
    expected = [pair for pair in EXPECTED for _ in range(1 + closes * (pair[0] == "close"))]
    assert struck == expected


def record(
    kind: Kind, path: str, *, fd: int = -1, flags: int = 0, to: str = "", data: bytes = b"", at: int = 0
) -> Record:
    return Record(kind, fd, flags, path, to, data, at)


def test_the_model_loses_what_was_not_synced() -> None:
    disk = Disk("/r")
    create = os.O_CREAT | os.O_WRONLY
    disk.play(
        [
            record(Kind.OPEN_WRITE, "/r/t", fd=3, flags=create),
            record(Kind.WRITE, "/r/t", fd=3, data=b"abc"),
            record(Kind.SYNC, "/r/t", fd=3),
            record(Kind.WRITE, "/r/t", fd=3, data=b"de", at=3),
            record(Kind.CLOSE, "/r/t", fd=3),
            record(Kind.RENAME, "/r/t", to="/r/x"),
        ]
    )
    assert disk.now() == {"x": b"abcde"}
    losses = disk.losses(range(40))
    assert losses.pop("all that was not synced") == {} == losses.pop("names that were not synced")
    assert losses.pop("content that was not synced") == {"x": b"abc"}
    # The name it was made with, the renamed one, or none; with or without the second write.
    found = {tuple(tree.items()) for tree in losses.values()}
    assert found == {(), (("t", b"abc"),), (("t", b"abcde"),), (("x", b"abc"),), (("x", b"abcde"),)}
    disk.play(
        [
            record(Kind.OPEN_READ, "/r", fd=4),
            record(Kind.SYNC, "/r", fd=4),
            record(Kind.UNLINK, "/r/x"),
            record(Kind.MKDIR, "/r/f"),
        ]
    )
    assert disk.losses(range(0))["names that were not synced"] == {"x": b"abcde"}
    assert disk.losses(range(0))["content that was not synced"] == {"f": None}


def test_trees(tmp_path: Path) -> None:
    tree = {"a": None, "a/b": b"x", "c": b""}
    write_tree(tmp_path, tree)
    assert read_tree(tmp_path) == tree


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4])
def test_a_program_that_knows_nothing_of_it(tmp_path: Path, n: int) -> None:
    """Armed by the environment: death before the n-th call of a shell."""
    root, report = tmp_path / "root", tmp_path / "report"
    root.mkdir()
    code = f"import os; d = os.open('{root}/x', os.O_CREAT | os.O_WRONLY); os.write(d, b'ab'); os.fsync(d); os.close(d)"
    strike = {"STRIKE_ROOT": root, "STRIKE_N": n, "STRIKE_MODE": int(Mode.KILL), "STRIKE_REPORT": report}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LD_PRELOAD": str(library()), **{key: str(value) for key, value in strike.items()}},
        check=False,
    )
    calls, struck = struct.unpack("qq", report.read_bytes()[:16])
    if n == 4:
        assert (done.returncode, calls, struck) == (0, 4, 0) and (root / "x").read_bytes() == b"ab"
    else:
        assert (done.returncode, calls, struck) == (-signal.SIGKILL, n + 1, 1)
        assert read_tree(root) == ({} if n == 0 else {"x": b"" if n == 1 else b"ab"})
