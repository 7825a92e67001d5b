"""Magnitude pruning: the score of a weight is |w| (Frankle's thesis, 3.1.3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lth.surgery import prunable, whole


class Magnitude:
    """Scores |w|, in the dtype of the variable.

    Args:
        include, exclude, also: which weights, as in `keras_lth.prunable`; None for all that are prunable by default.
    """

    def __init__(self, include: Any = None, exclude: Any = None, also: Any = None) -> None:
        self.include, self.exclude, self.also = include, exclude, also

    def __call__(self, model: Any) -> dict[str, np.ndarray]:
        """Scores of a built model, {weight path: array of the weight's shape}."""
        with whole(model):
            weights = prunable(model, self.include, self.exclude, self.also)
            return {path: np.abs(variable.numpy()) for path, variable in weights.items()}
