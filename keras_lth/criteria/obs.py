"""Second-order saliency: optimal brain damage by the diagonal of the Hessian, layerwise optimal brain surgeon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lth.arguments import real
from keras_lth.arguments import whole as whole_number
from keras_lth.criteria.inputs import inputs_of, unfolded
from keras_lth.criteria.scorer import Repeatable, Scorer
from keras_lth.selection import uniform
from keras_lth.surgery import Loss, batches, prunable, whole


class OBD(Repeatable):
    """Scores ½ h w²: h the diagonal of the Hessian of the mean loss (Y. LeCun et al., "Optimal brain damage", 1990).

    The model runs as in inference.

    Args:
        curvature: "fisher": h is the mean of the squared gradients of single examples, ≥ 0, the diagonal of the
            empirical Fisher matrix; "hessian": h is the mean of v ⊙ (H v) over probes v of random signs, an unbiased
            estimate, and a negative h counts as 0.
        probes: how many v, at least 1.
        seed: of the probes.
        loss, include, exclude, also: as in `SNIP`.

    Raises:
        ValueError: another curvature, fewer than one probe.
    """

    def __init__(
        self,
        curvature: str = "fisher",
        probes: int = 16,
        seed: int = 0,
        loss: Any = None,
        include: Any = None,
        exclude: Any = None,
        also: Any = None,
    ) -> None:
        super().__init__(include, exclude, also)
        if curvature not in ("fisher", "hessian"):
            raise ValueError(f"curvature must be 'fisher' or 'hessian', not {curvature!r}")
        self.curvature, self.loss = curvature, loss
        self.probes, self.seed = whole_number(probes, "probes", 1), whole_number(seed, "seed")

    def __call__(self, model: Any, x: Any, y: Any = None) -> dict[str, np.ndarray]:
        """Scores of a built model on examples, {weight path: array of the weight's shape}, ≥ 0."""
        return self.scores(model, x, y)

    def scorer(self, model: Any, weights: Mapping[str, Any], x: Any, y: Any) -> Scorer:
        """Return the scores as a function of masks."""
        loss = Loss(model, weights, loss=self.loss, training=False)
        values = {path: np.array(variable.numpy()) for path, variable in weights.items()}
        data = batches(x, y, batch_size=1 if self.curvature == "fisher" else None)

        def diagonal(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            total = {path: np.zeros_like(value) for path, value in values.items()}
            if self.curvature == "fisher":
                for batch in data:
                    for path, one in loss.gradient([batch], masks).items():
                        total[path] += one * one / len(data)
                return total
            for probe in range(self.probes):
                signs = {path: self._signs(probe, path, value) for path, value in values.items()}
                for path, one in loss.product(data, signs, masks).items():
                    total[path] += signs[path] * one / self.probes
            return {path: np.maximum(one, 0) for path, one in total.items()}

        def scores(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {path: 0.5 * h * (values[path] * masks[path]) ** 2 for path, h in diagonal(masks).items()}

        return scores

    def _signs(self, probe: int, path: str, value: np.ndarray) -> np.ndarray:
        signs: np.ndarray = np.where(uniform(self.seed, f"{probe}/{path}", value.shape) < 0.5, -1, 1)
        return signs.astype(value.dtype)


class OBS:
    """Scores w² / (2 [H⁻¹]_ii), H = X Xᵀ / n the Hessian of a layer's own squared error on its inputs X.

    X. Dong et al., "Learning to prune deep neural networks via layer-wise optimal brain surgeon", 2017. All outputs of
    a layer share H. The model runs as in inference. The weights that remain are not adjusted.

    Args:
        damping: added to the diagonal of H, as a share of its mean, above 0: inputs that are always 0 make H singular.
        batch_size: examples that are run at a time; None runs them together.
        include, exclude, also: which weights, as in `keras_lth.prunable`; None for all that are prunable by default.

    Raises:
        ValueError: a damping that is not above 0.
    """

    def __init__(
        self,
        damping: float = 1e-4,
        batch_size: int | None = None,
        include: Any = None,
        exclude: Any = None,
        also: Any = None,
    ) -> None:
        if not real(damping, "damping") > 0:
            raise ValueError(f"damping must be above 0, such as 1e-4, not {damping!r}")
        self.damping, self.batch_size = damping, batch_size
        self.include, self.exclude, self.also = include, exclude, also

    def __call__(self, model: Any, x: Any, y: Any = None) -> dict[str, np.ndarray]:
        """Scores of a built model on examples, {weight path: float64 array of the weight's shape}.

        Raises ``ValueError`` for a weight that is not a kernel of a Dense layer or a 2-D convolution.
        """
        with whole(model, run=True):
            weights = prunable(model, self.include, self.exclude, self.also)
            products: dict[str, Any] = dict.fromkeys(weights, 0.0)
            counts = dict.fromkeys(weights, 0)
            for path, layer, inputs in inputs_of(model, weights, x, self.batch_size):
                rows = unfolded(layer, inputs)
                products[path] = products[path] + rows.T @ rows
                counts[path] += len(rows)
            scores = {}
            for path, variable in weights.items():
                value = np.asarray(variable.numpy(), np.float64)
                hessian = products[path] / max(1, counts[path])
                # Where no input is ever above 0, every weight is free to go.
                least = self.damping * np.trace(hessian) / len(hessian) or self.damping
                inverse = np.diag(np.linalg.inv(hessian + least * np.eye(len(hessian))))
                scores[path] = value**2 / (2 * inverse.reshape(*value.shape[:-1], 1))
            return scores
