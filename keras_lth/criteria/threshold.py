"""A threshold for each layer in proportion to the spread of its weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lth.surgery import prunable, whole


class Threshold:
    """Scores |w| / σ, σ the standard deviation of the layer's remaining weights (S. Han et al., 2015, section 4).

    ``lth.select(scores, threshold=1.0)`` removes all weights below one σ of their layer, as they do with a quality
    parameter of 1.

    Args:
        include, exclude, also: which weights, as in `keras_lth.prunable`; None for all that are prunable by default.
    """

    def __init__(self, include: Any = None, exclude: Any = None, also: Any = None) -> None:
        self.include, self.exclude, self.also = include, exclude, also

    def __call__(self, model: Any) -> dict[str, np.ndarray]:
        """Scores of a built model, {weight path: float64 array of the weight's shape}."""
        with whole(model):
            weights = prunable(model, self.include, self.exclude, self.also)
            return {path: _standard(np.asarray(variable.numpy(), np.float64)) for path, variable in weights.items()}


def _standard(value: np.ndarray) -> np.ndarray:
    remaining = value[value != 0]
    spread = float(remaining.std()) if remaining.size else 0.0
    return np.abs(value) / (spread or 1.0)
