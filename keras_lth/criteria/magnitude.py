"""Magnitude pruning: the score of a weight is |w| (Frankle's thesis, 3.1.3)."""

from __future__ import annotations

from typing import Any

import numpy as np


class Magnitude:
    """Scores |w|, in the dtype of the variable.

    Args:
        include: regex, list of regex or callable(path, variable) → bool: only these weights; None for all prunable.
        exclude: the same, weights to leave out.
    """

    def __init__(self, include: Any = None, exclude: Any = None) -> None:
        self.include, self.exclude = include, exclude

    def __call__(self, model: Any) -> dict[str, np.ndarray]:
        """Scores of a built model, {weight path: array of the weight's shape}."""
        from keras_lth.surgery import prunable

        weights = prunable(model, include=self.include, exclude=self.exclude)
        return {path: np.abs(variable.numpy()) for path, variable in weights.items()}
