"""Batches from files and from memory: the same steps see the same examples, whatever brings them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lth import datasets, surgery, training
from keras_lth.training.steps import uses_jit
from tests.forms import short_if
from tests.training.pictures import BATCH, N, X, Y, files, network, weights
from tests.two_devices import result_of

ONE = tf.distribute.get_strategy()


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return result_of(Path(__file__).with_name("feeds_program.py"))


# --- from files --------------------------------------------------------------------------------------------------


def test_files_on_two_replicas_are_files_on_one_device(result: dict[str, Any]) -> None:
    assert result["distance"] < 1e-5


def test_files_resumed_inside_an_epoch_end_with_the_same_bits(result: dict[str, Any]) -> None:
    assert result["resumed"] == {"one": [], "two": []}


def test_files_are_evaluated_over_all_examples(result: dict[str, Any]) -> None:
    assert N % BATCH > 0
    assert N % 7 > 0
    for got in result["evaluated"]:
        assert got == pytest.approx(result["wanted"], rel=1e-5)
    assert result["on_two"] == pytest.approx(result["wanted_on_two"], rel=1e-5)


def test_streaming_gives_the_batches_of_gathering(result: dict[str, Any]) -> None:
    assert result["same_batches"] == {"one": True, "two": True}


def test_files_are_trained_on_as_keras_does_on_the_same_batches() -> None:
    data = files()
    assert data.steps_per_epoch == N // BATCH
    looped, plain = network(ONE), network(ONE)
    training.fit(looped, data, epochs=2, jit_compile=False)
    for epoch in range(2):
        for x, y in files().stream(epoch):
            plain.train_on_batch(x, y)
    for a, b in zip(weights(looped), weights(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert data.position == (3, 2 * (N // BATCH))


def test_forks_of_files_share_their_first_steps() -> None:
    model = network(ONE)
    start = surgery.snapshot(model)
    whole = training.train(model, files(augment="flip"), to=12, snapshot=start)
    fork = training.train(model, files(augment="flip"), to=5, snapshot=start)
    assert training.train(model, files(augment="flip"), to=12, snapshot=fork).differences(whole) == []
    other = training.train(model, files(augment="flip"), to=12, snapshot=fork, seed=4)
    assert other.differences(whole) != []


# --- in memory, augmented ----------------------------------------------------------------------------------------


def pictures(**options: Any) -> Any:
    return datasets.ordered(X, Y, batch_size=BATCH, seed=3, **options)


# Without XLA the crop below is compared in every run.
@pytest.mark.parametrize("jit", short_if(bool, [False, True]))
def test_augmented_data_are_those_of_fit(jit: bool) -> None:
    looped, plain, bare = network(ONE), network(ONE), network(ONE)
    training.fit(looped, pictures(augment=("flip", "crop")), epochs=2, jit_compile=jit)
    plain.fit(pictures(augment=("flip", "crop")), epochs=2, verbose=0, shuffle=False)
    bare.fit(pictures(), epochs=2, verbose=0, shuffle=False)
    for a, b in zip(weights(looped), weights(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    assert np.abs(weights(bare)[0] - weights(plain)[0]).max() > 1e-3, "the augmentation did nothing"


# Files in every run: a fork above ends with the same bits as one call.
@pytest.mark.parametrize("kind", short_if(lambda kind: kind == "memory", ["memory", "files"]))
def test_the_bits_depend_on_no_call_size(kind: str) -> None:
    make = pictures if kind == "memory" else files
    ends = []
    for steps in (1, 500):
        model = network(ONE)
        training.fit(model, make(augment=("flip", "crop")), epochs=2, steps_per_call=steps)
        ends.append(surgery.snapshot(model))
    assert all(ends[0].differences(end) == [] for end in ends[1:])


@pytest.mark.parametrize("kind", short_if(lambda kind: kind == "memory", ["memory", "files"]))
def test_a_crop_that_changes_the_size(kind: str) -> None:
    crop = datasets.RandomResizedCrop(4)
    make = pictures if kind == "memory" else files
    data = make(augment=crop)
    assert tuple(data.element_spec[0].shape[1:]) == (4, 4, 1)
    looped, plain = network(ONE, 4), network(ONE, 4)
    training.fit(looped, data, epochs=1)
    steps = data.steps_per_epoch
    again = make(augment=crop)
    for x, y in again if kind == "memory" else again.stream(0):
        plain.train_on_batch(x, y)
    assert surgery.snapshot(looped).step == steps
    for a, b in zip(weights(looped), weights(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_other_data_are_refused() -> None:
    with pytest.raises(TypeError, match=r"data from keras_lth\.datasets\.ordered or from_files, not \w*Dataset"):
        training.fit(network(ONE), tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH))
    assert isinstance(network(ONE), keras.Sequential)


# --- XLA ---------------------------------------------------------------------------------------------------------


class Quadratic(keras.layers.Layer):
    """A layer of our own with a kernel of four axes, as a convolution's."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(1, 1, shape[-1], 2))

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x**2, self.kernel[0, 0])


@pytest.mark.parametrize(
    ("layer", "jit"),
    [(keras.layers.Dense(2), True), (keras.layers.EinsumDense("abcd,de->abce", (4, 4, 2)), True),
     (keras.layers.Conv2D(2, 1), False), (keras.layers.DepthwiseConv2D(1), False), (Quadratic(), False)],
    ids=lambda value: getattr(value, "name", str(value)),
)  # fmt: skip
def test_where_xla_is_left_out_on_a_cpu(layer: Any, jit: bool) -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.Sequential([layer])])
    model.compile("sgd", "mse")
    assert uses_jit(model, None) is jit
    assert uses_jit(model, True) and not uses_jit(model, False)
