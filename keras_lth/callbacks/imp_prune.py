"""One pruning of IMP: which weights remain (thesis 3.1.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lth.masks import Masks
from keras_lth.selection import select


def choose(scores: Mapping[str, Any], now: Masks, counts: Mapping[str, int], scope: str) -> Masks:
    """The masks within ``now`` that keep ``counts``: of each weight by its path, or of all under the key ""."""
    if scope == "global":
        return select(scores, k=counts[""], within=now)
    kept = [select({path: scores[path]}, k=counts[path], within=Masks({path: now[path]})) for path in now]
    return Masks({path: masks[path] for masks in kept for path in masks})


def check_finite(weights: Mapping[str, Any], round: int, directory: Any) -> None:
    """Raises ``RuntimeError`` that names the first weight with a NaN, and says what ``directory`` still holds."""
    kept = f" Levels 0 … {round - 1} are in {directory}." if directory and round else ""
    for path, variable in weights.items():
        if np.isnan(variable.numpy().astype(np.float32)).any():
            raise RuntimeError(f"Round {round} diverged: {path} holds NaN. Try a lower learning rate.{kept}")
