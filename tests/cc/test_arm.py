"""The C++ tests on Arm: compiled by a cross compiler, run by an emulator of the processor, on the portable kernels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cc.programs import ROOT, run
from tests.cc.cached import CachedBuild

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
# The emulator does not survive a fork of a process with threads, which is what threads_process_test is about.
TESTS = sorted(path for path in (ROOT / "cc" / "test").glob("*_test.cc") if path.stem != "threads_process_test")
# An emulator is some ten times slower than a processor.
QUICK = {"spmm_test": ["quick"], "conv_test": ["quick"], "select_test": ["float32"], "groups_test": ["float32"]}
MISSING = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(bool(MISSING), reason=f"apt-get install g++-aarch64-linux-gnu qemu-user (no {MISSING})"),
]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> CachedBuild:
    return CachedBuild(tmp_path_factory.mktemp("arm"), ["-static", "-O2"], COMPILER, x86=False)


@pytest.mark.parametrize("source", TESTS, ids=lambda path: path.stem)
def test_cc_on_arm(build: CachedBuild, source: Path) -> None:
    program = build.program(source.stem, [*build.core(), *build.objects([source])])
    printed = run(EMULATOR, program, *QUICK.get(source.stem, []))
    assert printed.splitlines()[-1] == "0 failures"
