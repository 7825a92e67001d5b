"""What a network costs: parameters, bytes and FLOPs by layer, dense and masked, and what a training costs.

A multiplication with an addition counts as two FLOPs. Products with kernels are counted, and nothing else: not biases,
normalisation, activations, nor the products of attention, which have no weights. A training step is three forward
passes: the outputs, the gradients of the inputs and of the weights, as in the released code of RigL (U. Evci et al.,
2020, appendix H).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_lth.arguments import whole as whole_number
from keras_lth.masks import Masks, align
from keras_lth.surgery import check_built, check_model, masks_of, whole
from keras_lth.surgery.apart import apart, ones_for, undrawn
from keras_lth.surgery.kinds import DENSE, PRUNED, UNKNOWN, classified
from keras_lth.surgery.paths import Entry, layers
from keras_lth.tables import html_table, text_table

__all__ = ["Cost", "CostRow", "TrainingCost", "cost", "training_cost"]

# Forward passes in a training step.
_TRAINING = 3
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


class CostRow(NamedTuple):
    """One kernel.

    Attributes:
        path: of the kernel.
        shape: of the kernel.
        remaining: weights that the masks keep.
        uses: how often each weight multiplies for one example: positions of the output of a convolution, tokens.
        itemsize: bytes of a weight.
    """

    path: str
    shape: tuple[int, ...]
    remaining: int
    uses: int
    itemsize: int

    @property
    def size(self) -> int:
        """Return the number of weights."""
        return math.prod(self.shape)

    @property
    def flops(self) -> int:
        """Return the FLOPs of a forward pass of one example without masks."""
        return 2 * self.size * self.uses

    @property
    def masked_flops(self) -> int:
        """Return the FLOPs of a forward pass of one example over the weights that remain."""
        return 2 * self.remaining * self.uses

    @property
    def masked_bytes(self) -> int:
        """Return the bytes of the weights that remain, and a bit for each weight that says which do."""
        mask = -(-self.size // 8) if self.remaining < self.size else 0
        return self.remaining * self.itemsize + mask


@dataclass(frozen=True)
class Cost:
    """What `cost` returns; ``str()`` is a table.

    Attributes:
        rows: one for each kernel, in order of construction.
        others: parameters that are not kernels: biases, normalisation.
        other_bytes: theirs.
    """

    rows: tuple[CostRow, ...]
    others: int
    other_bytes: int

    @property
    def parameters(self) -> int:
        """Return the number of trained parameters without masks."""
        return sum(row.size for row in self.rows) + self.others

    @property
    def remaining(self) -> int:
        """Return the number of trained parameters that remain."""
        return sum(row.remaining for row in self.rows) + self.others

    @property
    def bytes(self) -> int:
        """Return the bytes of all parameters."""
        return sum(row.size * row.itemsize for row in self.rows) + self.other_bytes

    @property
    def masked_bytes(self) -> int:
        """Return the bytes of the parameters that remain, with a bit for each weight of a masked kernel."""
        return sum(row.masked_bytes for row in self.rows) + self.other_bytes

    @property
    def flops(self) -> int:
        """Return the FLOPs of a forward pass of one example without masks."""
        return sum(row.flops for row in self.rows)

    @property
    def masked_flops(self) -> int:
        """Return the FLOPs of a forward pass of one example over the weights that remain."""
        return sum(row.masked_flops for row in self.rows)

    @property
    def training_flops(self) -> int:
        """Return the FLOPs of a training step for each example of its batch, without masks."""
        return _TRAINING * self.flops

    @property
    def masked_training_flops(self) -> int:
        """Return the FLOPs of a training step for each example of its batch, over the weights that remain."""
        return _TRAINING * self.masked_flops

    def under(self, masks: Mapping[str, Any] | None) -> Cost:
        """Return the cost under other masks; None is dense. Kernels without a mask are whole.

        Raises ``ValueError`` for masks of other weights.
        """
        given = align(Masks(masks or {}), {row.path: row.shape for row in self.rows}, what="masks")
        kept = {path: int(np.count_nonzero(mask)) for path, mask in given.items()}
        return replace(self, rows=tuple(row._replace(remaining=kept.get(row.path, row.size)) for row in self.rows))

    def __str__(self) -> str:
        return text_table(self._cells())

    def _repr_html_(self) -> str:
        return html_table(self._cells())

    def _cells(self) -> list[tuple[str, ...]]:
        cells: list[tuple[str, ...]] = [
            ("kernel", "weights", "remain", "FLOPs", "masked FLOPs", "bytes", "masked bytes")
        ]
        for row in self.rows:
            numbers = (row.size, row.remaining, row.flops, row.masked_flops, row.size * row.itemsize, row.masked_bytes)
            cells.append((row.path, *(f"{number:,}" for number in numbers)))
        cells.append(("others", *(f"{n:,}" for n in (self.others, self.others, 0, 0, *[self.other_bytes] * 2))))
        totals = (self.parameters, self.remaining, self.flops, self.masked_flops, self.bytes, self.masked_bytes)
        return [*cells, ("total", *(f"{number:,}" for number in totals))]


def cost(
    model: keras.Model, masks: Mapping[str, Any] | None = None, *, input_shape: Sequence[Any] | None = None
) -> Cost:
    """Count parameters, bytes and FLOPs of a built model by layer, for one example.

    Args:
        model: a built model; one forward pass of one example is run on it, and it does not change.
        masks: which weights remain; None for the model's masks.
        input_shape: the shape of one example, or a list of one for each input; None for that of the model.

    Raises:
        ValueError: the shape of the input is not known; masks of other weights.
    """
    check_model(model)
    check_built(model)
    with whole(model, run=True):
        kinds = classified(model)
        owned: dict[int, list[Entry]] = {}
        for entry, kind in kinds:
            if kind in (*PRUNED, *DENSE, UNKNOWN):
                owned.setdefault(id(entry.layer), []).append(entry)
        uses: dict[str, int] = {}
        # The weights of cells, which a recurrent layer calls once for each step, and Keras once more.
        cells = {id(one): _within(one, owned) for _, one in layers(model) if isinstance(one, keras.layers.RNN)}
        of_step: dict[str, int] = dict.fromkeys((entry.path for of in cells.values() for entry in of), 0)

        def record(path: str, layer: Any, call: Any) -> Any:
            if id(layer) not in owned and id(layer) not in cells:
                return None

            def called(inputs: Any, *args: Any, **kwargs: Any) -> Any:
                outputs = call(inputs, *args, **kwargs)
                for entry in owned.get(id(layer), ()):
                    once = _uses(layer, entry.variable, inputs, outputs)
                    if entry.path in of_step:
                        of_step[entry.path] = once
                    else:
                        uses[entry.path] = uses.get(entry.path, 0) + once
                for entry in cells.get(id(layer), ()):
                    uses[entry.path] = uses.get(entry.path, 0) + inputs.shape[1] * of_step[entry.path]
                return outputs

            return called

        with undrawn(model), apart(model, wrap=record):
            model(ones_for(model, input_shape), training=False)
        rows, others, other_bytes = [], 0, 0
        for entry, kind in kinds:
            size, itemsize = math.prod(entry.variable.shape), tf.as_dtype(entry.variable.dtype).size
            if kind in (*PRUNED, *DENSE, UNKNOWN):
                shape = tuple(entry.variable.shape)
                rows.append(CostRow(entry.path, shape, size, uses.get(entry.path, 0), itemsize))
            elif entry.variable.trainable and not entry.seed:
                others, other_bytes = others + size, other_bytes + size * itemsize
        return Cost(tuple(rows), others, other_bytes).under(masks_of(model) if masks is None else masks)


class TrainingCost(NamedTuple):
    """What `training_cost` returns.

    Attributes:
        steps: of all phases.
        area: Σ steps × weights that remain, over steps × weights: 1 is dense (thesis, fig. 5-1).
        weight_steps: Σ steps × kernel weights that remain.
        parameter_epochs: Σ epochs × parameters that remain.
        flops: of all steps.
    """

    steps: int
    area: float
    weight_steps: int
    parameter_epochs: float
    flops: int


def training_cost(
    phases: Iterable[tuple[int, Mapping[str, Any] | None]], network: Cost, *, batch_size: int, steps_per_epoch: int
) -> TrainingCost:
    """Return what a training costs that has the given masks for so many steps each.

    Args:
        phases: (steps, masks), one after the other; None is dense. IMP has a phase for each level.
        network: from `cost`.
        batch_size: examples a step.
        steps_per_epoch: steps in an epoch.

    Raises:
        ValueError: no steps, masks of other weights.
    """
    batch, per_epoch = whole_number(batch_size, "batch_size", 1), whole_number(steps_per_epoch, "steps_per_epoch", 1)
    steps = weight_steps = flops = 0
    parameter_steps = 0
    for count, masks in phases:
        under, number = network.under(masks), whole_number(count, "steps of a phase", 0)
        steps += number
        weight_steps += number * sum(row.remaining for row in under.rows)
        parameter_steps += number * under.remaining
        flops += number * batch * under.masked_training_flops
    size = sum(row.size for row in network.rows)
    if not steps * size:
        raise ValueError("a training needs at least one step, of a network with weights")
    return TrainingCost(steps, weight_steps / (steps * size), weight_steps, parameter_steps / per_epoch, flops)


def _uses(layer: Any, variable: Any, inputs: Any, outputs: Any) -> int:
    """How often each weight of a kernel multiplies in one call on one example."""
    if isinstance(layer, keras.layers.Embedding):
        return 0
    if hasattr(layer, "kernel_size"):
        shape = tuple(keras.tree.flatten(inputs if isinstance(layer, _TRANSPOSED) else outputs)[0].shape)
        return math.prod(shape[1:-1] if layer.data_format == "channels_last" else shape[2:])
    if isinstance(layer, keras.layers.EinsumDense):
        x, w = layer.equation.replace(" ", "").split("->")[0].split(",")
        new = [size for label, size in zip(w, variable.shape, strict=True) if label not in x]
        return math.prod(outputs.shape[1:]) // math.prod(new)
    first = keras.tree.flatten(inputs)[0]
    return math.prod(first.shape[1:-1])


def _within(layer: Any, owned: Mapping[int, list[Entry]]) -> list[Entry]:
    return [entry for _, one in layers(layer) for entry in owned.get(id(one), ())]
