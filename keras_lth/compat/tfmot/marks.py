"""What `prune_low_magnitude` notes on a layer, and the masks that TFMOT would choose for its weights at a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.compat.tfmot.schedule import is_due, sparsity_at
from keras_lth.selection import select
from keras_lth.surgery.kinds import PRUNED, classified, is_float
from keras_lth.surgery.paths import entries, layers

__all__ = ["Mark", "mark_of", "marked", "set_mark", "unmark"]

_MARK = "_keras_lth_tfmot"


@dataclass
class Mark:
    """The settings of a pruned layer, or of a pruned model for the layers that have none of their own.

    Attributes:
        schedule, block_size, block_pooling_type, sparsity_m_by_n: as in `prune_low_magnitude`.
        step: TFMOT's ``pruning_step``, the number of training steps made since.
    """

    schedule: Any
    block_size: tuple[int, int]
    block_pooling_type: str
    sparsity_m_by_n: tuple[int, int] | None
    step: int = 0

    def due(self, step: int) -> bool:
        """Return whether TFMOT changes the masks at its ``step``, before the step-th update of the weights."""
        return step == 1 if self.sparsity_m_by_n else is_due(self.schedule, step)

    def mask(self, weight: np.ndarray, step: int) -> np.ndarray:
        """Return the mask of a weight at ``step``: the greatest magnitudes, ties to the lowest index."""
        if self.sparsity_m_by_n:
            zeros, of = self.sparsity_m_by_n
            return select({"": weight}, structure=f"{of - zeros}:{of}")[""]
        sparsity = sparsity_at(self.schedule, step)
        if self.block_size == (1, 1):
            return _greatest(weight, sparsity)
        kept = _greatest(self._pooled(np.abs(weight)), sparsity)
        rows, columns = weight.shape
        return kept.repeat(self.block_size[0], 0).repeat(self.block_size[1], 1)[:rows, :columns]

    def _pooled(self, magnitudes: np.ndarray) -> np.ndarray:
        """The mean or the greatest magnitude of each block, in the float32 operations of TFMOT, which pools twice.

        Where sides do not divide, "SAME" may pad before the first row or column too; TFMOT then moves the blocks that
        it compares against those that it prunes, and so do we.
        """
        x = tf.constant(magnitudes)[None, None]
        for size in self.block_size:
            # The last axis is that of channels, so the pooling is along rows, then, transposed, along columns.
            x = tf.nn.pool(x, [1, size], self.block_pooling_type, [1, size], "SAME")
            x = tf.transpose(x, (0, 1, 3, 2))
        return np.asarray(x)[0, 0]


def _greatest(scores: np.ndarray, sparsity: np.float32) -> np.ndarray:
    # TFMOT's count: in float32, halves to even, at least one.
    k = max(int(np.round(np.float32(scores.size) * (np.float32(1) - sparsity))), 1)
    return select({"": scores}, k=k)[""]


def set_mark(layer: keras.layers.Layer, mark: Mark) -> None:
    """Note the settings on a layer or a model."""
    # Through __dict__: a tracked attribute would be saved with the model, or refused by a locked layer.
    vars(layer)[_MARK] = mark


def mark_of(layer: Any) -> Mark | None:
    """Return the settings noted on a layer or a model itself."""
    found = vars(layer).get(_MARK)
    return found if isinstance(found, Mark) else None


def unmark(model: keras.Model) -> None:
    """Forget the settings of all layers of a model."""
    for _, layer in layers(model):
        vars(layer).pop(_MARK, None)


def marked(model: keras.Model) -> dict[str, tuple[keras.Variable, Mark]]:
    """Return path → (variable, settings) of every weight of a model that TFMOT's functions prune.

    Settings of a layer come before those of the layer or model around it.
    """
    marks = {str(path): mark for path, layer in layers(model) if (mark := mark_of(layer)) is not None}
    own = {id(variable) for _, layer in layers(model) for variable in _declared(layer) or ()}
    silent = {str(path) for path, layer in layers(model) if _declared(layer) is not None}
    kinds = {entry.path: kind for entry, kind in classified(model)}
    found = {}
    for entry in entries(model):
        mark = _nearest(marks, str(entry.layer_path))
        pruned = id(entry.variable) in own if str(entry.layer_path) in silent else _prunes(entry, kinds[entry.path])
        if mark is not None and pruned and not entry.seed and is_float(entry.variable):
            found[str(entry.path)] = entry.variable, mark
    return found


def _declared(layer: Any) -> list[Any] | None:
    """The weights that a layer of a user's own names, as TFMOT asks for them; None for other layers."""
    return list(layer.get_prunable_weights()) if hasattr(layer, "get_prunable_weights") else None


def _nearest(marks: dict[str, Mark], path: str) -> Mark | None:
    while path:
        if path in marks:
            return marks[path]
        path = path.rpartition("/")[0]
    return marks.get("")


def _prunes(entry: Any, kind: str) -> bool:
    """Whether TFMOT prunes a weight: embeddings too, but no depthwise kernels; kinds that it does not know as we do."""
    depthwise = isinstance(entry.layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D)
    if depthwise or entry.name == "depthwise_kernel":
        return False
    return kind in PRUNED or (kind == "embedding" and isinstance(entry.layer, keras.layers.Embedding))
