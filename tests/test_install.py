"""An installation that cannot be compiled says what is missing in one sentence, and how to do without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Python's C headers are not where they should be.
NO_HEADERS = """\
import runpy, sys, sysconfig
get_path = sysconfig.get_path
sysconfig.get_path = lambda name, *rest, **more: "/no/headers" if name == "include" else get_path(name, *rest, **more)
runpy.run_path("setup.py", run_name="__main__")
"""


def build(folder: Path, *program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Compile the extensions into a folder."""
    variables = {name: value for name, value in os.environ.items() if name != "KERAS_LTH_PURE"} | environment
    command = [sys.executable, *(program or ("setup.py",)), "-q", "build_ext", f"--build-temp={folder}"]
    command.append(f"--build-lib={folder}")
    return subprocess.run(command, cwd=ROOT, env=variables, text=True, capture_output=True, check=False)


@pytest.mark.parametrize("compiler", ["/bin/false", "/no/such/g++"])
def test_a_compiler_that_is_not_there_or_fails(compiler: str, tmp_path: Path) -> None:
    done = build(tmp_path, CC=compiler, CXX=compiler)
    last = done.stderr.splitlines()[-1]
    assert done.returncode != 0 and last.startswith("error: ") and len(last) < 300
    assert compiler in last and "apt-get install g++" in last and "KERAS_LTH_PURE=1" in last


def test_missing_headers(tmp_path: Path) -> None:
    done = build(tmp_path, "-c", NO_HEADERS)
    last = done.stderr.splitlines()[-1]
    assert done.returncode != 0 and last.startswith("error: ") and len(last) < 300
    assert "/no/headers" in last and "apt-get install python3-dev" in last and "KERAS_LTH_PURE=1" in last


def test_pure_compiles_nothing(tmp_path: Path) -> None:
    done = build(tmp_path, CC="/bin/false", CXX="/bin/false", KERAS_LTH_PURE="1")
    assert done.returncode == 0 and not list(tmp_path.rglob("*")), done.stderr
