"""What is compiled: without warnings, and without code of one instruction set that another could run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cc.programs import COMPILER, ROOT, SETUP, isa_flags, run

FACES = sorted([*(ROOT / "cc" / "python").glob("*.cc"), *(ROOT / "cc" / "tf").glob("*.cc")])
ISA_SOURCES = sorted(path for name in SETUP["ISA_FLAGS"] for path in (ROOT / "cc").glob(f"*/{name}"))


# The build that precedes every run of the tests has the same warnings as errors (Makefile: KERAS_LTH_WERROR).
@pytest.mark.proof
@pytest.mark.parametrize("source", FACES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_faces_compile_without_warnings(source: Path) -> None:
    includes = [word for folder in SETUP["SYSTEM_INCLUDES"] for word in ("-isystem", folder)]
    run(COMPILER, "-std=c++17", "-fsyntax-only", "-I.", *includes, *SETUP["WARNINGS"], "-Werror", source)


@pytest.mark.skipif(not SETUP["X86_64"], reason="other processors have the portable kernels only")
@pytest.mark.parametrize("source", ISA_SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
# Without optimisation every inline function that is used becomes a symbol of its own: the harder case.
@pytest.mark.parametrize("level", ["-O0", pytest.param("-O3", marks=pytest.mark.proof)])
def test_isa_objects_export_nothing_but_their_table(source: Path, level: str, tmp_path: Path) -> None:
    """An inline function compiled for AVX must not become the copy that generic code calls."""
    target = tmp_path / "object.o"
    run(COMPILER, "-std=c++17", level, "-I.", *isa_flags(source), "-c", source, "-o", target)
    symbols = run("nm", "--defined-only", "--extern-only", "--demangle", target).splitlines()
    names = [line.split(" ", 2)[2] for line in symbols]
    assert names == [f"keras_lth::{source.parent.name}::{source.stem}::Table()"]


def test_every_room_with_kernels_has_every_instruction_set() -> None:
    rooms = {path.parent.name for path in ISA_SOURCES}
    assert rooms >= {"select", "sparse"}
    assert {(path.parent.name, path.name) for path in ISA_SOURCES} == {
        (room, name) for room in rooms for name in SETUP["ISA_FLAGS"]
    }
