"""Criteria that score a network at many masks with one trace: what `prune_iteratively` asks for."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_lth.masks import Masks
from keras_lth.names import listed
from keras_lth.surgery import masks_of, prunable, whole

__all__ = ["Repeatable", "Scorer", "tell_missing_classes"]

# Masks → the scores of the network that they keep.
Scorer = Callable[[Masks], dict[str, np.ndarray]]


class Repeatable(ABC):
    """A criterion whose `scorer` is traced once.

    Args:
        include, exclude, also: which weights, as in `keras_lth.prunable`; None for all that are prunable by default.

    Attributes:
        revives: whether weights that one iteration has pruned may remain in the next one (FORCE).
    """

    revives = False

    def __init__(self, include: Any = None, exclude: Any = None, also: Any = None) -> None:
        self.include, self.exclude, self.also = include, exclude, also

    @abstractmethod
    def scorer(self, model: keras.Model, weights: Mapping[str, Any], x: Any, y: Any) -> Scorer:
        """Return a function of masks over ``weights`` (path → variable), for a model that is whole."""

    def start(self, model: keras.Model, x: Any = None, y: Any = None) -> tuple[Scorer, Masks]:
        """Return the scorer of a whole model, and its current masks over the weights that are scored."""
        weights = prunable(model, self.include, self.exclude, self.also)
        current = masks_of(model)
        ones = Masks.ones({path: tuple(variable.shape) for path, variable in weights.items()})
        masks = Masks({path: current.get(path, ones[path]) for path in weights}) if current else ones
        return self.scorer(model, weights, x, y), masks

    def scores(self, model: keras.Model, x: Any = None, y: Any = None) -> dict[str, np.ndarray]:
        """Scores of a built model, {weight path: array of the weight's shape}; the model does not change."""
        with whole(model, run=True):
            score, masks = self.start(model, x, y)
            return score(masks)


def tell_missing_classes(model: keras.Model, y: Any) -> None:
    """Warn if labels of classification lack some of the classes that ``model`` tells apart."""
    shape = getattr(model, "output_shape", None)
    if y is None or not isinstance(shape, tuple) or not shape or not shape[-1]:
        return
    labels, classes = np.asarray(y), int(shape[-1])
    if labels.ndim == len(shape) and labels.shape[-1] == classes > 1:
        if not np.isin(labels, (0, 1)).all():
            return
        labels = labels.argmax(-1)
    elif labels.dtype.kind not in "iu" or classes == 1:
        return
    missing = sorted(set(range(classes)) - set(np.unique(labels).tolist()))
    if missing:
        warnings.warn(
            f"the examples have no label of {len(missing)} of {classes} classes ({listed(missing)}): pass some "
            "examples of each class, such as keras_lth.criteria.per_class(y, 10, seed=0) chooses",
            stacklevel=4,
        )
