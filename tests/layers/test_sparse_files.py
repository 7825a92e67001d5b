"""Sparse models in files, copies, exports and tickets."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth import surgery
from keras_lth.layers import kernels_of
from tests.forms import short_if, spread
from tests.layers.sparse_cases import assert_same, case, masks_for, pair, train, whole_weights


@pytest.mark.parametrize("name", spread(2, ["dense", "conv2d", "lstm", "attention", "subclassed", "time"]))
def test_files_pass_between_sparse_and_dense_models(name: str, tmp_path: Path) -> None:
    dense, sparse, (_, x, _) = pair(name)
    wanted = sparse.predict(x, verbose=0)
    sparse.save_weights(tmp_path / "sparse.weights.h5")
    dense.save_weights(tmp_path / "dense.weights.h5")
    made = case(name).build()
    made.load_weights(tmp_path / "sparse.weights.h5")
    np.testing.assert_allclose(made(x), wanted, rtol=1e-5, atol=1e-5)
    for path, value in whole_weights(made).items():
        assert np.array_equal(value, whole_weights(sparse)[path])
    for variable in sparse.trainable_variables:
        variable.assign(np.zeros(tuple(variable.shape), np.float32))
    sparse.load_weights(tmp_path / "dense.weights.h5")
    np.testing.assert_allclose(sparse.predict(x, verbose=0), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    short_if(lambda name: name in ("attention", "masked"), ["dense", "conv2d", "attention", "lstm", "masked", "time"]),
)
def test_a_keras_file_keeps_structure_values_and_slots(name: str, tmp_path: Path) -> None:
    dense, sparse, (_, x, y) = pair(name)
    train(sparse, x, y, 2)
    train(dense, x, y, 2)
    sparse.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [kernel.structure for _, layer in surgery.paths.layers(loaded) for kernel in kernels_of(layer).values()] == [
        kernel.structure for _, layer in surgery.paths.layers(sparse) for kernel in kernels_of(layer).values()
    ]
    np.testing.assert_array_equal(loaded(x), sparse(x))
    for model in (loaded, sparse, dense):
        train(model, x, y, 2)
    assert_same(sparse, loaded, atol=1e-6)
    assert_same(dense, loaded)
    lth.densify(loaded)
    assert type(loaded.layers[-1]) is type(dense.layers[-1])


def test_files_are_as_small_as_what_is_stored(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(512), keras.layers.Dense(512)])
    model.save(tmp_path / "dense.keras")
    lth.sparsify(model, masks_for(model, density=0.05), only_if_faster=False)
    model.save(tmp_path / "sparse.keras")
    before, after = ((tmp_path / f"{name}.keras").stat().st_size for name in ("dense", "sparse"))
    assert after < 0.1 * before
    assert sum(v.numpy().nbytes for v in model.trainable_variables) < 0.06 * before


def test_a_clone_is_dense_as_that_of_a_masked_model() -> None:
    _, sparse, (_, x, _) = pair("dense")
    clone = keras.models.clone_model(sparse)
    assert not lth.masks_of(clone)
    assert type(clone.layers[0]) is keras.layers.Dense
    assert clone(x).shape == (8, 3)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_sparse_with_the_same_values(copied: Any) -> None:
    _, sparse, (_, x, _) = pair("dense")
    made = copied(sparse)
    np.testing.assert_array_equal(made(x), sparse(x))
    assert lth.masks_of(made) == lth.masks_of(sparse)


def test_export_to_a_saved_model(tmp_path: Path) -> None:
    _, sparse, (_, x, _) = pair("conv2d")
    sparse.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "exported"))
    np.testing.assert_allclose(served.serve(x), sparse(x), rtol=1e-5, atol=1e-6)


def test_tickets_are_applied_to_and_taken_from_a_sparse_model() -> None:
    dense, sparse, (_, x, y) = pair("dense")
    train(dense, x, y, 1)
    ticket = lth.Ticket(lth.masks_of(dense), lth.snapshot(dense), {})
    train(sparse, x, y, 3)
    other = {path: ~mask for path, mask in lth.masks_of(dense).items()}
    lth.mask(sparse, other)
    ticket.apply_to(sparse)
    assert_same(dense, sparse, atol=0)
    assert any(kernels_of(layer) for layer in sparse.layers)
    assert lth.sparsity(sparse).remaining == lth.sparsity(dense).remaining
    scores, wanted = lth.criteria.Magnitude()(sparse), lth.criteria.Magnitude()(dense)
    assert all(np.array_equal(scores[path], wanted[path]) for path in wanted)
