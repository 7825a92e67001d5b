"""Distances between the weights of two networks (thesis 4.1.5), and checks that they can be compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_lth.masks import align
from keras_lth.tickets import Snapshot

STATISTICS = ("moving_mean", "moving_variance")


def l2(a: Snapshot | Mapping[str, Any], b: Snapshot | Mapping[str, Any]) -> float:
    """Return the Euclidean distance of the floating weights of two networks, without normalisation statistics."""
    return math.sqrt(sum(float(np.sum(np.square(x - y))) for x, y in _pairs(a, b)))


def cosine(a: Snapshot | Mapping[str, Any], b: Snapshot | Mapping[str, Any]) -> float:
    """Return the cosine distance of the floating weights, 1 − a·b / (|a| |b|) in [0, 2], without statistics.

    Raises ``ValueError`` if all weights of one network are 0.
    """
    dot = aa = bb = 0.0
    for x, y in _pairs(a, b):
        dot, aa, bb = dot + float(np.sum(x * y)), aa + float(np.sum(x * x)), bb + float(np.sum(y * y))
    if aa == 0 or bb == 0:
        raise ValueError("The cosine distance is not defined for a network whose weights are all 0.")
    return 1 - max(-1.0, min(1.0, dot / math.sqrt(aa * bb)))


def is_statistic(path: str) -> bool:
    """Return whether a variable is a running moment of a normalisation, named moving_mean or moving_variance."""
    return path.rsplit("/", 1)[-1] in STATISTICS


def is_floating(dtype: Any) -> bool:
    """Return whether a dtype is floating, including those of ``ml_dtypes``."""
    return "float" in np.dtype(dtype).name


def weights_of(value: Snapshot | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the weights of a snapshot, or of a mapping from path to array."""
    if isinstance(value, Snapshot):
        return dict(value.weights)
    if isinstance(value, Mapping):
        return {path: np.asarray(array) for path, array in value.items()}
    raise TypeError(f"Pass a Snapshot or a mapping from path to array, not {type(value).__name__}.")


def both(
    a: Snapshot | Mapping[str, Any], b: Snapshot | Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the weights of two networks of one architecture under the paths of the first.

    Raises ``ValueError`` that lists differences in paths, shapes or dtypes.
    """
    first, second = weights_of(a), weights_of(b)
    shapes = {path: array.shape for path, array in first.items()}
    aligned = align(second, shapes, what="weights of the second network")
    missing = [path for path in first if path not in aligned]
    if missing:
        raise ValueError(f"The second network has no {', '.join(missing)}.")
    for path, array in first.items():
        if array.dtype != aligned[path].dtype:
            raise ValueError(f"{path} is {array.dtype} in the first network and {aligned[path].dtype} in the second.")
    return first, aligned


def _pairs(a: Any, b: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    first, second = both(a, b)
    for path, array in first.items():
        if is_floating(array.dtype) and not is_statistic(path):
            yield array.astype(np.float64), second[path].astype(np.float64)
