"""Which weights a pattern reaches: the names that Keras shows, the structural paths, and never the wrong one."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import keras_lth as lth
from keras_lth.names import WeightPath, assigned, few, reached, spelled

# Three layers whose names were given by hand and look like Keras' own; the same in a notebook cell that ran twice.
BY_HAND = [WeightPath(f"dense{end}/kernel", [f"dense_{i}/kernel"]) for i, end in ((1, ""), (2, "_1"), (3, "_2"))]
AGAIN = [WeightPath(f"dense{end}/kernel", [f"dense_{i}/kernel"]) for i, end in ((3, ""), (4, "_1"), (5, "_2"))]
DEEP = [WeightPath("enc/block/dense/kernel", ["enc/b/dense_7/kernel", "model_2/enc/b/dense_7/kernel"])]


def hits(pattern: str, paths: list[WeightPath]) -> list[int]:
    found = reached([pattern], paths, "exclude")[pattern]
    return [number for number, path in enumerate(paths) if path in found]


@pytest.mark.parametrize(
    ("pattern", "by_hand", "again"),
    [
        ("dense_1", [0], [1]),
        ("dense_3", [2], [0]),
        ("dense_3/kernel", [2], [0]),
        ("dense_2", [1], [2]),
        ("dense", [0], [0]),
        ("kernel", [0, 1, 2], [0, 1, 2]),
        ("dense_[12]/", [0, 1], [1, 2]),
        ("^dense_3", [2], [0]),
        (".*", [0, 1, 2], [0, 1, 2]),
        ("", [0, 1, 2], [0, 1, 2]),
    ],
)
def test_names_that_keras_shows_come_before_paths(pattern: str, by_hand: list[int], again: list[int]) -> None:
    assert hits(pattern, BY_HAND) == by_hand
    assert hits(pattern, AGAIN) == again


def test_a_list_is_read_in_one_spelling() -> None:
    # All three paths, "dense" among them, which Keras shows nowhere: so all are paths.
    paths = [str(path) for path in BY_HAND]
    assert [set(found) for found in reached(paths, BY_HAND, "x").values()] == [{path} for path in paths]
    # Keys of masks and scores are paths, whatever they look like.
    assert reached(BY_HAND[1:2], BY_HAND, "x") == {"dense_1/kernel": {"dense_1/kernel"}}


def test_plain_names_match_whole_parts() -> None:
    for pattern in ("enc", "block", "b", "enc/b", "dense_7", "b/dense_7/kernel", "model_2", "enc/block/dense"):
        assert hits(pattern, DEEP) == [0], pattern
    for pattern in ("en", "nc/block", "dense_", "ense", "kern"):
        with pytest.raises(ValueError, match=f"exclude='{pattern}' matches no weight"):
            hits(pattern, DEEP)
    # Names with regex characters are names first.
    odd = [WeightPath("conv.1/kernel"), WeightPath("conv_1/kernel"), WeightPath("out(a)/kernel")]
    assert (hits("conv.1", odd), hits("out(a)", odd), hits("conv.1/k", odd)) == ([0], [2], [0, 1])


def test_what_is_near_is_named() -> None:
    with pytest.raises(ValueError, match=r"exclude='dense_9' matches no weight; similar: 'dense_5', 'dense_4', "):
        hits("dense_9", AGAIN)
    with pytest.raises(ValueError, match=r"'output_layer'.*write 'output\.\*' for a prefix"):
        hits("output", [WeightPath("output_layer/kernel")])
    with pytest.raises(ValueError, match="'x\\(' is not a regular expression"):
        hits("x(", AGAIN)


def test_each_layer_gets_its_own_value() -> None:
    paths = ["dense/kernel", "dense_1/kernel", "dense_10/kernel"]
    given = {"dense": 0.1, "dense_1": 0.2, "dense_10": 0.3}
    assert list(assigned(given, paths, "density", paths).values()) == [0.1, 0.2, 0.3]
    assert assigned({"dense_10": 0.3, ".*": 0.5}, paths, "density", paths)["dense_1/kernel"] == 0.5
    # A fallback that nothing is left for is not a fault; a name that comes after the fallback is.
    assert assigned({**given, ".*": 1.0}, paths, "density", paths)["dense/kernel"] == 0.1
    with pytest.raises(ValueError, match=r"write 'dense_1' before '\.\*'"):
        assigned({".*": 0.5, "dense_1": 0.1}, paths, "density", paths)


def test_a_path_is_a_string_that_travels() -> None:
    path = BY_HAND[0]
    assert path == "dense/kernel"
    assert {path: 1}["dense/kernel"] == 1
    for other in (pickle.loads(pickle.dumps(path)), copy.deepcopy(path)):
        assert (other, other.shown) == (path, ("dense_1/kernel",))


def counts(masks: lth.Masks) -> list[int]:
    return [row.remaining for row in masks.table()]


def test_selection_takes_the_names_of_scores() -> None:
    scores = {path: np.arange(10.0) for path in BY_HAND}
    assert counts(lth.select(scores, 0.1, scope="layer", exclude="dense_1")) == [10, 1, 1]
    assert counts(lth.select(scores, scope={"dense_1": 0.1, "dense_2": 0.2, "dense_3": 0.3})) == [1, 2, 3]
    whole = lth.Masks.ones(scores)
    assert counts(lth.prune(scores, whole, {"dense_3": 0.5, ".*": 0.1}, scope="layer")) == [9, 9, 5]
    assert counts(lth.prune(scores, whole, 0.5, exclude=["dense_3", "dense_2"])) == [5, 10, 10]
    for call in (
        lambda: lth.select(scores, 0.5, exclude="dense_9"),
        lambda: lth.select(scores, scope={"dense_9": 0.5, ".*": 0.1}),
        lambda: lth.prune(scores, whole, 0.5, exclude=["dense_1", "dense_9"]),
        lambda: lth.prune(scores, whole, {"dense_9": 0.5, ".*": 0.1}, scope="layer"),
    ):
        with pytest.raises(ValueError, match="'dense_9' matches no weight; similar: 'dense_"):
            call()


def test_names_of_masks_are_shown_names_if_all_are() -> None:
    assert spelled(["dense_1/kernel"], BY_HAND) == {"dense_1/kernel": "dense/kernel"}
    complete = [str(path) for path in BY_HAND]
    assert spelled(complete, BY_HAND) == dict(zip(complete, complete, strict=True))
    assert spelled([BY_HAND[1]], BY_HAND) == {"dense_1/kernel": "dense_1/kernel"}


def test_few_fits() -> None:
    assert few(["a", "b"]) == "a, b"
    assert few(["a" * 50, "b" * 50, "c" * 50]) == f"{'a' * 50}, {'b' * 50}, …"
    assert len(few(["a" * 500])) <= 121
