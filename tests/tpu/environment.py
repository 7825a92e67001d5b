"""The Python of tests/tpu: TensorFlow for TPU cannot be installed beside the TensorFlow of the other tests."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from tests.environments import environment
from tests.two_devices import MARK, ROOT

REQUIREMENTS = ROOT / "scripts" / "tpu_requirements.txt"


def python() -> str:
    """The interpreter that has TensorFlow for TPU; KERAS_LTH_TPU_PYTHON names another one.

    Making it takes half a minute and 1.6 GB.
    """
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
    return os.environ.get("KERAS_LTH_TPU_PYTHON") or environment(*lines, over=True)


@cache
def result_of(program: Path, *arguments: str) -> dict[str, Any]:
    """What the program handed to `report`; run once with these arguments for all tests that ask for it."""
    printed = _run(python(), program, *arguments)
    return json.loads(next(line for line in printed.splitlines() if line.startswith(MARK))[len(MARK) :])


def _run(*command: object) -> str:
    """What the command prints; modules are found in the repository."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr[-4000:]}")
    return done.stdout
