"""The size of the dense gradient: what RigL grows by (U. Evci et al., 2020)."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lth.surgery import dense_gradients


class Gradient:
    """Scores |∂L/∂w| of every prunable weight, pruned ones too.

    Args:
        include, exclude, also: which weights, as in `keras_lth.prunable`; None for all that are prunable by default.
    """

    def __init__(self, include: Any = None, exclude: Any = None, also: Any = None) -> None:
        self.include, self.exclude, self.also = include, exclude, also

    def __call__(self, model: Any, x: Any, y: Any) -> dict[str, np.ndarray]:
        """Scores of a model with a loss, {weight path: array of the weight's shape}."""
        found = dense_gradients(model, x, y, include=self.include, exclude=self.exclude, also=self.also)
        return {path: np.abs(array) for path, array in found.items()}
