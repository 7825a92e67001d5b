"""What a release uploads works where there is no compiler: a wheel for each Python, and the sdist without kernels."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT: Any = runpy.run_path(str(ROOT / "scripts" / "wheels.py"))
# The interpreters that can be had here.
FOUND = {version: python for version in SCRIPT["VERSIONS"] if (python := SCRIPT["find"](version)) is not None}
pytestmark = pytest.mark.proof

# Prints which kernels run. A ticket of a tiny model, sparse layers, and a chain that needs no TensorFlow.
DEMO = """\
import keras, numpy as np, keras_lth as lth
from keras_lth import ops
from keras_lth.ops.tensorflow import library

x = np.random.default_rng(0).normal(size=(256, 32)).astype("float32")
y = (x[:, :3].sum(1) > 0).astype("int32")
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(2)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
imp = lth.IMPCallback(rounds=2, fraction=0.5, rewind_to="0 steps", verbose=0)
model.fit(x, y, validation_data=(x, y), epochs=3, batch_size=32, callbacks=[imp], verbose=0)
imp.ticket(2).save("tiny.ticket")
lth.Ticket.load("tiny.ticket").apply_to(model)
assert lth.masks_of(model).density == 0.25
expected = model.predict(x, verbose=0)
assert lth.sparsify(model, only_if_faster=False).sparse
np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)
np.testing.assert_allclose(lth.export.compile(model)(x), expected, atol=1e-5)
print("kernels:", ops.isa(), "ops:", library.load() is not None, "from:", lth.__file__)
"""


class Stranger:
    """A new environment in a folder, and a machine on which no compiler can be reached."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.folder, self.bin = folder / "elsewhere", folder / "venv" / "bin"
        self.folder.mkdir()
        subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
        hidden = ("PYTHONPATH", "KERAS_LTH_PURE", "KERAS_LTH_ISA")
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        self.environment = {**kept, "PATH": str(self.bin), "CC": "/bin/false", "CXX": "/bin/false"}

    def try_to(self, program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        command = [str(word) for word in (self.bin / program, *arguments)]
        variables = self.environment | environment
        return subprocess.run(command, cwd=self.folder, env=variables, text=True, capture_output=True, check=False)

    def run(self, program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program that must succeed."""
        done = self.try_to(program, *arguments, **environment)
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def demo(self) -> subprocess.CompletedProcess[str]:
        """Find tickets by the callback and by the programs, and write a report of theirs."""
        tiny = ("--config=demo", "--config.steps=60", "--config.levels=1", "--config.replicates=1", "--quiet")
        self.run("python", "-m", "keras_lth.bin.run", *tiny, "--workdir=runs")
        self.run("lth-report", "--workdir=runs")
        assert (self.folder / "runs" / "report" / "index.html").stat().st_size > 5_000
        return self.run("python", "-W", "always::RuntimeWarning", "-c", DEMO)


def released(out: Path, *versions: str) -> list[Path]:
    """What the script builds: the sdist, and a wheel for each of these versions."""
    command = [sys.executable, "scripts/wheels.py", f"--out={out}", "--versions", *versions]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return [*out.glob("*.tar.gz"), *out.glob("*.whl")]


def known(*folders: str) -> set[str]:
    """The files of folders that git knows and that are here."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).is_file()}


def test_there_is_a_python_to_build_for() -> None:
    assert FOUND


@pytest.mark.parametrize("version", FOUND)
def test_a_wheel_without_a_compiler(version: str, tmp_path: Path) -> None:
    """It holds the package, the settings and both extensions, nothing else; what it installs runs its own kernels."""
    _, wheel = released(tmp_path / "out", version)
    tag = f"cp{version.replace('.', '')}"
    assert f"-{tag}-{tag}-manylinux_2_" in wheel.name
    held = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    told = {name for name in held if name.split("/")[0].endswith(".dist-info")}
    assert {"METADATA", "RECORD", "entry_points.txt", "LICENSE"} <= {name.split("/")[-1] for name in told}
    extensions = {name for name in held if name.endswith(".so")}
    assert sorted(name.split(".")[0] for name in extensions) == ["keras_lth/_core", "keras_lth/_tf_ops"]
    assert held - told - extensions == known("keras_lth") | {f"keras_lth/{name}" for name in known("configs/*.py")}
    stranger = Stranger(FOUND[version], tmp_path)
    stranger.run("python", "-m", "pip", "install", "--quiet", wheel)
    done = stranger.demo()
    assert "ops: True" in done.stdout and str(stranger.bin.parent) in done.stdout, done.stdout
    assert "kernels: numpy" not in done.stdout and "RuntimeWarning" not in done.stderr, done.stderr[-3000:]


def test_the_sdist_without_a_compiler(tmp_path: Path) -> None:
    """pip ends with one sentence that says what is missing; KERAS_LTH_PURE=1 installs what then runs on NumPy."""
    (sdist,) = released(tmp_path / "out")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "setup.py", "pyproject.toml"} <= held
    assert known("cc", "keras_lth", "configs/*.py") <= held
    assert not any(name.startswith(("tests", "docs", "build")) or name.endswith((".so", ".pyc")) for name in held)
    stranger = Stranger(Path(sys.executable), tmp_path)
    # The packages that it needs are those of this environment.
    site = sysconfig.get_path("purelib", vars={"base": str(stranger.bin.parent)})
    Path(site, "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = ("python", "-m", "pip", "install", "--no-deps", "--no-cache-dir", "--force-reinstall", sdist)
    refused = stranger.try_to(*command)
    assert refused.returncode != 0
    said = [line for line in f"{refused.stdout}{refused.stderr}".splitlines() if "KERAS_LTH_PURE=1" in line]
    assert len(said) == 1 and "/bin/false" in said[0] and "apt-get install g++" in said[0], refused.stderr[-3000:]
    stranger.run(*command, KERAS_LTH_PURE="1")
    done = stranger.demo()
    assert "kernels: numpy ops: False" in done.stdout and str(stranger.bin.parent) in done.stdout, done.stdout
    for missing in ("_core is missing", "_tf_ops is missing"):
        assert done.stderr.count(missing) == 1, done.stderr[-3000:]
