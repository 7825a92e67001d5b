"""Mask criteria of two values of each weight, before and after training (H. Zhou et al., 2019, table 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from keras_lth.selection import uniform

__all__ = ["CRITERIA", "change_scores"]

Array = np.ndarray


def _scale(before: Array, after: Array) -> float:
    """The factor α that brings final values to the size of initial ones."""
    return float(np.std(before) / (np.std(after) or 1.0))


_OF: Mapping[str, Callable[[Array, Array], Array]] = {
    "large_final": lambda before, after: np.abs(after),
    "small_final": lambda before, after: -np.abs(after),
    "large_init": lambda before, after: np.abs(before),
    "small_init": lambda before, after: -np.abs(before),
    "large_init_large_final": lambda before, after: np.minimum(_scale(before, after) * np.abs(after), np.abs(before)),
    "small_init_small_final": lambda before, after: -np.maximum(_scale(before, after) * np.abs(after), np.abs(before)),
    "magnitude_increase": lambda before, after: np.abs(after) - np.abs(before),
    "movement": lambda before, after: np.abs(after - before),
    "large_final_same_sign": lambda before, after: np.maximum(0.0, after * np.sign(before)),
    "large_final_diff_sign": lambda before, after: np.maximum(0.0, -after * np.sign(before)),
}
CRITERIA = (*_OF, "random")


def change_scores(
    criterion: str, before: Mapping[str, Array], after: Mapping[str, Array], seed: int
) -> dict[str, Array]:
    """Return scores, at least 0, of the weights in ``before`` and ``after``; the highest remain.

    Raises:
        ValueError: an unknown criterion.
    """
    if criterion == "random":
        return {path: uniform(seed, path, array.shape) for path, array in before.items()}
    if criterion not in _OF:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, not {criterion!r}")
    pairs = {path: (before[path].astype(np.float64), after[path].astype(np.float64)) for path in before}
    scores = {path: _OF[criterion](*pair) for path, pair in pairs.items()}
    # A cut compares magnitudes: the same order, from 0 on.
    least = min(float(array.min()) for array in scores.values())
    return {path: array - min(least, 0.0) for path, array in scores.items()}
