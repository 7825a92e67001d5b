"""Repair of initial values: what remains of a kernel becomes as near to an isometry as its mask allows."""

from __future__ import annotations

import numpy as np
import pytest

import keras_lth as lth
from keras_lth.isometry import defect, isometric

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (3, 3, 2, 4)])
def test_a_dense_kernel_becomes_an_isometry(shape: tuple[int, ...]) -> None:
    weight = RNG.normal(size=shape).astype("float32")
    found = isometric({"a": weight, "bias": np.ones(3)}, lth.Masks({"a": np.ones(shape)}), tolerance=1e-12)
    values = np.linalg.svd(found["a"].reshape(-1, shape[-1]), compute_uv=False)
    np.testing.assert_allclose(values, 1, atol=1e-4)
    assert found["a"].dtype == np.float32 and found["bias"].tolist() == [1, 1, 1]


def test_closed_forms_and_descent() -> None:
    # One weight for each output: ±1, the sign that it had.
    mask = np.eye(4, dtype=bool)[:, ::-1]
    weight = RNG.normal(size=(4, 4))
    found = isometric({"a": weight}, lth.Masks({"a": mask}), tolerance=0)["a"]
    np.testing.assert_allclose(found[mask], np.sign(weight[mask]), atol=1e-6)
    # Two outputs that read the same input alone cannot both be isometric: a² + b² = 1 is as near as they come.
    shared = isometric({"a": np.array([[2.0, 0.5]])}, lth.Masks({"a": np.ones((1, 2))}), tolerance=0)["a"]
    assert np.sum(shared**2) == pytest.approx(1)
    mask = RNG.random((40, 20)) < 0.3
    weight = np.where(mask, RNG.normal(size=mask.shape) * 0.3, 0)
    near = [defect(isometric({"a": weight}, lth.Masks({"a": mask}), iterations=n)["a"]) for n in (1, 10, 100)]
    assert defect(weight) > near[0] > near[1] > near[2]
    repaired = isometric({"a": weight}, lth.Masks({"a": mask}))["a"]
    assert not repaired[~mask].any()
    # At the minimum the gradient vanishes on what remains.
    gradient = repaired @ (repaired.T @ repaired - np.eye(20))
    assert np.abs(gradient[mask]).max() < 0.02 * np.abs(weight @ (weight.T @ weight - np.eye(20)))[mask].max()


def test_bad_input_is_said() -> None:
    with pytest.raises(ValueError, match="'a' is missing"):
        isometric({}, lth.Masks({"a": np.ones((2, 2))}))
    with pytest.raises(ValueError, match=r"'a'.*\(3,\)"):
        isometric({"a": np.ones(3)}, lth.Masks({"a": np.ones(3)}))
    with pytest.raises(ValueError, match=r"'a'.*finite"):
        isometric({"a": np.full((2, 2), np.nan)}, lth.Masks({"a": np.ones((2, 2))}))
    with pytest.raises(ValueError, match=r"iterations.*0"):
        isometric({"a": np.ones((2, 2))}, lth.Masks({"a": np.ones((2, 2))}), iterations=0)
