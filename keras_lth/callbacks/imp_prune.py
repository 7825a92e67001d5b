"""One pruning of IMP: what must hold, and which weights remain (thesis 3.1.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_lth.masks import Masks
from keras_lth.selection import keep_counts
from keras_lth.surgery import hosts_of


def choose(
    model: Any, criterion: Callable[[Any], Any], now: Masks, counts: Mapping[str, int], min_per_layer: float | None
) -> Masks:
    """The masks within ``now`` that keep ``counts``, chosen once, on the processor of one host."""
    shapes = {path: mask.shape for path, mask in now.items()}
    return hosts_of(model).chosen_once(shapes, lambda: keep_counts(criterion(model), now, counts, min_per_layer))


def check_finite(weights: Mapping[str, Any], round: int, directory: Any) -> None:
    """Raises ``RuntimeError`` that names the first weight with a NaN, and says what ``directory`` still holds."""
    kept = f" Levels 0 … {round - 1} are in {directory}." if directory and round else ""
    for path, variable in weights.items():
        if np.isnan(variable.numpy().astype(np.float32)).any():
            raise RuntimeError(f"Round {round} diverged: {path} holds NaN. Try a lower learning rate.{kept}")
