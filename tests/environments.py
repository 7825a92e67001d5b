"""Virtual environments with other packages than the tests' own, each made once and kept in build/environments."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Outside of git, as all that is built.
FOLDER = ROOT / "build" / "environments"


def environment(*requirements: str) -> str:
    """Return the Python of an environment that has these packages, and what they require; pip runs if it is new."""
    words = "\n".join([sys.version, *requirements])
    folder = FOLDER / hashlib.sha256(words.encode()).hexdigest()[:12]
    if not folder.exists():
        # Whole or absent, also where two runs make it at once.
        made = folder.with_name(f"{folder.name}.{os.getpid()}")
        python = made / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
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
