"""Scores of weights by what they multiply: |weight| · size of the activation."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_lth.arguments import is_whole
from keras_lth.criteria.inputs import inputs_of
from keras_lth.surgery import prunable, whole


class Activation:
    """Scores |w_ij| · ‖x_i‖: x_i the input by which the weight is multiplied, over all examples and positions.

    With ``power=1`` the mean of |x_i|, which is shrinkbench's magnitude × activation (D. Blalock et al., 2020); with
    ``power=2`` the root of the mean of x_i² (Wanda: M. Sun et al., 2023). The model runs as in inference.

    Args:
        power: 1 or 2.
        batch_size: examples that are run at a time; None runs them together.
        include, exclude, also: which weights, as in `keras_lth.prunable`; None for all that are prunable by default.

    Raises:
        ValueError: another power.
    """

    def __init__(
        self,
        power: int = 1,
        batch_size: int | None = None,
        include: Any = None,
        exclude: Any = None,
        also: Any = None,
    ) -> None:
        if not is_whole(power, 1) or power > 2:
            raise ValueError(f"power must be 1 (mean of |x|) or 2 (root of the mean square), not {power!r}")
        self.power, self.batch_size = int(power), batch_size
        self.include, self.exclude, self.also = include, exclude, also

    def __call__(self, model: Any, x: Any, y: Any = None) -> dict[str, np.ndarray]:
        """Scores of a built model on examples, {weight path: float64 array of the weight's shape}.

        Raises ``ValueError`` for a weight that is not a kernel of a Dense layer or a convolution.
        """
        with whole(model, run=True):
            weights = prunable(model, self.include, self.exclude, self.also)
            sums = {path: np.zeros(variable.shape[-2]) for path, variable in weights.items()}
            counts = dict.fromkeys(weights, 0)
            for path, _, inputs in inputs_of(model, weights, x, self.batch_size):
                rows = np.abs(np.asarray(inputs, np.float64)).reshape(-1, inputs.shape[-1]) ** self.power
                sums[path] += rows.sum(0)
                counts[path] += len(rows)
            sizes = {path: (one / max(1, counts[path])) ** (1 / self.power) for path, one in sums.items()}
            return {path: np.abs(variable.numpy()) * sizes[path][:, None] for path, variable in weights.items()}
