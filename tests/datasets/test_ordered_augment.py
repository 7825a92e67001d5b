"""Augmentation of `ordered` data: what iterators yield, what a compiled step gathers, what `fit` trains on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lth.datasets import Flip, RandomResizedCrop, ordered
from tests.datasets import reference_augment as reference
from tests.datasets.reference_order import expected_batches

N, B = 14, 4


def images():
    return np.arange(N * 5 * 6, dtype=np.float32).reshape(N, 5, 6, 1)


def expected(rows, seed, epoch):
    """Images flipped, then cropped."""
    x = images()
    flipped = [reference.flip(x[row], seed, epoch, row) for row in rows]
    return [reference.crop(image, 4, seed, epoch, row, stage=1) for image, row in zip(flipped, rows, strict=True)]


def flipped_and_cropped(**options):
    return ordered(images(), np.arange(N), batch_size=B, seed=9, augment=["flip", "crop"], **options)


@pytest.mark.parametrize("begin", [0, 6])
def test_iterators_yield_the_loops(begin):
    data = flipped_and_cropped()
    data.seek(begin)
    for epoch, batches in enumerate(expected_batches(N, B, 9, begin, 2), begin // 4):
        for (x, y), rows in zip(data, batches, strict=True):
            assert y.numpy().tolist() == rows
            np.testing.assert_array_equal(x, expected(rows, 9, epoch))


@pytest.mark.parametrize("jit", [False, True])
def test_a_compiled_step_gathers_what_iterators_yield(jit):
    data = flipped_and_cropped()
    gather = tf.function(data.batch_of, jit_compile=jit)
    data.seek(4)
    for b, batch in enumerate(data):
        rows = tf.constant(data.order(1)[b * B : (b + 1) * B])
        for part, got in zip(batch, gather(rows, tf.constant(9, tf.int64), tf.constant(1, tf.int64)), strict=True):
            np.testing.assert_array_equal(got, part)


def test_replicas_share_a_batch_of_the_same_bits():
    data = flipped_and_cropped()
    rows = data.order(0)[:B]
    whole = data.batch_of(rows, 9, 0)[0].numpy()
    halves = [data.batch_of(rows[i : i + 2], 9, 0)[0].numpy() for i in (0, 2)]
    np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_without_augmentation_a_batch_is_gathered():
    data = ordered({"a": np.arange(N), "b": np.ones(N)}, np.arange(N) * 2, np.arange(N) / 7, batch_size=B, seed=1)
    x, y, weight = data.batch_of([3, 1], 5, 0)
    assert (data.augment, x["a"].numpy().tolist(), y.numpy().tolist()) == ((), [3, 1], [6, 2])
    np.testing.assert_array_equal(weight, np.array([3, 1], np.float32) / 7)


def test_a_fork_shares_everything_before():
    trunk, branch = flipped_and_cropped(), flipped_and_cropped()
    common = [[x.numpy() for x, _ in data] for data in (trunk, branch)]
    np.testing.assert_array_equal(np.concatenate(common[0]), np.concatenate(common[1]))
    trunk.seek(4)
    branch.seek(4, seed=10)
    rest = [sorted((int(i), x.numpy().tobytes()) for x, y in data for i, x in zip(y, x, strict=True))
            for data in (trunk, branch)]  # fmt: skip
    assert sum(a != b for a, b in zip(*rest, strict=True)) > N / 2


def test_order_and_dtype_are_those_of_data_without_augmentation():
    plain, changed = ordered(images(), batch_size=B, seed=9), ordered(images(), batch_size=B, seed=9, augment=Flip())
    for a, b in zip(plain, changed, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.sort(a, axis=2), np.sort(b, axis=2))
    small = ordered(images(), batch_size=7, seed=9, augment=RandomResizedCrop(3)).element_spec
    assert small.shape.as_list() == [7, 3, 3, 1]


def test_fit_trains_on_the_augmented_images():
    # Of the loss w·x the gradient at w is the sum of the images over B: a step of rate B takes them off the weights.
    inputs = keras.Input((5, 6, 1))
    outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(float(B)), loss=lambda y, p: keras.ops.mean(p, axis=-1))
    x = images()[:12]
    model.fit(ordered(x, np.zeros(12), batch_size=B, seed=2, augment="flip"), epochs=2, verbose=0)
    taken = sum(reference.flip(x[i], 2, epoch, i) for epoch in range(2) for i in range(12))
    np.testing.assert_allclose(np.asarray(model.layers[-1].kernel)[:, 0], -taken.ravel(), rtol=1e-5)


@pytest.mark.parametrize("x", [{"a": np.zeros((4, 2, 2, 1))}, (np.zeros((4, 2, 2, 1)),), np.zeros((4, 3))])
def test_augment_needs_one_array_of_images(x):
    with pytest.raises(ValueError, match=r"augment needs x to be one array of shape \(n, h, w, c\), got .*\(4, "):
        ordered(x, batch_size=2, seed=0, augment="flip")


def test_unknown_augmentations_are_named():
    with pytest.raises(ValueError, match="augment: 'rotate'"):
        ordered(images(), batch_size=2, seed=0, augment=["flip", "rotate"])
