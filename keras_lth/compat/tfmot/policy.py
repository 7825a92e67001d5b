"""TFMOT's policies: which layers of a model are pruned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import keras

from keras_lth.surgery.paths import layers

__all__ = ["PruneForLatencyOnXNNPack", "PruningPolicy"]


class PruningPolicy(ABC):
    """Says which layers `prune_low_magnitude` may prune, and whether a model may be pruned at all."""

    @abstractmethod
    def allow_pruning(self, layer: Any) -> bool:
        """Return whether ``layer`` may be pruned."""

    @abstractmethod
    def ensure_model_supports_pruning(self, model: Any) -> None:
        """Raise ``ValueError`` for a model that should not be pruned."""


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prunes the 1 × 1 convolutions, which XNNPACK runs sparsely on ARM.

    Unlike TFMOT's, it checks that there are some, and not the layers around them.
    """

    def allow_pruning(self, layer: Any) -> bool:
        """Return whether ``layer`` is a 1 × 1 Conv2D."""
        return isinstance(layer, keras.layers.Conv2D) and tuple(layer.kernel_size) == (1, 1)

    def ensure_model_supports_pruning(self, model: Any) -> None:
        """Raise ``ValueError`` for a model without 1 × 1 convolutions."""
        if not any(self.allow_pruning(layer) for _, layer in layers(model)):
            raise ValueError(
                f"model {model.name!r} has no 1 × 1 Conv2D that XNNPACK could run sparsely: omit the policy"
            )
