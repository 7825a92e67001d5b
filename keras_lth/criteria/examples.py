"""The examples that scores are computed on: so many of each class (Frankle's thesis, 5.3.2 and 5.4.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lth.arguments import whole
from keras_lth.selection import uniform

__all__ = ["per_class"]


def per_class(y: Any, count: int = 10, *, seed: int) -> np.ndarray:
    """Choose ``count`` examples of each class at random: ``chosen = per_class(y, seed=0)``, then ``x[chosen]``.

    Args:
        y: labels, whole numbers of shape (n,) or (n, 1), or one-hot of shape (n, classes).
        count: examples of each class, at least 1; 10 in the thesis.
        seed: the choice is a function of it and of ``y``.

    Returns:
        Their indices, in increasing order.

    Raises:
        ValueError: a class with fewer examples; names it.
    """
    labels = np.asarray(y)
    labels = labels.argmax(1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1)
    order, wanted, found = uniform(seed, "examples", labels.shape), whole(count, "count", 1), []
    for label in np.unique(labels):
        (of,) = np.nonzero(labels == label)
        if len(of) < wanted:
            raise ValueError(f"class {label} has {len(of)} examples, fewer than count={wanted}: use a smaller count")
        found.append(of[np.argsort(order[of], kind="stable")[:wanted]])
    return np.sort(np.concatenate(found))
