"""The C++ unit tests under the sanitizers, with every instruction set of this processor."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keras_lth import _core

ROOT = Path(__file__).resolve().parents[2]
SETUP = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
COMPILER = os.environ.get("CXX") or shutil.which("g++") or "c++"
SOURCES = [
    *ROOT.glob("cc/isa/*.cc"),
    *ROOT.glob("cc/select/*.cc"),
    *ROOT.glob("cc/threads/*.cc"),
    ROOT / "cc/test/select_test.cc",
]


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_cc_under_sanitizers(sanitizer: str, tmp_path: Path) -> None:
    flags = ["-std=c++17", "-O1", "-pthread", "-I.", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]

    def compile_file(source: Path) -> Path:
        target = tmp_path / f"{source.stem}.o"
        own = SETUP["ISA_FLAGS"].get(source.name, []) if SETUP["X86_64"] else []
        run(COMPILER, *flags, *SETUP["WARNINGS"], "-Werror", *own, "-c", source, "-o", target)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_file, SOURCES))
    program = tmp_path / "select_test"
    run(COMPILER, f"-fsanitize={sanitizer}", "-pthread", *objects, "-o", program)
    # Races depend on neither the instruction set nor the format.
    runs = [("portable", ["float32"])] if sanitizer == "thread" else [(isa, []) for isa in _core.supported()]
    for isa, formats in runs:
        printed = run(program, *formats, KERAS_LTH_ISA=isa, ASAN_OPTIONS="quarantine_size_mb=8")
        assert printed.splitlines() == [f"instruction set {isa}", "0 failures"]


def test_binding_compiles_without_warnings(tmp_path: Path) -> None:
    includes = [word for folder in SETUP["SYSTEM_INCLUDES"] for word in ("-isystem", folder)]
    source = ROOT / "cc/python/core.cc"
    run(COMPILER, "-std=c++17", "-fsyntax-only", "-I.", *includes, *SETUP["WARNINGS"], "-Werror", source)


@pytest.mark.skipif(not SETUP["X86_64"], reason="other processors have the portable kernels only")
def test_isa_objects_export_nothing_but_their_table(tmp_path: Path) -> None:
    """An inline function compiled for AVX must not become the copy that generic code calls."""
    for name, flags in SETUP["ISA_FLAGS"].items():
        target = tmp_path / f"{name}.o"
        for level in ("-O0", "-O3"):
            run(COMPILER, "-std=c++17", level, "-I.", *flags, "-c", ROOT / "cc/select" / name, "-o", target)
            symbols = run("nm", "--defined-only", "--extern-only", "--demangle", target).splitlines()
            namespace = name.removesuffix(".cc")
            assert [line.split(" ", 2)[2] for line in symbols] == [f"keras_lth::select::{namespace}::Table()"]
