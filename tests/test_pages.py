"""The Python of the README and of the pages runs as it stands, on a small problem; the site lists every page."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

import keras_lth as lth
from keras_lth.datasets import ordered
from keras_lth.experiments.config import DEFAULTS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"```python\n(.*?)```", re.S)
# Pages whose code has a test of its own, or shows the inside of the package.
ELSEWHERE = {"criteria", "plans", "checkpoints", "masking", "models", "programs"}
RUN = sorted(path.stem for path in DOCS.glob("*.md") if "```python" in path.read_text() and path.stem not in ELSEWHERE)


def small(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], steps_per_execution=25, jit_compile=False)
    return model


def names() -> dict[str, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(1500, 8)).astype("float32")
    y = (x @ random.normal(size=(8, 4))).argmax(1).astype("int32")
    model = small(0)
    snapshots = [lth.snapshot(small(seed)) for seed in (3, 4, 5)]
    scores = {"body/kernel": random.random((64, 96)), "head/kernel": random.random((96, 32))}
    return {
        "keras": keras, "lth": lth, "model": model, "other_model": small(1), "x": x, "y": y,
        "train": ordered(x, y, batch_size=60, seed=1), "test": (x[:200], y[:200]), "scores": scores,
        "masks": lth.select(lth.criteria.Magnitude()(model), density=0.5), **dict(zip("abc", snapshots, strict=True)),
        "init": snapshots[0], "at_k": snapshots[1],
    }  # fmt: skip


def run(page: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Run all blocks of a page one after the other. A short fit stands for one whose arguments are left out."""
    for block in BLOCK.findall(page.read_text()):
        code = block.replace("model.compile(...)", 'model.compile("adam", LOSS, metrics=["accuracy"])')
        code = code.replace("fit(...)", "fit(x, y, verbose=0)").replace("callbacks=", "verbose=0, callbacks=")
        code = re.sub(r"epochs=(20|100)\b", "epochs=4", code)
        code = code.replace("16 * 24", "16 * 21")  # of 25 steps: T is just after k
        code = code.replace("begin=2_000, end=20_000", "begin=20, end=80")
        exec(code, given)
    return given


def given() -> dict[str, Any]:
    return {**names(), "LOSS": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(BLOCK.findall((ROOT / "README.md").read_text())) == 3
    found = run(ROOT / "README.md", given())
    assert [level.steps for level in found["imp"].history] == [525, *[25] * 15]
    assert (tmp_path / "lenet.ticket").exists() and (tmp_path / "runs" / "lenet" / "store.json").exists()
    assert round(lth.sparsity(found["model"]).density, 2) == 0.1


@pytest.mark.parametrize("page", RUN)
@pytest.mark.filterwarnings("ignore:.*empty")
def test_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(DOCS / f"{page}.md", given())


def test_a_config_of_ones_own() -> None:
    found: dict[str, Any] = {}
    exec(BLOCK.findall((DOCS / "programs.md").read_text())[0], found)
    assert found["get_config"]().data == "mine.npz" and set(found["get_config"]()) <= set(DEFAULTS)


def test_commands_have_the_flags_of_the_programs() -> None:
    commands = re.findall(
        r"^python -m (keras_lth\.bin\.\w+) +(.*?)(?: +#.*)?$", (DOCS / "programs.md").read_text(), re.M
    )
    assert {program.rpartition(".")[2] for program, _ in commands} == {"run", "report", "store"} and len(commands) == 6
    for program, words in commands:
        source = ROOT.joinpath(*program.split(".")).with_suffix(".py").read_text()
        flags = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
        for flag, value in re.findall(r"--([\w.]+)(?:=(\S+))?", words):
            name, *keys = flag.split(".")
            assert name in flags, flag
            assert not keys or keys[0] in DEFAULTS, flag
            if flag == "config":
                assert importlib.import_module(f"keras_lth.configs.{value}").get_config()


def swallowed(text: str) -> list[str]:
    """Lines of lists and tables that the site shows as text, because no empty line is between them and a paragraph."""
    blocks = re.split(r"\n(?:[ \t]*\n)+|^#.*\n", re.sub(r"^```.*?^```$", "\n", text, flags=re.S | re.M), flags=re.M)
    paragraphs = [block.strip("\n").split("\n") for block in blocks if not re.match(r"\s*(- |\d+\. |\|)", block)]
    return [line for lines in paragraphs for line in lines[1:] if re.match(r"- |\d+\. |\|.*\|$", line)]


def test_lists_and_tables_begin_after_an_empty_line() -> None:
    found = {str(path.relative_to(DOCS)): swallowed(path.read_text()) for path in DOCS.rglob("*.md")}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert swallowed("Two:\n- one\n- two\n\n| a |\n|---|\n\nA\n| b |\n|---|\n") == ["- one", "- two", "| b |", "|---|"]


def test_the_site_lists_every_page_and_public_name() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if path.name != "table.md"}
    there |= {f"gallery/{path.stem}.md" for path in (DOCS / "gallery").glob("*.py")}
    assert listed == there, listed ^ there
    reference = (DOCS / "reference" / "package.md").read_text()
    assert {name for name in lth._NAMES if f".{name}\n" not in reference} == set()
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text())["strict"]
