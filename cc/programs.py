"""Builds the C++ programs of cc/test and cc/fuzz with any compiler and flags: for sanitizers and fuzzing."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETUP = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
COMPILER = os.environ.get("CXX") or shutil.which("g++") or "c++"
# The rooms that know neither Python nor TensorFlow.
ROOMS = ("chain", "isa", "norm", "select", "sparse", "threads")
# No warnings: some come with a sanitizer only, and both builds of the package look for them.
FLAGS = ("-std=c++17", "-O1", "-g1", "-pthread", "-I.")


def run(*command: object, **environment: str) -> str:
    """The standard output of a command that is run in the root folder.

    Raises:
      RuntimeError: it fails; the message has all that it printed.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = " ".join(str(word) for word in command)
        raise RuntimeError(f"{words}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def isa_flags(source: Path) -> list[str]:
    """The flags of x86-64's instruction set that a source is for; none for most."""
    flags: list[str] = SETUP["ISA_FLAGS"].get(source.name, [])
    return flags


class Build:
    """Object files of the core in a folder, compiled once, and programs linked with them.

    Attributes:
      folder: where the object files and programs are put.
      compiler: the C++ compiler.
      flags: what it is given besides FLAGS, for compiling and for linking.
      plain: names of source files that are compiled without `flags`.
      x86: whether it compiles for x86-64, whose instruction sets have files of their own.
    """

    def __init__(
        self,
        folder: Path,
        flags: Sequence[str] = (),
        compiler: str = COMPILER,
        *,
        x86: bool = SETUP["X86_64"],
        plain: Iterable[str] = (),
    ) -> None:
        self.folder = folder
        self.flags = tuple(flags)
        self.compiler = compiler
        self.x86 = x86
        self.plain = frozenset(plain)
        self.folder.mkdir(parents=True, exist_ok=True)

    def objects(self, sources: Iterable[Path]) -> list[Path]:
        """Compiles, two at a time; rooms have files of equal names, so an object's name has its room in it."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(self._object, sources))

    def core(self) -> list[Path]:
        """The object files of ROOMS."""
        return self.objects(path for room in ROOMS for path in sorted((ROOT / "cc" / room).glob("*.cc")))

    def program(self, name: str, objects: Iterable[Path], *flags: str) -> Path:
        """Links a program."""
        target = self.folder / name
        run(self.compiler, "-pthread", *self.flags, *flags, *objects, "-o", target)
        return target

    def _object(self, source: Path) -> Path:
        target = self.folder / f"{source.parent.name}_{source.stem}.o"
        run(self.compiler, *self.words(source), "-c", source, "-o", target)
        return target

    def words(self, source: Path) -> list[str]:
        """All flags that a source is compiled with."""
        flags = () if source.name in self.plain else self.flags
        return [*FLAGS, *flags, *(isa_flags(source) if self.x86 else [])]


def fuzzer(build: Build, core: Iterable[Path], *, libfuzzer: bool = False) -> Path:
    """The program that fuzzes the core: with a driver of its own, or with Clang's libFuzzer."""
    sources = sorted((ROOT / "cc" / "fuzz").glob("*.cc"))
    if libfuzzer:
        sources = [path for path in sources if path.stem != "driver"]
    flags = ["-fsanitize=fuzzer"] if libfuzzer else []
    return build.program("fuzz", [*core, *build.objects(sources)], *flags)
