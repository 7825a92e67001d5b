"""Augmentation against loops, its distributions, and what it does not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lth.datasets import CentreCrop, Crop, Flip, RandomResizedCrop
from keras_lth.datasets.augment import augmented, sequence
from keras_lth.datasets.noise import Noise
from tests.datasets import reference_augment as reference
from tests.forms import examples

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def images(n, height=7, width=9, channels=2, seed=0):
    return np.random.default_rng(seed).random((n, height, width, channels), dtype=np.float32)


def run(x, augment, seed, epoch, index):
    return augmented(tf.constant(x), sequence(augment), seed=seed, epoch=epoch, index=tf.constant(index, tf.int64))


# --- against loops -----------------------------------------------------------------------------------------------


@settings(max_examples=examples(20))
@given(
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 2**62 - 1),
    index=st.lists(st.integers(0, 2**62 - 1), min_size=1, max_size=4),
    stage=st.integers(0, 5),
    draws=st.integers(1, 3),
)
def test_words_are_philox_of_seed_epoch_and_example(seed, epoch, index, stage, draws):
    noise = Noise(tf.constant(seed, tf.int64), tf.constant(epoch, tf.int64), tf.constant(index, tf.int64), stage)
    expected = [[reference.words(seed, epoch, one, stage, draw) for draw in range(draws)] for one in index]
    assert noise.words(draws).numpy().tolist() == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize(("height", "width", "padding"), [(7, 9, 4), (5, 5, 0), (3, 4, 9)])
def test_flip_and_crop_are_the_loops_bit_by_bit(dtype, height, width, padding):
    x = (images(30, height, width) * 255).astype(dtype)
    index = np.arange(30) * 2**33 + 5
    got = run(x, [Flip(), Crop(padding)], 2**40 + 3, 6, index)
    assert got.dtype == dtype
    for image, one, result in zip(x, index.tolist(), got.numpy(), strict=True):
        expected = reference.crop(reference.flip(image, 2**40 + 3, 6, one), padding, 2**40 + 3, 6, one, stage=1)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("height", "width", "size", "scale", "ratio"),
    [
        (7, 9, 5, SCALE, RATIO),
        (20, 12, 32, SCALE, RATIO),
        (12, 12, 12, (1.0, 1.0), (1.0, 1.0)),
        (4, 40, 6, (0.9, 1.0), RATIO),
        (40, 4, 6, (0.9, 1.0), RATIO),
        (5, 6, 4, (0.9, 1.0), (2.0, 3.0)),
    ],
)
def test_random_resized_crop_is_the_loop(height, width, size, scale, ratio):
    augment, index = RandomResizedCrop(size, scale, ratio), np.arange(40)
    x = images(40, height, width)
    boxes = augment.boxes(tf.constant(x), Noise(1, 2, tf.constant(index, tf.int64))).numpy()
    expected = [reference.box((height, width), scale, ratio, 1, 2, one) for one in index.tolist()]
    np.testing.assert_array_equal(boxes, expected)
    wanted = [reference.random_resized_crop(image, size, scale, ratio, 1, 2, i) for i, image in enumerate(x)]
    np.testing.assert_allclose(run(x, augment, 1, 2, index), wanted, atol=1e-5)


def test_the_whole_image_at_its_own_size_is_itself():
    x = images(3, 8, 8)
    np.testing.assert_array_equal(run(x, RandomResizedCrop(8, (1.0, 1.0), (1.0, 1.0)), 1, 1, [0, 1, 2]), x)
    np.testing.assert_array_equal(run(x, CentreCrop(8, 8), 1, 1, [0, 1, 2]), x)


@pytest.mark.parametrize(("height", "width"), [(32, 64), (64, 32), (16, 16), (40, 80)])
def test_centre_crop_is_a_resize_and_the_middle_of_it(height, width):
    x = images(2, height, width)
    short = min(height, width)
    whole = tf.image.resize(x, (24 * height // short, 24 * width // short), "bilinear").numpy()
    y, z = (whole.shape[1] - 20) // 2, (whole.shape[2] - 20) // 2
    np.testing.assert_allclose(run(x, CentreCrop(20, 24), 1, 1, [0, 1]), whole[:, y : y + 20, z : z + 20], atol=1e-5)


# --- distributions -----------------------------------------------------------------------------------------------


def test_half_of_the_images_are_flipped_in_every_epoch():
    x = np.zeros((4000, 1, 2, 1), np.float32)
    x[:, 0, 1] = 1
    flips = np.array([run(x, Flip(), 3, epoch, np.arange(4000)).numpy()[:, 0, 0, 0] for epoch in range(2)])
    # Five standard deviations of a fair coin thrown 4 000 times are 0.04.
    np.testing.assert_allclose(flips.mean(axis=1), 0.5, atol=0.04)
    assert np.mean(flips[0] == flips[1]) == pytest.approx(0.5, abs=0.04)


def test_corners_of_crops_are_uniform_and_independent():
    # A picture of its own coordinates tells the corner: chi-square of the 81 places, 80 degrees, 99.99 % at 137.
    x = np.broadcast_to(np.arange(1, 82, dtype=np.float32).reshape(1, 9, 9, 1), (8100, 9, 9, 1))
    middle = run(x, Crop(4), 1, 0, np.arange(8100)).numpy()[:, 4, 4, 0]
    counts = np.bincount(middle.astype(int), minlength=82)[1:]
    assert ((counts - 100) ** 2 / 100).sum() < 137


def test_areas_are_uniform_and_ratios_log_uniform():
    x = tf.zeros((3000, 1000, 1000, 0))
    boxes = RandomResizedCrop(8).boxes(x, Noise(1, 0, tf.range(3000, dtype=tf.int64))).numpy()
    y, left, h, w = boxes.T
    assert y.min() >= 0 and left.min() >= 0 and (y + h).max() <= 1000 and (left + w).max() <= 1000
    assert 0.0795 < (h * w).min() / 1e6 < 0.1
    assert 0.745 < (w / h).min() < 0.76 and 1.32 < (w / h).max() < 1.34
    # Of windows that always fit (area at most ¾) the area's share is uniform; five standard errors of its mean.
    small = (h * w / 1e6)[h * w < 0.75e6]
    assert small.mean() == pytest.approx((0.08 + 0.75) / 2, abs=5 * 0.67 / np.sqrt(12 * len(small)))
    assert np.log(w / h).mean() == pytest.approx(0, abs=5 * 2 * np.log(4 / 3) / np.sqrt(12 * 3000))


# --- what it does not depend on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [("flip", "crop"), (RandomResizedCrop(6), Flip())])
def test_neither_batch_nor_place_changes_an_example(augment):
    x, index = images(12), np.arange(12) * 7 + 1
    whole = run(x, augment, 5, 3, index).numpy()
    order = np.random.default_rng(1).permutation(12)
    np.testing.assert_array_equal(run(x[order], augment, 5, 3, index[order]).numpy(), whole[order])
    parts = [run(x[a:b], augment, 5, 3, index[a:b]).numpy() for a, b in ((0, 1), (1, 6), (6, 12))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for changed in ((6, 3, index), (5, 4, index), (5, 3, index + 1)):
        assert (run(x, augment, *changed).numpy() != whole).any()


@pytest.mark.parametrize(
    ("augment", "tolerance"), [(("flip", "crop"), 0), ((RandomResizedCrop(6),), 1e-6), ((CentreCrop(4, 5),), 1e-6)]
)
def test_eager_graph_xla_and_tf_data_agree(augment, tolerance):
    x, index = images(16), np.arange(16)
    eager = run(x, augment, 5, 3, index).numpy()

    def step(x, index, epoch):
        return augmented(x, sequence(augment), seed=5, epoch=epoch, index=index)

    arguments = tf.constant(x), tf.range(16, dtype=tf.int64), tf.constant(3, tf.int64)
    for jit in (False, True):
        compiled = tf.function(step, jit_compile=jit)
        assert compiled.get_concrete_function(*arguments).structured_outputs.shape == eager.shape
        np.testing.assert_allclose(compiled(*arguments), eager, atol=tolerance, rtol=0)
    # Images of different sizes come one by one.
    single = tf.data.Dataset.from_tensor_slices((x, index)).map(lambda x, i: step(x[tf.newaxis], i[tf.newaxis], 3)[0])
    np.testing.assert_allclose(np.stack(list(single.as_numpy_iterator())), eager, atol=tolerance, rtol=0)


def test_no_op_of_the_compiled_step_calls_the_host():
    x = tf.TensorSpec((4, 8, 8, 3))
    step = tf.function(
        lambda x, i: augmented(x, sequence(["flip", "crop", RandomResizedCrop(8)]), seed=1, epoch=2, index=i)
    )
    graph = step.get_concrete_function(x, tf.TensorSpec((4,), tf.int64)).graph
    kinds = {op.type for op in graph.get_operations()}
    assert len(kinds) > 10
    assert not {kind for kind in kinds if "Py" in kind or "Random" in kind or kind == "Where"}


# --- arguments ---------------------------------------------------------------------------------------------------


def test_a_sequence_is_made_of_names_or_augmentations():
    assert sequence(None) == sequence(()) == ()
    assert sequence("flip") == (Flip(),)
    assert sequence(["flip", Crop(2), "crop"]) == (Flip(), Crop(2), Crop(4))
    with pytest.raises(ValueError, match="augment: 'flop' is neither one of flip, crop"):
        sequence(["flip", "flop"])
    with pytest.raises(ValueError, match="augment: 3"):
        sequence([3])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Crop(-1), "padding"),
        (lambda: Crop(1.5), "padding"),
        (lambda: RandomResizedCrop(0), "size"),
        (lambda: RandomResizedCrop(8, (0.0, 1.0)), "scale"),
        (lambda: RandomResizedCrop(8, (0.5, 1.5)), "scale"),
        (lambda: RandomResizedCrop(8, ratio=(2.0, 1.0)), "ratio"),
        (lambda: CentreCrop(8, 7), "resize"),
        (lambda: run(np.zeros((2, 4, 4), np.float32), "crop", 1, 1, [0, 1]), "n, height, width, channels"),
        (lambda: run(np.zeros((2, 4, 4, 1), np.uint8), RandomResizedCrop(2), 1, 1, [0, 1]), "uint8"),
    ],
)
def test_bad_arguments_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
