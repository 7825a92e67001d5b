"""The other build: Bazel, from a clean copy, without a network. And that both builds mean the same flags."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from cc.programs import ROOMS, ROOT, SETUP

# Where the packages can be installed, failing to do so is a failure.
INSTALLABLE = shutil.which("apt-get") is not None and os.geteuid() == 0
POSSIBLE = INSTALLABLE or shutil.which("bazel") is not None


@pytest.mark.proof
@pytest.mark.skipif(not POSSIBLE, reason="Debian's bazel-bootstrap is neither installed nor installable here")
def test_bazel_builds_and_tests_everything_offline() -> None:
    done = subprocess.run(
        [ROOT / "bazel" / "prove.sh"],
        env={**os.environ, "KERAS_LTH_PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"^network: *(lo *)?$", done.stdout, re.MULTILINE) or "No network namespace" in done.stdout
    passed = set(re.findall(r"^//:(\S+) +PASSED", done.stdout, re.MULTILINE))
    assert passed == {path.stem for path in (ROOT / "cc" / "test").glob("*_test.*")}


def test_both_builds_have_the_same_flags() -> None:
    # The file is written in a subset of Python.
    names: dict[str, Any] = {}
    exec((ROOT / "bazel" / "room.bzl").read_text(), names)
    assert names["WARNINGS"] == SETUP["WARNINGS"]
    assert names["ISA_FLAGS"] == SETUP["ISA_FLAGS"]


def test_all_builds_have_the_same_rooms() -> None:
    """Setup.py, Bazel, sanitizers and fuzzers; each room has a test and a target of the fuzzer."""
    sources = {path for extension in ("CORE", "TF_OPS") for path in SETUP[extension].sources}
    every = {str(path.relative_to(ROOT)) for path in (ROOT / "cc").glob("*/*.cc")}
    assert sources == {path for path in every if path.split("/")[1] not in ("fuzz", "test")}
    assert {path.split("/")[1] for path in sources} == {*ROOMS, "python", "tf"}
    bazel = (ROOT / "BUILD").read_text()
    assert set(re.findall(r'^room\(\s*name = "(\w+)"', bazel, re.MULTILINE)) == set(ROOMS)
    for folder in ("fuzz", "test"):
        text = "".join(path.read_text() for path in (ROOT / "cc" / folder).glob("*.[ch]*"))
        assert set(re.findall(r'#include "cc/(\w+)/', text)) >= set(ROOMS)
