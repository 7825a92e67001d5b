"""The Python of tests/tpu: TensorFlow for TPU cannot be installed beside the TensorFlow of the other tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

from tests.two_devices import MARK, ROOT

REQUIREMENTS = ROOT / "scripts" / "tpu_requirements.txt"
FOLDER = ROOT / ".venv-tpu"


def python(folder: Path = FOLDER) -> Path:
    """The interpreter of ``folder``, made if it is not there or was made for other requirements or another Python.

    Making it takes half a minute and 1.6 GB: what this Python has and fits is not installed again.
    KERAS_LTH_TPU_PYTHON names another interpreter instead.
    """
    given = os.environ.get("KERAS_LTH_TPU_PYTHON")
    if given:
        return Path(given)
    executable = folder / "bin" / "python"
    # Written last, so that what was interrupted is made again.
    stamp = folder / "made_for.txt"
    wanted = f"{sys.version}\n{sysconfig.get_path('purelib')}\n{REQUIREMENTS.read_text()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return executable
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    # As Python 3.13 and later do themselves.
    (folder / ".gitignore").write_text("*\n")
    # Found behind its own packages, so that its own TensorFlow is the one that is imported.
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "of_the_tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    options = ("--quiet", "--no-cache-dir", "--no-compile", "--disable-pip-version-check")
    _run(sys.executable, "-m", "pip", "--python", executable, "install", *options, "--requirement", REQUIREMENTS)
    stamp.write_text(wanted)
    return executable


@cache
def result_of(program: Path, *arguments: str) -> dict[str, Any]:
    """What the program handed to `report`; run once with these arguments for all tests that ask for it."""
    printed = _run(python(), program, *arguments)
    return json.loads(next(line for line in printed.splitlines() if line.startswith(MARK))[len(MARK) :])


def _run(*command: object) -> str:
    """What the command prints; modules are found in the repository."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [str(word) for word in command]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr[-4000:]}")
    return done.stdout
