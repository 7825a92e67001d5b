"""Data sets from arrays of a user's own, also from an .npz file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from keras_lth.datasets.images import Splits

NAMES = ("x_train", "y_train", "x_test", "y_test")


def from_arrays(x_train: Any, y_train: Any, x_test: Any, y_test: Any, *, source: str = "from_arrays") -> Splits:
    """Make `Splits` of arrays: x of shape (n, …), as float32; y of shape (n,), classes 0, 1, 2, …, as int32.

    Images have shape (n, height, width, channels). The number of classes is the highest label + 1.

    Args:
        x_train, y_train: the training examples.
        x_test, y_test: the test examples, of the same shape.
        source: what errors name, such as a file.

    Raises:
        ValueError: lengths or shapes that differ, no examples, or labels that are not classes; gives the shapes.
    """
    x, y, x_test, y_test = map(np.asarray, (x_train, y_train, x_test, y_test))
    shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(NAMES, (x, y, x_test, y_test), strict=True))
    if not len(x) == len(y) > 0 or not len(x_test) == len(y_test) > 0 or x.shape[1:] != x_test.shape[1:]:
        raise ValueError(f"{source}: the lengths or shapes do not fit: {shapes}.")
    if y.ndim != 1 or y_test.ndim != 1:
        raise ValueError(f"{source}: y_train and y_test must hold a class 0, 1, 2, … for each example: {shapes}.")
    given = np.concatenate([y, y_test])
    labels = given.astype(np.int32)
    if labels.min() < 0 or not np.array_equal(labels, given):
        raise ValueError(
            f"{source}: y_train and y_test must hold a class 0, 1, 2, … for each example; y_train is {y.dtype} of "
            f"{y.shape}."
        )
    train, test = labels[: len(y)], labels[len(y) :]
    return Splits((x.astype(np.float32), train), (x_test.astype(np.float32), test), int(labels.max()) + 1)


def npz(path: str | os.PathLike[str]) -> Splits:
    """Load an .npz file with x_train, y_train, x_test and y_test, as `from_arrays` takes them.

    Raises:
        ValueError: an array is missing, or as in `from_arrays`; names the file.
    """
    name = os.fspath(path)
    with np.load(name, allow_pickle=False) as held:
        missing = [key for key in NAMES if key not in held]
        if missing:
            raise ValueError(f"{name} has no {', '.join(missing)}: save it with np.savez(path, x_train=…, …).")
        return from_arrays(*(held[key] for key in NAMES), source=name)
