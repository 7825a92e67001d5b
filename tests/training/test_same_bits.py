"""same_seed_same_bits: one program, one end, whatever the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crash.strike import Mode
from tests.crash.suites import ROOT, library


def start(folder: Path, hashes: int, steps_per_call: int, **environment: Any) -> subprocess.Popen[str]:
    """A process of its own, XLA as the loop chooses it."""
    given = {"PYTHONHASHSEED": hashes, "TF_CPP_MIN_LOG_LEVEL": 3, **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.killed_program", str(folder), str(steps_per_call)],
        cwd=ROOT,
        env={**os.environ, **{name: str(value) for name, value in given.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    out, _ = process.communicate(timeout=300)
    return process.returncode, out.splitlines()


def test_same_seed_same_bits(tmp_path: Path) -> None:
    """A process that is left alone; and two with other hash seeds, one killed, one that goes on in longer calls."""
    strike = {"STRIKE_ROOT": tmp_path / "killed", "STRIKE_N": 200, "STRIKE_MODE": int(Mode.KILL)}
    strike |= {"STRIKE_REPORT": tmp_path / "report", "LD_PRELOAD": library()}
    first, killed = start(tmp_path / "first", 1, 3), start(tmp_path / "killed", 3, 3, **strike)
    code, lines = ended(first)
    assert code == 0
    assert ended(killed) == (-signal.SIGKILL, ["begins"])
    assert ended(start(tmp_path / "killed", 4, 500)) == (0, lines)
    end = json.loads(lines[1])
    # It is a run of three trainings, each with masks of its own.
    assert len(set(end["masks"])) == len(end["levels"]) == 3 and len(end["epochs"]) == 6


@pytest.mark.proof
def test_calls_of_other_lengths(tmp_path: Path) -> None:
    ends = [ended(start(tmp_path / str(steps), steps, steps)) for steps in (3, 2, 500)]
    assert ends[0][0] == 0 and ends[1:] == ends[:1] * 2
