"""The C++ tests and the fuzzer under the sanitizers, with every instruction set of this processor."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from cc.programs import ROOT, Build, fuzzer, run
from keras_lth import _core

TESTS = sorted((ROOT / "cc" / "test").glob("*_test.cc"))
# Arguments that spare the sanitizers what they gain nothing from; races depend on neither format nor size.
QUICK = {"spmm_test": ["quick"], "conv_test": ["quick"]}
ARGUMENTS = {
    "address,undefined": QUICK,
    "thread": {**QUICK, "select_test": ["float32"], "groups_test": ["float32"]},
}


@dataclass(frozen=True)
class Programs:
    """What a sanitizer compiled, once for all tests."""

    sanitizer: str
    build: Build
    core: list[Path]

    def isas(self) -> list[str]:
        """The instruction sets worth running: races do not depend on them."""
        supported = list(_core.supported())
        return supported[:1] if self.sanitizer == "thread" else supported


@pytest.fixture(scope="module", params=["address,undefined", "thread"])
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    sanitizer = str(request.param)
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    build = Build(tmp_path_factory.mktemp("sanitized"), flags)
    return Programs(sanitizer, build, build.core())


def test_tests_are_found() -> None:
    assert {"select_test", "spmm_test", "threads_test", "threads_process_test"} <= {path.stem for path in TESTS}


@pytest.mark.parametrize("source", TESTS, ids=lambda path: path.stem)
def test_cc_under_sanitizers(programs: Programs, source: Path) -> None:
    program = programs.build.program(source.stem, [*programs.core, *programs.build.objects([source])])
    for isa in programs.isas():
        arguments = ARGUMENTS[programs.sanitizer].get(source.stem, [])
        printed = run(program, *arguments, KERAS_LTH_ISA=isa, ASAN_OPTIONS="quarantine_size_mb=8")
        assert printed.splitlines()[-1] == "0 failures"


def test_fuzz(programs: Programs) -> None:
    """A bounded run from a fixed seed; `make fuzz` goes on from there."""
    program = fuzzer(programs.build, programs.core)
    seconds, least = (8, 20) if programs.sanitizer == "thread" else (20, 100)
    printed = run(program, f"-max_total_time={seconds}", "-seed=1", ASAN_OPTIONS="quarantine_size_mb=8")
    found = re.findall(r"(\w+): (\d+) runs, (\d+) refused", printed)
    counts = {name: (int(runs), int(refused)) for name, runs, refused in found}
    assert set(counts) >= {"select", "shards", "groups", "threads", "product", "convolution"}
    for name, (runs, refused) in counts.items():
        assert runs - refused >= least, printed
        assert name == "threads" or refused >= least // 20, printed
