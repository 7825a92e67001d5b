"""Momentum scores: the size of the averaged gradient that an optimizer keeps for each weight."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lth.surgery import leaves, optimizers_of, prunable, whole
from keras_lth.surgery.optimizers import slots


class Momentum:
    """Scores |m|, m the momentum of each weight (T. Dettmers and L. Zettlemoyer, "Sparse networks from scratch", 2019).

    Args:
        include, exclude, also: which weights, as in `keras_lth.prunable`; None for all that are prunable by default.
    """

    def __init__(self, include: Any = None, exclude: Any = None, also: Any = None) -> None:
        self.include, self.exclude, self.also = include, exclude, also

    def __call__(self, model: Any) -> dict[str, np.ndarray]:
        """Scores of a compiled model that has been trained, {weight path: array of the weight's shape}.

        Raises ``ValueError`` if no optimizer of the model keeps momenta for a weight.
        """
        with whole(model):
            momenta = {
                id(weight): slot
                for outer in optimizers_of(model)
                for leaf in leaves(outer)
                if leaf.built
                for name, of in slots(leaf).items()
                if name.strip("_") == "momentums"
                for weight, slot in zip(leaf._trainable_variables, of, strict=True)
            }
            scores = {}
            for path, variable in prunable(model, self.include, self.exclude, self.also).items():
                slot = momenta.get(id(variable))
                if slot is None:
                    raise ValueError(
                        f"no optimizer of model {model.name!r} has a momentum of {path!r}: compile with one that has, "
                        "such as SGD(momentum=0.9) or Adam, and train a step first"
                    )
                scores[path] = np.abs(slot.numpy())
            return scores
