from __future__ import annotations

import copy
import hashlib
import math
import pickle
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lth.masks import Masks, Row, align, match_paths

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)
ARRAYS = SHAPES.flatmap(lambda shape: hnp.arrays(np.bool_, shape))
MASKS = st.dictionaries(st.text(min_size=1, max_size=8), ARRAYS, max_size=4).map(Masks)


@st.composite
def alike(draw: st.DrawFn, count: int) -> list[Masks]:
    """`count` masks over the same paths and shapes."""
    shapes = draw(st.dictionaries(st.text(min_size=1, max_size=5), SHAPES, max_size=3))
    return [Masks({path: draw(hnp.arrays(np.bool_, shape)) for path, shape in shapes.items()}) for _ in range(count)]


def lenet(keep: int = 266_200) -> Masks:
    flat = np.arange(266_200) < keep
    return Masks(
        {
            "dense/kernel": flat[:235_200].reshape(784, 300),
            "dense_1/kernel": flat[235_200:265_200].reshape(300, 100),
            "dense_2/kernel": flat[265_200:].reshape(100, 10),
        }
    )


def test_counts_and_repr_of_lenet() -> None:
    masks = lenet(53_240)
    assert (masks.size, masks.remaining, masks.density, masks.sparsity) == (266_200, 53_240, 0.2, 0.8)
    assert repr(masks) == "Masks(3 layers, 53,240 of 266,200 weights remain, density 20.0 %)"
    assert masks.empty == ("dense_1/kernel", "dense_2/kernel")
    assert masks.table()[0] == Row("dense/kernel", (784, 300), 235_200, 53_240, 53_240 / 235_200)


def test_summary_is_aligned_and_names_empty_layers() -> None:
    assert lenet(235_200 + 15_000).summary().split("\n") == [
        "layer               shape  weights   remain  density",
        "dense/kernel    784 × 300  235,200  235,200  100.0 %",
        "dense_1/kernel  300 × 100   30,000   15,000   50.0 %",
        "dense_2/kernel   100 × 10    1,000        0    0.0 %",
        "total                      266,200  250,200   94.0 %",
        "no weight remains in: dense_2/kernel",
    ]


def test_no_layers_have_density_one() -> None:
    assert (Masks({}).density, Masks({}).size, Masks({}).empty) == (1.0, 0, ())
    assert Masks({}) == Masks({}) and (Masks({}) & Masks({})) == Masks({})


def test_ones_takes_shapes_and_arrays_and_keeps_their_order() -> None:
    masks = Masks.ones({"z": (2, 3), "a": np.zeros(4), "m": [5], "s": ()})
    assert list(masks) == ["z", "a", "m", "s"]
    assert [masks[path].shape for path in masks] == [(2, 3), (4,), (5,), ()]
    assert masks.remaining == masks.size == 6 + 4 + 5 + 1


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.float16, np.float64, ml_dtypes.bfloat16])
def test_zeros_and_ones_of_any_number_type(dtype: type) -> None:
    assert Masks({"a": np.array([1, 0, 1], dtype)}) == Masks({"a": [True, False, True]})


@pytest.mark.parametrize("bad", [[0, 2], [0.5], [float("nan")], ["1"], [1j], [None], [-1]])
def test_anything_else_is_refused_by_path(bad: list) -> None:
    with pytest.raises(ValueError, match="'conv/kernel' must hold booleans or only 0 and 1"):
        Masks({"fine": [1], "conv/kernel": bad})


def test_a_path_is_a_string() -> None:
    with pytest.raises(TypeError, match="not 3"):
        Masks({3: [True]})


def test_values_are_private_and_read_only() -> None:
    given_array = np.array([True, False])
    masks = Masks({"a": given_array})
    given_array[:] = False
    assert masks.remaining == 1
    with pytest.raises(ValueError, match="read-only"):
        masks["a"][0] = False
    with pytest.raises(TypeError):
        masks["a"] = given_array


def test_equality_and_hash_go_by_content() -> None:
    a, b = np.array([[True, False]]), np.array([True])
    masks = Masks({"a": a, "b": b})
    assert masks == Masks({"b": b, "a": a}) and hash(masks) == hash(Masks({"b": b, "a": a}))
    assert masks.digest == Masks({"b": b, "a": a}).digest
    others = [Masks({"a": a}), Masks({"a": a.T, "b": b}), Masks({"a": a, "c": b}), Masks({"a": ~a, "b": b})]
    assert len({masks, *others}) == 5 == len({m.digest for m in [masks, *others]})
    assert masks != {"a": a, "b": b}


def test_digest_by_hand() -> None:
    # length and name of the path, its shape, then 101 with five 0 bits after it.
    expected = hashlib.sha256(b"1:a" + b"(3,)" + bytes([0b10100000])).hexdigest()
    assert Masks({"a": [1, 0, 1]}).digest == expected


@given(alike(3))
def test_algebra(masks: list[Masks]) -> None:
    a, b, c = masks
    assert ~~a == a and (a & a) == a == (a | a)
    assert ~(a & b) == (~a | ~b)
    assert (a & (b | c)) == ((a & b) | (a & c))
    assert (a | ~a) == Masks.ones(a) and (a & ~a).remaining == 0
    assert (a & b).remaining + (a | b).remaining == a.remaining + b.remaining
    assert list(a & b) == list(a)
    if a.remaining:
        both = sum(x and y for path in a for x, y in zip(a[path].flat, b[path].flat, strict=True))
        assert a.overlap(b) == both / a.remaining
        assert a.overlap(a) == 1.0 and a.overlap(~a) == 0.0
    else:
        assert math.isnan(a.overlap(b))


def test_operators_list_what_differs() -> None:
    a, b = Masks.ones({"x": (2,), "y": (3,)}), Masks.ones({"x": (3,), "z": (1,)})
    with pytest.raises(ValueError) as error:
        a & b
    assert "'x' has shape (2,), expected (3,)" in str(error.value)
    assert "'y' (3,) is unknown (the nearest is 'z')" not in str(error.value)  # y and z are not near
    assert "'z' (1,) is missing" in str(error.value)
    with pytest.raises(TypeError):
        a | {"x": 1}


def test_apply_keeps_dtypes_and_other_weights() -> None:
    masks = Masks({"k": [1, 0, 0]})
    bias = np.ones(2)
    for dtype in (np.float16, np.float32, ml_dtypes.bfloat16):
        weights = {"k": np.array([-1, np.inf, np.nan], dtype), "bias": bias}
        applied = masks.apply(weights)
        assert applied["k"].dtype == dtype and applied["k"].tolist() == [-1, 0, 0]
        assert applied["bias"] is bias and list(applied) == ["k", "bias"]
        assert np.isnan(weights["k"][2])
    assert not np.signbit(masks.apply({"k": np.array([-1.0, -2.0, -0.0])})["k"][1:]).any()


@pytest.mark.parametrize("weights", [{}, {"k": np.zeros((3, 1))}])
def test_apply_wants_every_masked_weight(weights: dict) -> None:
    with pytest.raises(ValueError, match=r"weight 'k' .* its mask has shape \(3,\)"):
        Masks({"k": [1, 0, 0]}).apply(weights)


@given(masks=MASKS)
def test_file_round_trip(masks: Masks, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("masks") / "m"
    masks.save(path)
    loaded = Masks.load(path)
    assert loaded == masks and list(loaded) == list(masks) and loaded.digest == masks.digest
    assert [m.shape for m in loaded.values()] == [m.shape for m in masks.values()]


def test_a_file_takes_a_bit_a_weight(tmp_path: Path) -> None:
    lenet().save(tmp_path / "m")
    assert 266_200 // 8 < (tmp_path / "m").stat().st_size < 266_200 // 8 + 2_000


def test_copies_and_pickles() -> None:
    masks = lenet(1000)
    assert copy.deepcopy({"m": masks})["m"] is masks and copy.copy(masks) is masks
    loaded = pickle.loads(pickle.dumps(masks))
    assert loaded == masks and not loaded["dense/kernel"].flags.writeable


# align -----------------------------------------------------------------------------------------------------------


def arrays(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {path: np.full(shape, index) for index, (path, shape) in enumerate(shapes.items())}


def test_align_by_path_also_a_subset_in_any_order() -> None:
    aligned = align(arrays(c=(3,), a=(1,)), {"a": (1,), "b": (2,), "c": (3,)}, what="masks")
    assert list(aligned) == ["a", "c"] and aligned["a"].tolist() == [1] and aligned["c"].tolist() == [0, 0, 0]


def test_align_by_order_when_the_whole_lists_of_shapes_agree() -> None:
    values = arrays(dense=(2, 3), dense_1=(3, 4))
    aligned = align(values, {"dense_3": (2, 3), "dense_4": (3, 4)}, what="weights")
    assert aligned["dense_3"] is values["dense"] and aligned["dense_4"] is values["dense_1"]
    # By order a's values would go to b, and b's to c.
    with pytest.raises(ValueError, match=r"some names are the same \(b\)"):
        match_paths({"a": (2,), "b": (2,)}, {"b": (2,), "c": (2,)}, what="weights")
    pairs = match_paths({"count": (), "a": (2,)}, {"count": (), "b": (2,)}, what="slots", some_match=True)
    assert pairs == {"count": "count", "b": "a"}


def test_align_refuses_and_lists_what_differs() -> None:
    with pytest.raises(ValueError) as error:
        align(arrays(dense=(2, 3), dense_1=(3, 4)), {"dense": (2, 3), "dense_2": (3, 5), "out": (5, 1)}, what="masks")
    text = str(error.value)
    assert text.startswith("these masks do not fit the model: ")
    assert "'dense_1' (3, 4) is unknown (the nearest is 'dense_2')" in text
    assert "'out' (5, 1) is missing" in text and "'dense'" not in text


@pytest.mark.parametrize(
    "targets",
    [
        {"x": (3, 2)},  # transposed
        {"x": (2, 3), "y": (3,)},  # one more
        {"a": (6,)},  # the path is known, its shape is another
    ],
)
def test_align_never_guesses(targets: dict) -> None:
    with pytest.raises(ValueError, match=r"'a'"):
        align(arrays(a=(2, 3)), targets, what="masks")


def test_align_shortens_long_lists() -> None:
    with pytest.raises(ValueError, match=r"and 12 more$"):
        align(arrays(**{f"old{i}": (1,) for i in range(10)}), {f"n{i}": (2,) for i in range(10)}, what="masks")


def test_no_tensorflow_is_imported() -> None:
    modules = "keras_lth.masks, keras_lth.files, keras_lth.selection, keras_lth.tickets"
    code = f"import sys, {modules}; print([m for m in ('tensorflow', 'keras', 'jax', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
