"""same_seed_same_bits: one program, one end, whatever the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.crash.strike import Mode
from tests.crash.suites import ROOT, library


def start(folder: Path, hashes: int, steps_per_call: int, **environment: Any) -> subprocess.Popen[str]:
    """A process of its own, XLA as the loop chooses it."""
    given = {"PYTHONHASHSEED": hashes, "PYTHONPATH": ROOT, "TF_CPP_MIN_LOG_LEVEL": 3, **environment}
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
    """Two processes with other hash seeds and calls of another length; and two more, one killed, one that goes on."""
    strike = {"STRIKE_ROOT": tmp_path / "killed", "STRIKE_N": 200, "STRIKE_MODE": int(Mode.KILL)}
    strike |= {"STRIKE_REPORT": tmp_path / "report", "LD_PRELOAD": library()}
    first, killed = start(tmp_path / "first", 1, 3), start(tmp_path / "killed", 3, 3, **strike)
    code, lines = ended(first)
    assert code == 0
    assert ended(killed) == (-signal.SIGKILL, ["begins"])
    other, resumed = start(tmp_path / "other", 2, 500), start(tmp_path / "killed", 4, 2)
    end = json.loads(lines[1])
    for process in (other, resumed):
        assert ended(process) == (0, lines), [key for key in end if key not in ("weights", "optimizer")]
    # It is a run of three trainings, each with masks of its own.
    assert len(set(end["masks"])) == len(end["levels"]) == 3 and len(end["epochs"]) == 6
