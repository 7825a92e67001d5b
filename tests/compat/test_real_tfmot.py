"""Beside real TFMOT, where it is installed: the same masks at the same steps of the same weights, bit by bit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth.compat import tfmot
from keras_lth.compat.tfmot.marks import marked
from tests.environments import environment, requirements, supported

PROGRAM = Path(__file__).with_name("tfmot_program.py")
pytestmark = pytest.mark.proof
OURS = {
    "polynomial": {"pruning_schedule": tfmot.PolynomialDecay(0.2, 0.9, 2, 20, frequency=3)},
    "constant": {"pruning_schedule": tfmot.ConstantSparsity(0.55, 3, 18, 5)},
    "average": {"pruning_schedule": tfmot.ConstantSparsity(0.6, 1, frequency=4), "block_size": (2, 3)},
    "largest": {
        "pruning_schedule": tfmot.PolynomialDecay(0.1, 0.7, 1, 20, 2, 4), "block_size": (5, 2),
        "block_pooling_type": "MAX",
    },
    "two_of_four": {"sparsity_m_by_n": (2, 4)},
}  # fmt: skip


def network() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((10,)), layers.Dense(15, "relu"), layers.BatchNormalization(), layers.Dense(4)]
    )


@pytest.mark.parametrize("tensorflow", supported())
@pytest.mark.parametrize("setting", OURS)
def test_the_same_masks_and_files(setting: str, tensorflow: str, tmp_path: Path) -> None:
    python = environment(*requirements(tensorflow))
    ours = network()
    tfmot.save_weights(ours, tmp_path / "ours.h5")
    done = subprocess.run([python, str(PROGRAM), setting, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = np.load(tmp_path / "steps.npz")
    model = tfmot.prune_low_magnitude(network(), **OURS[setting])
    marks = [mark for _, mark in marked(model).values()]
    masks = [np.ones((10, 15), bool), np.ones((15, 4), bool)]
    changes = 0
    for step in range(1, 25):
        for number, mark in enumerate(marks):
            if mark.due(step):
                masks[number] = mark.mask(theirs[f"weight/{number}/{step}"], step)
                changes += 1
            np.testing.assert_array_equal(masks[number], theirs[f"mask/{number}/{step}"] != 0, str((setting, step)))
    assert changes >= 2
    # A model that TFMOT pruned comes in: by its masks, and, stripped, by its zeros.
    for name in ("pruned.h5", "stripped.h5"):
        found = tfmot.load_weights(model, tmp_path / name)
        for mask, expected in zip(found.values(), masks, strict=True):
            np.testing.assert_array_equal(mask, expected)
    assert lth.masks_of(model) == found
    # Ours goes there.
    read = np.load(tmp_path / "read.npz")
    for a, b in zip(ours.get_weights(), read.values(), strict=True):
        np.testing.assert_array_equal(a, b)
