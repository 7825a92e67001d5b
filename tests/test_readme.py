"""The README's Python runs as it stands, on a small problem."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lth.experiments.config import DEFAULTS

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def small(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], steps_per_execution=5, jit_compile=False)
    return model


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    x = random.normal(size=(1500, 8)).astype("float32")
    y = (x @ random.normal(size=(8, 4))).argmax(1).astype("int32")
    from keras_lth.datasets import ordered

    names = {
        "model": small(0),
        "other_model": small(1),
        "x": x,
        "y": y,
        "train": ordered(x, y, batch_size=60, seed=1),
        "test": (x[:200], y[:200]),
    }
    assert len(BLOCKS) == 7
    for block in BLOCKS:
        # The models are compiled already; a short fit stands for one whose arguments are left out.
        code = block.replace("model.compile(...)", "pass").replace("fit(...)", "fit(x, y, verbose=0)")
        code = code.replace("epochs=20", "epochs=4")
        exec(code.replace("callbacks=", "verbose=0, callbacks="), names)
    # A config of one's own.
    assert names["get_config"]().data == "mine.npz" and set(names["get_config"]()) <= set(DEFAULTS)
    imp = names["imp"]
    assert [level.steps for level in imp.history] == [600, *[100] * 15]
    assert (tmp_path / "lenet.ticket").exists() and (tmp_path / "path.png").exists()
    assert (tmp_path / "runs" / "lenet" / "store.json").exists()


def test_the_commands_of_the_readme_have_the_flags_of_the_programs() -> None:
    commands = re.findall(r"^python -m (keras_lth\.bin\.\w+) +(.*?)(?: +#.*)?$", README, re.M)
    assert {program.rpartition(".")[2] for program, _ in commands} == {"run", "report", "store"} and len(commands) == 6
    for program, words in commands:
        source = Path(__file__).parents[1].joinpath(*program.split(".")).with_suffix(".py").read_text()
        flags = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
        for flag, value in re.findall(r"--([\w.]+)(?:=(\S+))?", words):
            name, *keys = flag.split(".")
            assert name in flags, flag
            assert not keys or keys[0] in DEFAULTS, flag
            if flag == "config":
                assert importlib.import_module(f"keras_lth.configs.{value}").get_config()
