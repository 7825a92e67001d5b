"""GraSP: what removing a weight does to the flow of gradients (Frankle's thesis, 5.4.1, equation 5.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lth.criteria.scorer import Repeatable, Scorer, tell_missing_classes
from keras_lth.names import listed
from keras_lth.surgery import Loss, batches

_REMOVE = ("highest", "lowest", "least absolute")


class GraSP(Repeatable):
    """Scores from s = −w ⊙ (H g): H the Hessian and g the gradient of the mean loss of the examples.

    Weights with the highest s are removed (C. Wang et al., 2020). As selection keeps what is high, the score is the
    greatest s of all minus s, in float64; `saliency` gives s itself. g is that of the weights that remain, without
    biases and normalisation, as in the released code, which also divides logits by 200. Normalisation is by the batch.
    The thesis takes ten examples of each class (`per_class`; 5.4.2).

    Args:
        remove: "highest"; "lowest", the inverted criterion (thesis, 5.7.3); or "least absolute", which removes the
            lowest |s| (thesis, 5.8.2).
        temperature: what logits are divided by before the loss; 1 leaves the loss as it is.
        batch_size, loss, include, exclude, also: as in `SNIP`.

    Raises:
        ValueError: another ``remove``, a temperature that is not above 0.
    """

    def __init__(
        self,
        remove: str = "highest",
        temperature: float = 200.0,
        batch_size: int | None = None,
        loss: Any = None,
        include: Any = None,
        exclude: Any = None,
        also: Any = None,
    ) -> None:
        super().__init__(include, exclude, also)
        if remove not in _REMOVE:
            raise ValueError(f"remove must be one of {listed(map(repr, _REMOVE))}, not {remove!r}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature!r}; 1 leaves the logits as they are")
        self.remove, self.temperature, self.batch_size, self.loss = remove, temperature, batch_size, loss

    def __call__(self, model: Any, x: Any, y: Any = None) -> dict[str, np.ndarray]:
        """Scores of a built model on examples, or on a dataset of batches, {weight path: float64 array, ≥ 0}."""
        return self.scores(model, x, y)

    def saliency(self, model: Any, x: Any, y: Any = None) -> dict[str, np.ndarray]:
        """Return s itself, signed, {weight path: array}: the estimated change of ½ |g|² by removing the weight."""
        return _Saliency(**vars(self)).scores(model, x, y)

    def scorer(self, model: Any, weights: Mapping[str, Any], x: Any, y: Any) -> Scorer:
        """Return the scores as a function of masks."""
        tell_missing_classes(model, y)
        data = batches(x, y, batch_size=self.batch_size)
        loss = Loss(model, weights, loss=self.loss, temperature=self.temperature)
        values = {path: np.array(variable.numpy()) for path, variable in weights.items()}

        def scores(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            gradient = {path: one * masks[path] for path, one in loss.gradient(data, masks).items()}
            products = loss.product(data, gradient, masks)
            return self._kept({path: -(values[path] * masks[path]) * product for path, product in products.items()})

        return scores

    def _kept(self, s: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Scores of which selection keeps the highest."""
        if self.remove == "least absolute":
            return {path: np.abs(one) for path, one in s.items()}
        sign = 1.0 if self.remove == "highest" else -1.0
        signed = {path: sign * one.astype(np.float64) for path, one in s.items()}
        # One shift for all layers, or their order would change.
        most = max(float(one.max(initial=-np.inf)) for one in signed.values())
        return {path: most - one for path, one in signed.items()}


class _Saliency(GraSP):
    def _kept(self, s: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(s)
