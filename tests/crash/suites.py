"""Runs the suites of cases.py in a process of their own, with the library preloaded."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.crash.strike import build

ROOT = Path(__file__).resolve().parents[2]
# A file system in memory, where there is one: the syncs of thousands of runs are then free.
MEMORY = Path("/dev/shm")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="strike_")


@functools.cache
def library() -> Path:
    """The compiled library; it goes when this process ends."""
    return build(Path(_folder().name))


def cases(suite: str, mutant: str = "", program: str = "cases") -> list[dict[str, Any]]:
    """The cases of a suite of a program in this folder, as `cases.Case`."""
    folder = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    root = tempfile.mkdtemp(prefix="crash_", dir=folder)
    command = [sys.executable, "-m", f"tests.crash.{program}", suite, root, mutant]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(library())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_well(cases: list[dict[str, Any]]) -> None:
    """Every case was struck, and nothing was wrong afterwards."""
    wrong = [case for case in cases if case["wrong"] or not case["struck"]]
    assert not wrong, f"{len(wrong)} of {len(cases)}, first {json.dumps(wrong[0], indent=1)}"
