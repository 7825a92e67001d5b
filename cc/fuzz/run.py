"""Fuzzes the C++ core for as long as one likes: with Clang's libFuzzer where there is one, else with cc/fuzz/driver.cc.

  python -m cc.fuzz.run --seconds=600

What it learns is kept in build/fuzz/corpus and taken up the next time. An input that fails is left in build/fuzz as
crash-…; given as an argument, it is run again.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import subprocess
from pathlib import Path

from cc.programs import COMPILER, ROOT, Build, fuzzer

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def clang() -> str | None:
    """A Clang that comes with libFuzzer, or None."""
    names = [os.environ.get("CLANG", "clang++"), *(f"clang++-{version}" for version in range(25, 10, -1))]
    for path in filter(None, map(shutil.which, names)):
        asked = subprocess.run([path, "-print-resource-dir"], capture_output=True, text=True, check=False)
        if any(Path(asked.stdout.strip()).glob("lib/**/*clang_rt.fuzzer*")):
            return path
    return None


def main() -> int:
    """Builds, runs, and returns the program's exit status."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=60.0, help="how long to run")
    arguments.add_argument("inputs", nargs="*", help="files to run once instead, such as build/fuzz/crash-…")
    given = arguments.parse_args()
    compiler = clang()
    folder = ROOT / "build" / "fuzz"
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    if compiler is None:
        print(f"no Clang with libFuzzer (Debian: apt-get install clang): the driver, by {COMPILER}")
        build = Build(folder / "driver", SANITIZERS)
        program = fuzzer(build, build.core())
        options = [f"-max_total_time={given.seconds}", f"-seed={secrets.randbits(32)}"]
    else:
        print(f"libFuzzer, by {compiler}")
        build = Build(folder / "libfuzzer", SANITIZERS, compiler)
        core = Build(folder / "libfuzzer", (*SANITIZERS, "-fsanitize=fuzzer-no-link"), compiler).core()
        program = fuzzer(build, core, libfuzzer=True)
        options = [f"-max_total_time={int(given.seconds)}", "-max_len=128", "-len_control=0", str(corpus)]
    inputs = [str(Path(path).resolve()) for path in given.inputs]
    print(" ".join([str(program), *(inputs or options)]), flush=True)
    return subprocess.run([str(program), *(inputs or options)], cwd=folder, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
