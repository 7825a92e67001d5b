"""Another criterion, upside down: an ablation (Frankle's thesis, 5.7.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lth.criteria.scorer import Repeatable, Scorer
from keras_lth.masks import Masks


def inverted(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the greatest |s| of all minus |s|, float64: selection ranks by absolute values."""
    values = {path: np.abs(np.asarray(each, float)) for path, each in scores.items()}
    top = max(float(each.max(initial=0.0)) for each in values.values())
    return {path: top - each for path, each in values.items()}


class Inverted(Repeatable):
    """Scores that rank weights the other way round than another criterion: what that finds best is pruned first.

    Args:
        criterion: one of this package that scores a network at many masks, such as `SNIP` or `SynFlow`.

    Raises:
        TypeError: another criterion; use `inverted` of its scores.
    """

    def __init__(self, criterion: Repeatable) -> None:
        if not isinstance(criterion, Repeatable):
            raise TypeError(f"{criterion!r} scores a network once: use inverted(criterion(model)).")
        super().__init__(criterion.include, criterion.exclude, criterion.also)
        self.criterion, self.revives = criterion, criterion.revives

    def __call__(self, model: keras.Model, x: Any = None, y: Any = None) -> dict[str, np.ndarray]:
        """Scores of a built model, {weight path: array of the weight's shape}."""
        return self.scores(model, x, y)

    def scorer(self, model: keras.Model, weights: Mapping[str, Any], x: Any, y: Any) -> Scorer:
        """Return the scores as a function of masks."""
        score = self.criterion.scorer(model, weights, x, y)

        def scores(masks: Masks) -> dict[str, np.ndarray]:
            return inverted(score(masks))

        return scores
