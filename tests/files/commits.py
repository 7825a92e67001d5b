"""Checkpoints for the tests: what is saved at a step, and what must come back."""

from __future__ import annotations

import math
from pathlib import Path

import ml_dtypes
import numpy as np

from keras_lth import files
from keras_lth.files.checkpoints import Checkpoints

PARTS = ("safetensors", "state.json", "manifest.json")


def value(step: int) -> tuple[dict[str, np.ndarray], dict]:
    arrays = {
        "weights/b": np.full((2, 3), step, np.float32),
        "masks/a": np.arange(7) % 3 == step % 3,
        "seeds/s": np.array([step, 2**63], np.uint64),
        "half": np.array([1.5, -0.0, np.nan, step], ml_dtypes.bfloat16),
        "scalar": np.float64(step / 3),
        "none": np.zeros((0, 4), np.int8),
    }
    return arrays, {"step": step, "nested": {"é": [1, None, 0.1 + step, math.inf]}, "done": False}


def save(store: Checkpoints, *steps: int) -> None:
    for step in steps:
        store.save(step, *value(step))


def same(found: files.Checkpoint | None, step: int) -> None:
    assert found is not None
    arrays, state = value(step)
    assert found.step == step and found.state == state and list(found.arrays) == list(arrays)
    for name, array in arrays.items():
        other = found.arrays[name]
        assert (other.dtype, other.shape, other.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert not other.flags.writeable


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def of(*commits: tuple[int, int]) -> set[str]:
    return {f"{number:06d}_step_{step}.{part}" for number, step in commits for part in PARTS}
