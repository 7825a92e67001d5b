"""The settings that come with the package: found by name and by import however it is installed; those of the papers."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from keras_lth import configs
from keras_lth.bin.run import load
from keras_lth.experiments import config as experiment

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_each_is_found_by_its_name_and_can_work(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = load(name)
    assert set(found) == set(experiment.DEFAULTS)
    assert found == load(str(ROOT / "configs" / f"{name}.py"))
    experiment.check(experiment.completed(found.to_dict()))
    assert importlib.import_module(f"keras_lth.configs.{name}").__doc__


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("lenet", "demo"))])
def test_lenet_is_the_thesis(name: str) -> None:
    found = load(name)
    assert (found.batch_size, found.optimizer.name, found.optimizer.learning_rate) == (60, "adam", 1.2e-3)
    assert (found.fraction, found.optimizer.epsilon) == (0.2, 1e-8)
    if name != "demo":
        assert (found.steps, found.levels, found.rewind_to) == (24_000, 15, "0 steps")


# Table 4.1 of the thesis: network, set, steps, batch, optimizer, rate, warm-up; the level or share it was studied at.
TABLE_4_1 = {
    "lenet_300_100_mnist": ("lenet_300_100", "mnist", 24_000, 60, "adam", 1.2e-3, 0, 15),
    "resnet_20_cifar10": ("resnet_20", "cifar10", 63_000, 128, "momentum", 0.1, 0, 8),
    "resnet_20_low_cifar10": ("resnet_20", "cifar10", 63_000, 128, "momentum", 0.01, 0, 11),
    "resnet_20_warmup_cifar10": ("resnet_20", "cifar10", 63_000, 128, "momentum", 0.03, 30_000, 11),
    "vgg_16_cifar10": ("vgg_16", "cifar10", 63_000, 128, "momentum", 0.1, 0, 19),
    "vgg_16_low_cifar10": ("vgg_16", "cifar10", 63_000, 128, "momentum", 0.01, 0, 13),
    "vgg_16_warmup_cifar10": ("vgg_16", "cifar10", 63_000, 128, "momentum", 0.1, 30_000, 19),
    "resnet_50_imagenet": ("resnet_50", "imagenet", 90 * 1_251, 1024, "momentum", 0.4, 5 * 1_251, 1),
    "inception_v3_imagenet": ("inception_v3", "imagenet_299", 171 * 1_251, 1024, "momentum", 0.03, 0, 1),
}


@pytest.mark.parametrize("name", TABLE_4_1)
def test_each_row_of_table_4_1_has_a_config(name: str) -> None:
    network, data, steps, batch, optimizer, rate, warmup, level = TABLE_4_1[name]
    found = experiment.completed(load(name).to_dict())
    assert (found["model"], found["data"], found["steps"], found["batch_size"]) == (network, data, steps, batch)
    assert (found["optimizer"]["name"], found["optimizer"]["learning_rate"]) == (optimizer, rate)
    assert found["schedule"]["warmup"] == warmup and found["levels"] >= level
    if optimizer == "momentum":
        assert (found["optimizer"]["momentum"], found["optimizer"]["weight_decay"]) == (0.9, 1e-4)
    if network in ("resnet_20", "vgg_16"):
        assert found["schedule"]["drops"] == (32_000, 48_000) and found["augment"] == ("flip", "crop")
        # Low and warm-up find tickets at the start; the standard networks after they have become stable.
        stable = {"resnet_20_cifar10": "500 steps", "vgg_16_cifar10": "1000 steps"}
        assert found["rewind_to"] == stable.get(name, "0 steps")


def test_a_file_of_ones_own_builds_on_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from keras_lth.configs.lenet_300_100 import get_config as thesis\n\n\n"
        "def get_config():\n    return {**thesis('digits'), 'levels': 3}\n"
    )
    assert (load(str(path)).levels, load(str(path)).data) == (3, "digits")
    path.write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"mine.py.*get_config"):
        load(str(path))
    path.write_text("def get_config():\n    pass\n")
    with pytest.raises(ValueError, match=r"mine.py.*None.*ConfigDict"):
        load(str(path))
    path.write_text("def get_config():\n    return {'stepz': 3}\n")
    with pytest.raises(ValueError, match=r"stepz.*steps"):
        load(str(path))


def test_a_source_tree_has_them_in_its_folder() -> None:
    assert Path(configs.__file__).parent == ROOT / "keras_lth" / "configs" and configs.FOLDER == ROOT / "configs"
    bazel, manifest = (ROOT / "BUILD").read_text(), (ROOT / "MANIFEST.in").read_text()
    assert '"configs/*.py"' in bazel and "configs/*.py" in manifest


def look(folder: Path, *, cwd: Path) -> None:
    """What is installed in ``folder`` has the settings, for Python and for the type checker."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "MYPYPATH": str(folder)}
    code = (
        "import keras_lth, pathlib; from keras_lth.bin.run import load; from keras_lth.configs.demo import get_config\n"
        "assert load('demo').levels == get_config().levels == 9\n"
        f"assert pathlib.Path(keras_lth.__file__).parents[1] == pathlib.Path({str(folder)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=cwd, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (cwd / "typed.py").write_text("from keras_lth.configs.lenet_300_100 import get_config\n\nget_config(data=5)\n")
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "typed.py"]
    done = subprocess.run(command, env=environment, cwd=cwd, text=True, capture_output=True, check=False)
    assert 'typed.py:3: error: Argument "data" to "get_config" has incompatible type "int"' in done.stdout, done.stdout


def test_what_a_wheel_holds(tmp_path: Path) -> None:
    """The Python part of a build: a wheel is that and the C++ core."""
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "egg_info",
        f"--egg-base={tmp_path}",
        "build_py",
        f"--build-lib={tmp_path}",
    ]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    built = tmp_path / "keras_lth" / "configs"
    assert (
        sorted(path.stem for path in built.glob("*.py")) == ["__init__", *NAMES]
        and (built.parent / "py.typed").exists()
    )
    (tmp_path / "elsewhere").mkdir()
    look(tmp_path, cwd=tmp_path / "elsewhere")


@pytest.mark.proof
def test_a_wheel_and_an_editable_install(tmp_path: Path) -> None:
    """Built whole, and installed into an environment that has the packages of this one."""
    pip = [sys.executable, "-m", "pip", "--quiet"]
    plain = ["--no-deps", "--no-build-isolation", "--no-cache-dir"]
    wheel, editable, elsewhere, source = (tmp_path / name for name in ("wheel", "editable", "elsewhere", "source"))
    elsewhere.mkdir()
    known = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(known, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in (name for name in listed if (ROOT / name).is_file()):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    subprocess.run([*pip, "install", *plain, f"--target={wheel}", str(source)], check=True)
    look(wheel, cwd=elsewhere)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(editable)], check=True)
    python = editable / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(editable), "platbase": str(editable)}))
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # What was compiled for the wheel is used again.
    subprocess.run([*pip, "--python", str(python), "install", *plain, "--editable", str(source)], check=True)
    code = (
        "import pathlib; from keras_lth import _core, configs; from keras_lth.configs.demo import get_config\n"
        f"assert configs.FOLDER == pathlib.Path({str(source / 'configs')!r}) and get_config().levels == 9\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-c", code], cwd=elsewhere, env=clean, check=True)
