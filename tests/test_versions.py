"""The table of versions is true: what pip resolves for its ends is what it says, and a user's program runs there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environments import ROOT, environment, requirements, supported

PAGE = ROOT / "docs" / "versions.md"


def table() -> dict[str, dict[str, str]]:
    """The rows by the version of TensorFlow."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


def test_the_table_has_every_version_that_the_package_admits() -> None:
    oldest, newest = (tuple(map(int, end.split("."))) for end in supported())
    assert oldest[0] == newest[0]
    assert list(table()) == [f"{oldest[0]}.{minor}" for minor in range(oldest[1], newest[1] + 1)]
    assert f"TensorFlow {supported()[0]} to {supported()[1]}" in PAGE.read_text()
    keras = re.search(r'"keras>=([\d.]+)', (ROOT / "pyproject.toml").read_text())
    assert keras is not None and f"Keras {keras[1]} or newer" in PAGE.read_text()


@pytest.mark.proof
@pytest.mark.parametrize("end", supported())
def test_an_end_works(end: str) -> None:
    """pip resolves the row; TFDS, pruning in `fit`, sparse layers and the op library work there."""
    done = subprocess.run(
        [environment(*requirements(end)), str(Path(__file__).with_name("versions_program.py"))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.split("RESULT", 1)[1])
    row = table()[end]
    for name, version in found["versions"].items():
        column = "absl-py with it" if name == "absl-py" else "TensorFlow" if name == "tensorflow" else name
        assert name == "keras" or version.split(".")[:2] == row[column].split("."), (name, version)
    assert found["kept"] == 784 and found["library"] and found["difference"] < 1e-4
    assert found["trained"] < 1e-4


@pytest.mark.proof
@pytest.mark.parametrize("end", supported())
def test_pythons_are_those_that_tensorflow_has_wheels_for(end: str, tmp_path: Path) -> None:
    first, last = re.findall(r"3\.(\d+)", table()[end]["Python"])
    options = ("--quiet", "--dry-run", "--no-deps", "--only-binary=:all:", f"--target={tmp_path}")
    there = []
    for minor in range(10, int(last) + 2):
        command = [sys.executable, "-m", "pip", "install", *options, f"--python-version=3.{minor}"]
        done = subprocess.run([*command, f"tensorflow=={end}.*"], capture_output=True, text=True, check=False)
        there += [minor] if done.returncode == 0 else []
    assert there == list(range(int(first), int(last) + 1))
