"""SNIP and FORCE: the score of a weight is |gradient · weight|, the effect on the loss of removing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lth.criteria.scorer import Repeatable, Scorer, tell_missing_classes
from keras_lth.surgery import Loss, batches


class SNIP(Repeatable):
    """Scores |g ⊙ w|, g the gradient of the mean loss of the examples (Frankle's thesis, 5.3.1; N. Lee et al., 2019).

    The thesis takes ten examples of each class (`per_class`). Normalisation is by the batch. With
    `keras_lth.prune_iteratively` it is iterative SNIP (thesis, 5.8.1).

    Args:
        batch_size: accumulate the gradient over batches of so many examples; None takes them as one batch.
        loss: of (y, outputs), or its name; None for that of ``compile``.
        include, exclude, also: which weights, as in `keras_lth.prunable`; None for all that are prunable by default.
    """

    def __init__(
        self,
        batch_size: int | None = None,
        loss: Any = None,
        include: Any = None,
        exclude: Any = None,
        also: Any = None,
    ) -> None:
        super().__init__(include, exclude, also)
        self.batch_size, self.loss = batch_size, loss

    def __call__(self, model: Any, x: Any, y: Any = None) -> dict[str, np.ndarray]:
        """Scores of a built model on examples, or on a dataset of batches, {weight path: array of its shape}."""
        return self.scores(model, x, y)

    def scorer(self, model: Any, weights: Mapping[str, Any], x: Any, y: Any) -> Scorer:
        """Return the scores as a function of masks."""
        tell_missing_classes(model, y)
        data = batches(x, y, batch_size=self.batch_size)
        loss = Loss(model, weights, loss=self.loss)
        values = {path: np.array(variable.numpy()) for path, variable in weights.items()}

        def scores(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            gradients = loss.gradient(data, masks)
            return {path: np.abs(one * self._weight(values[path], masks[path])) for path, one in gradients.items()}

        return scores

    def _weight(self, value: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.where(mask, value, value.dtype.type(0))


class FORCE(SNIP):
    """As `SNIP`, but weights that an iteration has pruned keep their values: a later one may take them back.

    The gradient is that of the pruned network, the score |g ⊙ w| that of all weights. So `keras_lth.prune_iteratively`
    chooses among all weights in each iteration (P. de Jorge et al., "Progressive skeletonization", ICLR 2021, eq. 6).
    On its own, without iterations, it is SNIP.
    """

    revives = True

    def _weight(self, value: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return value
