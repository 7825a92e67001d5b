"""Virtual environments with other packages than the tests' own, each made once and kept in build/environments."""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Outside of git, as all that is built.
FOLDER = ROOT / "build" / "environments"


def environment(*requirements: str, over: bool = False) -> str:
    """Return the Python of an environment that has these packages, and what they require; pip runs if it is new.

    ``over``: what the tests' own Python has is found behind them, and is not installed again where it fits.
    """
    words = "\n".join([sys.version, *requirements, sysconfig.get_path("purelib") * over])
    folder = FOLDER / hashlib.sha256(words.encode()).hexdigest()[:12]
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / "lock", "w") as lock:
        # Another process of the tests may want the same one.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return str(folder / "bin" / "python")
        # Renamed at the end, so that one that was interrupted is made again.
        made = folder.with_name(f"{folder.name}.made")
        shutil.rmtree(made, ignore_errors=True)
        python = made / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
        if over:
            (site,) = (made / "lib").glob("python*/site-packages")
            (site / "of_the_tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        # Not compiled: the programs that run there import half of it.
        options = ("--quiet", "--no-compile", "--disable-pip-version-check")
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", *options, *requirements]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(made)
            raise RuntimeError(f"pip cannot install {', '.join(requirements)}:\n{done.stderr[-4000:]}")
        made.rename(folder)
    return str(folder / "bin" / "python")


def requirements(tensorflow: str) -> list[str]:
    """Return what the package and its extras for TFDS and TFMOT require, with this TensorFlow."""
    text = (ROOT / "pyproject.toml").read_text()
    lists = [re.search(rf"^{name} = \[(.*?)\]", text, re.M | re.S) for name in ("dependencies", "tfds", "tfmot")]
    wanted = [word for found in lists if found for word in re.findall(r'"([^"]+)"', found[1])]
    # pip does not see that a newer tensorflow-metadata refuses the protobuf of 2.19 (docs/versions.md).
    pins = ["tensorflow-metadata<1.18"] if tensorflow == "2.19" else []
    # pytest: TFDS' own mocking imports it.
    own = [f"tensorflow=={tensorflow}.*", *pins, "pytest"]
    return [*own, *(word for word in wanted if not word.startswith("tensorflow>="))]


def supported() -> tuple[str, str]:
    """Return the oldest and the newest TensorFlow that pyproject.toml admits, as "2.19"."""
    found = re.search(r'"tensorflow>=(\d+\.\d+),<(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert found is not None
    return found[1], f"{found[2]}.{int(found[3]) - 1}"
