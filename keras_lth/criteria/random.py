"""Random pruning: the score of a weight is drawn from U(0, 1) (Frankle's thesis, 3.1.4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lth import arguments
from keras_lth.selection import uniform
from keras_lth.surgery import prunable, whole


class Random:
    """Scores from U(0, 1), a function of (seed, path, position) alone: the same on every host.

    Args:
        seed: an int.
        include, exclude, also: which weights, as in `keras_lth.prunable`; None for all that are prunable by default.
    """

    def __init__(self, seed: int, include: Any = None, exclude: Any = None, also: Any = None) -> None:
        self.seed = arguments.whole(seed, "seed")
        self.include, self.exclude, self.also = include, exclude, also

    def __call__(self, model: Any) -> dict[str, np.ndarray]:
        """Scores of a built model, {weight path: float64 array of the weight's shape}."""
        with whole(model):
            weights = prunable(model, self.include, self.exclude, self.also)
            return {path: uniform(self.seed, path, tuple(variable.shape)) for path, variable in weights.items()}
