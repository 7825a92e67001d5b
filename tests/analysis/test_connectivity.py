from __future__ import annotations

import json
import math
import subprocess
import sys

import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lth import surgery
from keras_lth.analysis import (
    Comparison,
    Path,
    Predictions,
    cosine,
    differences,
    error_barrier,
    figure,
    instability,
    interpolate,
    is_stable,
    l2,
    linear_path,
    summary,
    travelled,
)
from keras_lth.analysis.comparison import mean_barriers
from keras_lth.masks import Masks
from keras_lth.tickets import Snapshot, Ticket
from tests.forms import examples

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
arrays = hnp.arrays(np.float32, 7, elements=floats)


@settings(max_examples=examples(150), deadline=None)
@given(arrays, arrays, st.floats(0, 1), hnp.arrays(bool, 7))
def test_interpolate_keeps_ends_equal_values_and_zeros(a, b, alpha, pruned):
    a, b = np.where(pruned, np.float32(0), a), np.where(pruned, np.float32(0), b)
    assert interpolate({"w": a}, {"w": b}, 1)["w"].tobytes() == a.tobytes()
    assert interpolate({"w": a}, {"w": b}, 0)["w"].tobytes() == b.tobytes()
    assert interpolate({"w": a}, {"w": a}, alpha)["w"].tobytes() == a.tobytes()
    mixed = interpolate({"w": a}, {"w": b}, alpha)["w"]
    assert mixed.dtype == np.float32
    assert not mixed[pruned].any()
    exact = [float(alpha) * float(x) + (1 - float(alpha)) * float(y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(mixed, np.array(exact), rtol=1e-6, atol=1e-38)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_interpolate_is_in_the_dtype(dtype):
    a, b = np.array([1, -0.0, 3], dtype), np.array([2, 0.0, -5], dtype)
    mixed = interpolate({"w": a}, {"w": b}, 0.25)["w"]
    assert mixed.dtype == a.dtype
    assert mixed.astype(float).tolist() == [1.75, 0.0, -3.0]
    assert interpolate({"w": a}, {"w": b}, 1)["w"].tobytes() == a.tobytes()


def test_integers_are_of_the_first_and_statistics_as_asked():
    a = {
        "n": np.array(3),
        "bn/moving_mean": np.array([0.0]),
        "bn/moving_variance": np.array([1.0]),
        "w": np.array([0.0]),
    }
    b = {
        "n": np.array(7),
        "bn/moving_mean": np.array([4.0]),
        "bn/moving_variance": np.array([9.0]),
        "w": np.array([8.0]),
    }

    def at(alpha, statistics):
        return [float(np.ravel(v)[0]) for v in interpolate(a, b, alpha, statistics).values()]

    assert at(0.25, "interpolate") == [3, 3, 7, 6]
    assert at(0.25, "first") == [3, 0, 1, 6]
    assert at(0.25, "second") == [3, 4, 9, 6]
    assert at(0, "first") == [7, 0, 1, 8]
    assert at(1, "second") == [3, 4, 9, 0]


def test_interpolate_refuses():
    a = {"w": np.zeros(2)}
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], not 1.5"):
        interpolate(a, a, 1.5)
    assert interpolate({"w": np.ones(1)}, {"w": np.zeros(1)}, 1.5, extrapolate=True)["w"] == 1.5
    with pytest.raises(ValueError, match="extrapolate=True"):
        interpolate(a, a, -0.1)
    with pytest.raises(ValueError, match="'mean'"):
        interpolate(a, a, 0.5, "mean")
    with pytest.raises(ValueError, match=r"'w'.*\(3,\)"):
        interpolate(a, {"w": np.zeros(3)}, 0.5)
    with pytest.raises(ValueError, match="float32"):
        interpolate(a, {"w": np.zeros(2, np.float32)}, 0.5)
    with pytest.raises(ValueError, match="v"):
        interpolate({"w": np.zeros(2), "v": np.zeros(1)}, a, 0.5)
    with pytest.raises(TypeError, match="list"):
        interpolate([1], a, 0.5)


def test_a_quadratic_has_the_closed_form_along_the_line():
    rng = np.random.default_rng(0)
    a, b, center = rng.normal(size=(3, 5))
    path = linear_path({"w": a}, {"w": b}, lambda w: float(np.sum((w["w"] - center) ** 2)), points=9)
    # |αa + (1 − α)b − c|² = α|a − c|² + (1 − α)|b − c|² − α(1 − α)|a − b|²: convex, its highest point is an end.
    ea, eb, gap = (float(np.sum(v**2)) for v in (a - center, b - center, a - b))
    expected = [t * ea + (1 - t) * eb - t * (1 - t) * gap for t in path.alphas]
    np.testing.assert_allclose(path.errors, expected, rtol=1e-12)
    assert path.alphas == tuple(i / 8 for i in range(9))
    np.testing.assert_allclose(path.barrier, abs(ea - eb) / 2, rtol=1e-12)
    np.testing.assert_allclose(path.endpoints, (eb, ea), rtol=1e-12)


def test_two_wells_have_the_barrier_between_them():
    # (w² − 1)² has wells at ±1 with error 0 and a barrier of 1 at 0; from −1 to 2, ends 0 and 9, it is 9 − 4.5.
    def well(w):
        return float((w["w"][0] ** 2 - 1) ** 2)

    path = linear_path({"w": np.array([1.0])}, {"w": np.array([-1.0])}, well, points=31)
    assert path.barrier == pytest.approx(1, abs=1e-12)
    assert path.highest[0] == pytest.approx(0.5)
    assert path.endpoints == (0, 0)
    assert not path.stable()
    assert path.stable(threshold=1.5)
    assert linear_path({"w": np.array([2.0])}, {"w": np.array([-1.0])}, well).barrier == pytest.approx(4.5)


def test_thirty_points_and_identical_ends():
    a = Snapshot({"w": np.array([0.1, 0.7], np.float32)})
    path = linear_path(a, a, lambda w: float(np.sum(np.sin(w["w"]))))
    assert len(path.alphas) == 30
    assert path.barrier == 0.0
    assert set(path.errors) == {float(np.sum(np.sin(a.weights["w"])))}
    assert path.stable(1e-300)


def test_error_barrier_of_numbers():
    assert error_barrier([0.1, 0.5, 0.3]) == pytest.approx(0.3)
    assert error_barrier([0.3, 0.1, 0.3]) == 0
    assert error_barrier([0.0, math.inf, 0.0]) == math.inf
    for wrong in ([0.1], []):
        with pytest.raises(ValueError, match=f"ends, not {len(wrong)}"):
            error_barrier(wrong)


def test_nan_is_a_gap_and_is_never_averaged_away():
    """The barrier is not known, so neither is the mean of pairs, and neither is stable."""
    for errors in ([0.1, math.nan, 0.1], [math.inf, 0.1, 0.1], [math.nan, 0.1, 0.1]):
        assert math.isnan(error_barrier(errors))
        assert not is_stable(errors)
    path = Path((0, 0.5, 1), (0.1, math.nan, 0.1))
    assert path.gaps == (0.5,) and not path.stable() and "NaN at 1 of 3" in str(path)
    assert path.highest == (0, 0.1)
    ends = [{"w": np.array([float(i)])} for i in range(3)]
    assert math.isnan(instability(ends, lambda w: math.nan if w["w"] > 1.2 else 0.1))
    known = Comparison((0, 1), "test", Path((0, 1), (0.1, 0.1)), 0.0, 0.0)
    unknown = Comparison((0, 2), "test", path, 0.0, 0.0)
    assert math.isnan(mean_barriers([known, unknown])["test"]) and "NaN" in summary([known, unknown])
    assert figure([known, unknown]) is not None


def test_the_margin_is_below_two_points():
    assert not Path((0, 0.5, 1), (0.0, 0.02, 0.0)).stable()
    assert Path((0, 0.5, 1), (0.0, 0.0199, 0.0)).stable()


def test_path_goes_through_json():
    path = Path((0, 0.5, 1), (0.1, 0.2, 0.3), "first", "1 − accuracy")
    row = json.loads(json.dumps(path.as_dict()))
    assert row["endpoints"] == [0.1, 0.3]
    assert Path.from_dict(row) == path
    assert "those of the first network" in str(path)
    with pytest.raises(ValueError, match="0 to 1"):
        Path((0, 0.5), (0.1, 0.2))
    with pytest.raises(ValueError, match="batchnorm"):
        Path((0, 1), (0.1, 0.2), "batchnorm")


@pytest.mark.parametrize("points", [1, 0, -3, 2.5, True])
def test_points_are_at_least_the_ends(points):
    with pytest.raises(ValueError, match="points must be an integer ≥ 2"):
        linear_path({"w": np.zeros(1)}, {"w": np.zeros(1)}, lambda w: 0.0, points=points)


def test_linear_path_says_what_is_missing():
    a = {"w": np.zeros(1)}
    with pytest.raises(ValueError, match="both model and data"):
        linear_path(a, a)
    with pytest.raises(ValueError, match="train_data"):
        linear_path(a, a, model=object(), data=object(), statistics="reestimate")
    with pytest.raises(ValueError, match="evaluate cannot re-estimate"):
        linear_path(a, a, lambda w: 0.0, statistics="reestimate")
    with pytest.raises(ValueError, match="'mean'"):
        linear_path(a, a, lambda w: 0.0, statistics="mean")
    with pytest.raises(ValueError, match="not both"):
        linear_path(a, a, lambda w: 0.0, model=object())


def test_distances_by_hand():
    a = {"w": np.array([[3.0, 0.0]], np.float32), "bn/moving_mean": np.array([100.0]), "n": np.array(5)}
    b = {"w": np.array([[0.0, 4.0]], np.float32), "bn/moving_mean": np.array([0.0]), "n": np.array(6)}
    assert l2(a, b) == 5
    assert cosine(a, b) == 1
    assert l2(a, a) == cosine(a, a) == 0
    minus = {**a, "w": -a["w"]}
    assert cosine(a, minus) == 2
    with pytest.raises(ValueError, match="all 0"):
        cosine(a, {**a, "w": np.zeros_like(a["w"])})


def test_distances_are_those_of_float64():
    rng = np.random.default_rng(0)
    a, b = ({"w": rng.normal(size=(40, 50)).astype(np.float32), "b": rng.normal(size=9)} for _ in range(2))
    x, y = (np.concatenate([np.float64(each["w"]).ravel(), each["b"]]) for each in (a, b))
    assert l2(a, b) == pytest.approx(np.linalg.norm(x - y), rel=1e-12)
    assert cosine(a, b) == pytest.approx(1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)


def ticket(kept, values):
    return Ticket(Masks({"w": np.array(kept, bool)}), Snapshot({"w": np.array(values, np.float32), "b": np.ones(1)}))


def test_tickets_are_masked_and_different_masks_are_a_question():
    a, b = ticket([1, 1, 0, 0], [3, 4, 9, 9]), ticket([1, 0, 1, 1], [0, 7, 5, 6])
    assert l2(a, ticket([1, 1, 0, 0], [0, 0, 5, 5])) == 5
    assert interpolate(a, a, 0.5)["w"].tolist() == [3, 4, 0, 0]
    with pytest.raises(ValueError, match=r"w: 1 .*first, 2 .*second.*a.masks & b.masks.*a.masks \| b.masks"):
        l2(a, b)
    assert l2(a, b, a.masks & b.masks) == 3
    # With the union each network has all of its own weights there, also those that its ticket prunes.
    assert l2(a, b, a.masks | b.masks) == pytest.approx((9 + 9 + 16 + 9) ** 0.5)
    with pytest.raises(ValueError, match="masks"):
        l2(a, b, {"v": np.ones(4, bool)})


def test_how_far_weights_travel():
    """From 0 by (3, 4) to k, then to ends at (3, 4) ± (0, 12)."""
    ends = [{"w": np.array([3.0, 16.0])}, {"w": np.array([3.0, -8.0])}]
    found = travelled({"w": np.zeros(2)}, {"w": np.array([3.0, 4.0])}, ends)
    assert (found.init_to_k, found.k_to_end, found.between_ends) == (5, 12, 24)
    assert found.init_to_end == pytest.approx((265**0.5 + 73**0.5) / 2)
    assert found.share == pytest.approx(24 / found.init_to_end)
    assert math.isnan(travelled({"w": np.zeros(1)}, {"w": np.ones(1)}, ends=[{"w": np.ones(1)}]).between_ends)
    with pytest.raises(ValueError, match="at least one end"):
        travelled({"w": np.zeros(1)}, {"w": np.ones(1)}, [])


def test_classifications_of_a_known_table():
    """Six examples: three are classified differently; two errors and three, so at most five could be."""
    labels = np.array([0, 1, 2, 0, 1, 2])
    a = Predictions(labels, np.array([0, 1, 2, 0, 0, 0]), np.zeros(6))
    b = Predictions(labels, np.array([0, 1, 1, 1, 0, 1]), np.array([0, 0, 3, 0, 4, 0.0]))
    found = differences(a, b)
    assert (a.errors, b.errors) == (2, 4) and found == (3, 6, 5.0) and found.share == 0.5
    right = Predictions(labels, labels, np.zeros(6))
    assert differences(right, right) == (0, 0, 0.0) and differences(right, right).share == 0
    with pytest.raises(ValueError, match="same data"):
        differences(a, Predictions(labels[:3], labels[:3], np.zeros(3)))
    with pytest.raises(ValueError, match="one value for each example"):
        Predictions(labels, labels, np.zeros(5))


def test_instability_is_the_mean_over_pairs():
    """(w² − 1)² from ±1 and 3: barriers 1, 0 from 1 to 3 is 64 − 32, and 64 − 32 from −1 to 3."""

    def well(w):
        return float((w["w"][0] ** 2 - 1) ** 2)

    ends = [{"w": np.array([value])} for value in (1.0, -1.0, 3.0)]
    assert instability(ends, well, points=31) == pytest.approx((1 + 32 + 32) / 3)
    assert instability([ends[0]] * 3, well) == 0.0
    with pytest.raises(ValueError, match="at least 2 ends, not 1"):
        instability(ends[:1], well)


def test_a_linear_network_of_two_layers():
    """x ↦ v·w·x for target 1: from (2, ½) to (½, 2) the product is (2α + ½(1 − α))(½α + 2(1 − α)), at most 25/16."""

    def loss(w):
        return float((w["v"] * w["w"] - 1) ** 2)

    a, b = ({"v": np.array(v), "w": np.array(1 / v)} for v in (2.0, 0.5))
    path = linear_path(a, b, loss, points=5)
    expected = [((0.5 + 1.5 * t) * (2 - 1.5 * t) - 1) ** 2 for t in path.alphas]
    np.testing.assert_allclose(path.errors, expected, rtol=1e-12)
    assert path.barrier == pytest.approx((9 / 16) ** 2) and path.highest[0] == 0.5


def test_a_snapshot_of_another_instance_will_do():
    def model():
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])

    one, two = surgery.snapshot(model()), surgery.snapshot(model())
    mixed = interpolate(one, two, 0.5)
    expected = (one.weights["dense/kernel"].astype(float) + two.weights["dense/kernel"]) / 2
    np.testing.assert_allclose(mixed["dense/kernel"], expected, rtol=1e-6, atol=1e-9)


def test_the_pure_part_loads_no_tensorflow():
    code = (
        "import sys, keras_lth.analysis.connectivity; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
