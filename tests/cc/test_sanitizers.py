"""The C++ tests and the fuzzer under the sanitizers.

Each run of the tests: addresses and undefined behaviour with the widest instruction set, races of the thread pool.
`make proof`: every instruction set of this processor, races everywhere, longer fuzzing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from cc.programs import ROOT, Build, fuzzer, run
from keras_lth import _core
from tests import forms
from tests.cc.cached import CachedBuild

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


@pytest.fixture(scope="module", params=["address,undefined", pytest.param("thread", marks=pytest.mark.proof)])
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    sanitizer = str(request.param)
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    _, *others = _core.supported()
    # Only the long form runs the kernels of the other instruction sets.
    plain = [] if forms.proving else [f"{isa}.cc" for isa in others]
    build = CachedBuild(tmp_path_factory.mktemp("sanitized"), flags, plain=plain)
    return Programs(sanitizer, build, build.core())


def test_tests_are_found() -> None:
    assert {"select_test", "spmm_test", "threads_test", "threads_process_test"} <= {path.stem for path in TESTS}


@pytest.mark.parametrize("source", TESTS, ids=lambda path: path.stem)
def test_cc_under_sanitizers(programs: Programs, source: Path) -> None:
    widest, *_ = _core.supported()
    # Half of the formats is half of the time; races depend on neither format nor size.
    short = ARGUMENTS["thread"] if source.stem == "select_test" else ARGUMENTS[programs.sanitizer]
    passes(programs, source, widest, short.get(source.stem, []))


@pytest.mark.proof
@pytest.mark.parametrize("source", TESTS, ids=lambda path: path.stem)
def test_cc_with_every_instruction_set(programs: Programs, source: Path) -> None:
    if programs.sanitizer != "thread":  # races do not depend on it
        for isa in _core.supported():
            passes(programs, source, isa, ARGUMENTS[programs.sanitizer].get(source.stem, []))


def passes(programs: Programs, source: Path, isa: str, arguments: list[str]) -> None:
    program = programs.build.program(source.stem, [*programs.core, *programs.build.objects([source])])
    printed = run(program, *arguments, KERAS_LTH_ISA=isa, ASAN_OPTIONS="quarantine_size_mb=8")
    assert printed.splitlines()[-1] == "0 failures"


@pytest.mark.parametrize("source", [path for path in TESTS if path.stem.startswith("threads_")], ids=lambda p: p.stem)
def test_the_thread_pool_has_no_races(tmp_path: Path, source: Path) -> None:
    build = CachedBuild(tmp_path, ["-fsanitize=thread", "-fno-sanitize-recover=all"])
    objects = build.objects([*sorted((ROOT / "cc" / "threads").glob("*.cc")), source])
    assert run(build.program(source.stem, objects)).splitlines()[-1] == "0 failures"


@pytest.mark.parametrize("runs", [500, pytest.param(10_000, marks=pytest.mark.proof)])
def test_fuzz(programs: Programs, runs: int) -> None:
    """A bounded run from a fixed seed, the same on a busy machine; `make fuzz` continues from there."""
    program = fuzzer(programs.build, programs.core)
    least = 20
    printed = run(program, f"-runs={runs}", "-seed=1", ASAN_OPTIONS="quarantine_size_mb=8")
    found = re.findall(r"(\w+): (\d+) runs, (\d+) refused", printed)
    counts = {name: (int(runs), int(refused)) for name, runs, refused in found}
    assert set(counts) >= {"select", "shards", "groups", "threads", "product", "convolution", "chain", "normalization"}
    for name, (runs, refused) in counts.items():
        assert runs - refused >= least, printed
        assert name in ("threads", "normalization") or refused >= least // 20, printed
