"""A model that comes with zeros and no mask: told, and masked from them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import keras_lth as lth

L = keras.layers


def model(name: str = "first") -> keras.Model:
    return keras.Sequential([keras.Input((4,)), L.Dense(5, name=name), L.Dense(3)])


def test_masks_of_a_loaded_model(tmp_path: Path) -> None:
    first = model()
    masks = lth.mask(first, lth.select(lth.criteria.Magnitude()(first), density=0.2))
    first.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    report = lth.sparsity(loaded)
    assert (report.density, report.zeros) == (1.0, 0.8)
    assert "zeros 80.0%, no mask" in str(report) and "masks_from_zeros" in str(report)
    found = lth.masks_from_zeros(loaded)
    assert found == masks
    lth.mask(loaded, found)
    loaded.compile("adam", "mse")
    loaded.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    assert lth.masks_from_zeros(loaded) == masks
    assert "no mask" not in str(lth.sparsity(loaded))


def test_no_zeros() -> None:
    with pytest.raises(ValueError, match="no zeros among its 35 prunable weights"):
        lth.masks_from_zeros(model())
    assert "no mask" not in str(lth.sparsity(model()))


def test_random_like_is_public() -> None:
    masks = lth.select({"a": np.arange(10.0), "b": np.arange(6.0)}, density=0.5)
    other = lth.random_like(masks, seed=np.int64(3))
    assert [row.remaining for row in other.table()] == [row.remaining for row in masks.table()]
    assert other == lth.random_like(masks, seed=3) != masks


def test_tables_in_notebooks_are_escaped() -> None:
    built = model("<b>")
    masks = lth.mask(built, lth.select(lth.criteria.Magnitude()(built), density=0.5))
    snapshot = lth.snapshot(built)
    ticket = lth.Ticket(masks, snapshot, {"note": "<script>"})
    for value in (masks, lth.Masks(dict(masks)), lth.sparsity(built), ticket, snapshot, lth.prunable(built)):
        text = value._repr_html_()
        assert text.count("<table>") == text.count("</table>") >= 1
        assert "<b>" not in text and "<script>" not in text
    assert "&lt;b&gt;" in masks._repr_html_() and "&lt;script&gt;" in ticket._repr_html_()
    wide = lth.Masks({f"layer_{i}": np.ones(1, bool) for i in range(100)})
    assert wide._repr_html_().count("<tr>") <= 32 and "… 72 more" in wide._repr_html_()


def test_masks_by_the_names_that_keras_shows() -> None:
    names = [f"dense_{i}" for i in (1, 2, 3)]
    built = keras.Sequential([keras.Input((4,)), *(L.Dense(4, name=name) for name in names)])
    lth.mask(built, {"dense_1/kernel": np.eye(4) > 0})
    assert [np.count_nonzero(layer.kernel.numpy()) for layer in built.layers] == [4, 16, 16]
    text = lth.masks_of(built).summary()
    assert "dense/kernel (shown as dense_1/kernel)" in text
    # A file holds paths.
    lth.unmask(built)
    lth.mask(built, lth.Masks({"dense_1/kernel": np.tri(4) > 0}))
    assert list(lth.masks_of(built)) == ["dense_1/kernel"]
    assert np.count_nonzero(built.get_layer("dense_2").kernel.numpy()) == 10


def test_masks_are_matched_by_name_and_never_half_by_order() -> None:
    inputs = keras.Input((4, 6))
    built = keras.Model(inputs, L.MultiHeadAttention(2, 3)(inputs, inputs))
    weights = lth.prunable(built)
    query, key, value, output = weights
    keep = {path: np.random.default_rng(i).random(tuple(v.shape)) < 0.5 for i, (path, v) in enumerate(weights.items())}
    # All names, in another order: by name.
    lth.mask(built, lth.Masks({path: keep[path] for path in (output, value, key, query)}))
    assert lth.masks_of(built) == lth.Masks(keep)
    # One name is another's, all shapes fit by order: refused, by name.
    wrong = {query: keep[query], "attention/q": keep[key], value: keep[value], output: keep[output]}
    with pytest.raises(ValueError, match=r"'attention/q' .* is unknown.*the shapes match by order"):
        lth.mask(built, lth.Masks(wrong))
    assert lth.masks_of(built) == lth.Masks(keep)
