"""Data sets derived from others: which examples, which labels, which pixels; and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keras_lth import datasets
from keras_lth.datasets import Splits


def made(counts: tuple[int, ...] = (40, 40, 20), shape: tuple[int, ...] = (3, 4, 2)) -> Splits:
    """Examples that are all different, their classes mixed; in the test part 10 of each class."""
    draw = np.random.default_rng(0)
    y = draw.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    test = np.repeat(np.arange(len(counts)), 10).astype(np.int32)
    x = np.arange((len(y) + len(test)) * np.prod(shape), dtype=np.float32).reshape(-1, *shape)
    return Splits((x[: len(y)], y), (x[len(y) :], test), len(counts))


def identities(pair: Any) -> list[float]:
    return pair[0].reshape(len(pair[0]), -1)[:, 0].tolist()


def test_splits_are_three_values_and_parts() -> None:
    splits = made()
    (x, _), test, classes = splits
    assert x is splits.train[0] and test is splits.part("test") and classes == 3
    with pytest.raises(ValueError, match=r"data_options=\{'holdout': 0.1\}.*held_out"):
        splits.part("holdout")
    with pytest.raises(ValueError, match="train, test, holdout, not 'val'"):
        splits.part("val")


@pytest.mark.parametrize("balanced", [False, True])
def test_a_hold_out_divides_the_training_examples(balanced: bool) -> None:
    splits = made()
    parts = datasets.held_out(splits, 0.1, seed=3, balanced=balanced)
    kept, held = (identities(parts.part(name)) for name in ("train", "holdout"))
    assert len(held) == 10 and sorted(kept + held) == identities(splits.train)
    assert kept == sorted(kept) and held == sorted(held) and parts.test is splits.test
    truth = dict(zip(identities(splits.train), splits.train[1].tolist(), strict=True))
    for pair in (parts.train, parts.part("holdout")):
        assert [truth[i] for i in identities(pair)] == pair[1].tolist()
    if balanced:
        assert np.bincount(parts.part("holdout")[1]).tolist() == [4, 4, 2]
    again, other = (datasets.held_out(splits, 0.1, seed=s, balanced=balanced) for s in (3, 4))
    assert identities(again.part("holdout")) == held != identities(other.part("holdout"))
    with pytest.raises(ValueError, match="already"):
        datasets.held_out(parts, 0.1)


def test_what_is_drawn_never_changes() -> None:
    """Names of steps promise the recipe: a store's values would be of other examples."""
    splits = made((10, 10), (1,))
    assert identities(datasets.held_out(splits, 0.2, seed=1).part("holdout")) == [2, 3, 14, 18]
    assert identities(datasets.subset(splits, 4, seed=1).train) == [1, 6, 12, 17]
    labels = datasets.permuted_labels(splits, seed=1).train[1]
    assert labels.tolist() == [0, 1, 1, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0, 1, 0]


def test_parts_are_disjoint_and_whole() -> None:
    splits = made((40, 40, 21))
    parts = [datasets.derived(splits, part=f"{number}/2", seed=4) for number in (1, 2)]
    first, second = (identities(each.train) for each in parts)
    assert sorted(first + second) == identities(splits.train) and (len(first), len(second)) == (51, 50)
    assert first == sorted(first) and parts[0].test is splits.test
    assert identities(datasets.disjoint(splits, "1/2", seed=5).train) != first
    for wrong in ("3/2", "0/2", "half", 2):
        with pytest.raises(ValueError, match="'1/2'"):
            datasets.check_options({"part": wrong})
    with pytest.raises(ValueError, match="at most 101 parts"):
        datasets.disjoint(splits, "1/102")


def test_subsets_are_nested_and_samples_balanced() -> None:
    splits = made()
    few, more = (set(identities(datasets.subset(splits, n, seed=5).train)) for n in (7, 30))
    assert len(few) == 7 and few < more and len(more) == 30
    assert identities(datasets.subset(splits, 100).train) == identities(splits.train)
    sample = datasets.per_class(splits, 20, seed=5)
    assert np.bincount(sample.train[1]).tolist() == [20, 20, 20] and len(set(identities(sample.train))) == 60
    assert set(identities(datasets.per_class(splits, 4, seed=5).train)) < set(identities(sample.train))


def test_noise_makes_exactly_a_fraction_of_labels_wrong() -> None:
    splits = made((600, 300, 300))
    noisy = datasets.noisy_labels(splits, 0.5, seed=2)
    wrong = noisy.train[1] != splits.train[1]
    assert wrong.sum() == 600 and noisy.train[0] is splits.train[0] and noisy.test is splits.test
    # A wrong label is uniform over the two others: 300 of 600 for the first class's, up to five deviations.
    moved = (noisy.train[1] - splits.train[1])[wrong] % 3
    assert set(moved.tolist()) == {1, 2} and abs((moved == 1).sum() - 300) < 5 * np.sqrt(600) / 2
    permuted = datasets.permuted_labels(splits, seed=2).train[1]
    assert np.bincount(permuted).tolist() == [600, 300, 300]
    # By chance a label is right with the sum of the squared shares, 0.375.
    assert abs((permuted == splits.train[1]).mean() - 0.375) < 0.07


@pytest.mark.parametrize("shape", [(3, 4, 2), (6,)])
def test_pixels_move_but_channels_stay_together(shape: tuple[int, ...]) -> None:
    splits = datasets.held_out(made(shape=shape), 0.1)
    channels = shape[-1] if len(shape) == 3 else 1
    for how in ("permuted", "shuffled"):
        other = datasets.corrupted_pixels(splits, how, seed=1)
        orders = []
        for part in datasets.PARTS:
            x, y = splits.part(part)
            mine, labels = other.part(part)
            assert mine.shape == x.shape and labels is y
            before, after = (each.reshape(len(x), -1, channels) for each in (x, mine))
            orders += (
                (after[..., 0] - before[:, :1, 0]) / channels
            ).tolist()  # the pixel that each place now has, as values count up
            np.testing.assert_array_equal(np.sort(after, 1), before)
        assert len(set(map(tuple, orders))) == (1 if how == "permuted" else len(set(map(tuple, orders))))
        assert how == "permuted" or len(set(map(tuple, orders))) > 100
    noise = datasets.corrupted_pixels(splits, "gaussian", seed=1)
    x, made_x = splits.train[0], noise.train[0]
    assert made_x.dtype == np.float32 and abs(made_x.mean() - x.mean()) < 0.1 * x.std()
    assert made_x.std() == pytest.approx(x.std(), rel=0.1) and not np.array_equal(noise.test[0], splits.test[0])


def test_normalised_is_mean_0_and_deviation_1_of_the_training_examples() -> None:
    splits = datasets.held_out(made(), 0.2)
    x = datasets.normalised(splits).train[0]
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(x.std((0, 1, 2)), 1, rtol=1e-6)
    given = datasets.normalised(splits, (1, 2), (4, 8))
    for part in datasets.PARTS:
        before, after = splits.part(part)[0], given.part(part)[0]
        np.testing.assert_allclose(after[..., 1], (before[..., 1] - 2) / 8)
        assert after.dtype == np.float32
    with pytest.raises(ValueError, match="2 channels"):
        datasets.normalised(splits, *datasets.NORMS["cifar10"])
    with pytest.raises(ValueError, match="above 0"):
        datasets.normalised(Splits((np.ones((4, 2)), np.arange(4)), splits.test, 4))


def test_options_are_the_functions_in_order() -> None:
    splits = made()
    options = {"subset": 90, "holdout": 0.1, "label_noise": 0.5, "normalise": True, "seed": 7}
    got = datasets.derived(splits, **options)
    want = datasets.held_out(datasets.subset(splits, 90, seed=7), 0.1, seed=7)
    want = datasets.normalised(datasets.noisy_labels(want, 0.5, seed=7))
    for part in datasets.PARTS:
        for a, b in zip(got.part(part), want.part(part), strict=True):
            np.testing.assert_array_equal(a, b)
    assert datasets.derived(splits) is splits
    published = datasets.derived(made(shape=(2, 2, 1)), normalise="mnist").train[0]
    np.testing.assert_allclose(published, (made(shape=(2, 2, 1)).train[0] - 0.1307) / 0.3081, rtol=1e-6)


def test_shrunk_images_are_means_of_squares() -> None:
    splits = made(shape=(4, 6, 2))
    small = datasets.derived(splits, shrink=2)
    x = splits.test[0]
    assert small.test[0].shape == (30, 2, 3, 2) and small.test[0].dtype == np.float32
    assert small.test[0][7, 1, 2, 1] == x[7, 2:4, 4:6, 1].mean()
    assert datasets.derived(splits, shrink=1).train[0].tolist() == splits.train[0].tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"holdout": 1.0}, "holdout.*above 0 and below 1.*1.0"),
        ({"holdout": 0}, "holdout.*above 0 and below 1.*0"),
        ({"holdout": "a tenth"}, "holdout.*a tenth"),
        # Classes of 40, 40, 20: one of 20 stays at 19/20.
        ({"holdout": 0.99, "balanced": True}, "0.99.*class 0.*40.*at most 0.95"),
        ({"holdout": 0.99}, "0.99 leaves no training example of class.*balanced=True with at most 0.95"),
        ({"holdout": 0.001}, "0.001 of 100.*at least 0.01"),
        ({"per_class": 21}, "per_class=21.*class 2 has 20.*at most 20"),
        ({"subset": 101}, "subset=101 of 100.*at most 100"),
        ({"subset": 0}, "subset.*1.*0"),
        ({"label_noise": -0.1}, "label_noise.*-0.1"),
        ({"label_noise": 0.001}, "0.001.*none.*0.01"),
        ({"labels": "shuffled"}, "labels.*'permuted'.*'shuffled'"),
        ({"pixels": "noise"}, "pixels.*'gaussian'.*'noise'"),
        ({"balanced": True}, "balanced=True.*holdout=0.1"),
        ({"normalise": "cifar"}, "normalise.*cifar10.*'cifar'"),
        ({"normalise": {"mean": [1], "std": [0]}}, "normalise.*above 0"),
        ({"hold_out": 0.1}, "hold_out.*holdout"),
        ({"seed": -1}, "seed.*-1"),
        ({"shrink": 2}, "shrink=2.*divides.*3, 4, 2"),
        ({"shrink": 0}, "shrink.*0"),
    ],
)
def test_what_cannot_be_derived(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        datasets.derived(made(), **options)
