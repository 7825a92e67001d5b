"""A compiled network as a value: batches, threads, its file, its table."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from tests.export.networks import prune, shake, vgg


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return prune(shake(vgg((8, "M", 16, "M"), size=16)), 0.1)


@pytest.fixture(scope="module")
def compiled(model: keras.Model) -> lth.export.Compiled:
    return lth.export.compile(model, batch_size=32)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((100, 16, 16, 3)).astype(np.float32)


@pytest.mark.parametrize("batch", [0, 1, 2, 31, 32, 33, 100])
def test_any_batch(model: keras.Model, compiled: lth.export.Compiled, x: np.ndarray, batch: int) -> None:
    got = compiled(x[:batch])
    assert got.shape == (batch, 10)
    if batch:
        np.testing.assert_allclose(got, model.predict(x[:batch], verbose=0), rtol=1e-4, atol=1e-6)


def test_any_numbers(model: keras.Model, compiled: lth.export.Compiled) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    wanted = compiled(pixels.astype(np.float32))
    np.testing.assert_array_equal(compiled(pixels), wanted)
    np.testing.assert_array_equal(compiled(pixels.tolist()), wanted)
    np.testing.assert_array_equal(compiled(pixels.astype(np.float64)[:, ::-1][:, ::-1]), wanted)


def test_results_are_the_callers_and_the_input_is_left_alone(compiled: lth.export.Compiled, x: np.ndarray) -> None:
    given = x[:5].copy()
    first = compiled(given)
    kept = first.copy()
    compiled(x[50:55])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(given, x[:5])


def test_a_wrong_shape_is_named(compiled: lth.export.Compiled) -> None:
    for shape in [(16, 16, 3), (2, 16, 16, 1), (2, 768)]:
        with pytest.raises(ValueError, match=r"needs \[batch, 16, 16, 3\]"):
            compiled(np.zeros(shape, np.float32))


def test_a_batch_size_below_one_is_refused(model: keras.Model) -> None:
    sizes: list[Any] = [0, -1, 2.5]
    for size in sizes:
        with pytest.raises(ValueError, match="batch_size"):
            lth.export.compile(model, batch_size=size)


def test_threads_call_it_at_the_same_time(compiled: lth.export.Compiled, x: np.ndarray) -> None:
    parts = [x[i : i + 10] for i in range(0, 90, 10)] * 4
    wanted = [compiled(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(compiled, parts), wanted, strict=True):
            np.testing.assert_array_equal(got, want)


def test_few_batch_sizes_are_kept(compiled: lth.export.Compiled, x: np.ndarray) -> None:
    for batch in range(1, 12):
        compiled(x[:batch])
    assert len(compiled._plans) <= 4


def test_saved_and_loaded_without_tensorflow(compiled: lth.export.Compiled, x: np.ndarray, tmp_path: Path) -> None:
    path, data, result = tmp_path / "vgg.chain", tmp_path / "x.npy", tmp_path / "y.npy"
    compiled.save(path)
    np.save(data, x)
    code = (
        "import sys, numpy as np, keras_lth as lth\n"
        f"compiled = lth.export.load({str(path)!r})\n"
        f"np.save({str(result)!r}, compiled(np.load({str(data)!r})))\n"
        "print(compiled)\n"
        "bad = {'tensorflow', 'keras'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    np.testing.assert_array_equal(np.load(result), compiled(x))
    assert done.stdout.strip() == str(compiled)


def test_equal_networks_are_equal_files(model: keras.Model, compiled: lth.export.Compiled, tmp_path: Path) -> None:
    compiled.save(tmp_path / "a")
    lth.export.compile(model, batch_size=32).save(tmp_path / "b")
    lth.export.load(tmp_path / "a").save(tmp_path / "c")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_other_files_are_refused(compiled: lth.export.Compiled, tmp_path: Path) -> None:
    path = tmp_path / "network"
    with pytest.raises(FileNotFoundError):
        lth.export.load(path)
    compiled.save(path)
    whole = path.read_bytes()
    for broken in (whole[:-1], whole[: len(whole) // 2], b"", whole[:-5] + b"x" + whole[-4:]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="is not a keras_lth compiled network"):
            lth.export.load(path)
    lth.Masks({"a": np.ones(3, bool)}).save(path)
    with pytest.raises(ValueError, match="is not a keras_lth compiled network"):
        lth.export.load(path)


def test_the_table_says_what_is_stored(compiled: lth.export.Compiled) -> None:
    lines = str(compiled).splitlines()
    assert lines[0].split() == ["step", "layer", "shape", "stored", "as", "density", "bytes"]
    first = next(line for line in lines if line.startswith("conv"))
    # 10 % of 3·3·3·8 weights is 22 of 216, each with an index; 9 starts of outputs, 8 biases.
    assert "conv + relu" in first
    assert first.split()[-1] == str(22 * 6 + 9 * 8 + 8 * 4)
    assert "10.19%" in first
    assert lines[-1].startswith("all")
    assert "<table>" in compiled._repr_html_()


def test_without_the_extension(
    monkeypatch: pytest.MonkeyPatch, model: keras.Model, x: np.ndarray, compiled: lth.export.Compiled
) -> None:
    for module in ("keras_lth.export.steps", "keras_lth.ops.sparse"):
        monkeypatch.setattr(f"{module}.CORE", None)
    got = lth.export.compile(model)(x)
    np.testing.assert_allclose(got, compiled(x), rtol=1e-4, atol=1e-6)
