"""Masked layers to sparse layers and back, in place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_lth.layers.costs import MARGIN, Costs, measured
from keras_lth.layers.folded import fold_in_place
from keras_lth.layers.fused import fuse
from keras_lth.layers.kinds import attribute_of, layout_of, positions, why_dense
from keras_lth.layers.sparse import sparse_model, wanted
from keras_lth.masks import Masks
from keras_lth.names import chosen, shown_as
from keras_lth.ops import SparseStructure, count_groups
from keras_lth.surgery import mask, masks_of, optimizers_of
from keras_lth.surgery.entry import check_built, check_model
from keras_lth.surgery.hooks import follow
from keras_lth.surgery.optimizers import refuse_coupling
from keras_lth.surgery.paths import Entry, entries, layers
from keras_lth.surgery.roles import Filter
from keras_lth.surgery.stored import Wanted, is_stored, is_whole, whole
from keras_lth.tables import html_table, text_table

__all__ = ["KERNELS", "SparseRow", "Sparsified", "densify", "fitted", "sparsify"]

# What levels of IMP multiply by.
KERNELS = ("dense", "auto", "sparse")

# Sides of blocks that are looked for in a mask, the largest first.
BLOCKS = (16, 8, 4)
BATCH = 32


class SparseRow(NamedTuple):
    """One masked kernel.

    Attributes:
        path: its structural path.
        size, remaining: all weights, and those that the mask keeps.
        block: sides of the stored blocks, (1, 1) for single weights; None where the kernel stays dense.
        factor: time of its dense products in a training step over the time of the sparse ones; NaN if unknown.
        pays_below: the density below which sparse products are faster; NaN if unknown.
        reason: why it stays dense; "" where it is stored.
    """

    path: str
    size: int
    remaining: int
    block: tuple[int, int] | None
    factor: float
    pays_below: float
    reason: str


@dataclass(frozen=True)
class Sparsified:
    """What `sparsify` returns; ``str()`` is a table.

    Attributes:
        rows: one per masked kernel, in order of construction.
        batch_size: that the factors are for.
        factor: of the products of all these kernels together; 1 where none is stored.
    """

    rows: tuple[SparseRow, ...]
    batch_size: int
    factor: float

    @property
    def sparse(self) -> tuple[str, ...]:
        """Paths of the kernels that are stored."""
        return tuple(row.path for row in self.rows if row.block is not None)

    @property
    def dense(self) -> dict[str, str]:
        """Path of each masked kernel that stays dense → why."""
        return {row.path: row.reason for row in self.rows if row.block is None}

    @property
    def summary(self) -> str:
        """One line."""
        return (
            f"{len(self.sparse)} of {len(self.rows)} masked kernels are stored sparse; their products take "
            f"1/{self.factor:.1f} of the dense time (batch {self.batch_size})"
            if self.sparse
            else f"all {len(self.rows)} masked kernels stay dense"
        )

    def __str__(self) -> str:
        return "\n".join([text_table(self._cells(), left=(0, 5)), self.summary])

    def _repr_html_(self) -> str:
        return html_table(self._cells(), note=self.summary)

    def _cells(self) -> list[tuple[str, ...]]:
        cells: list[tuple[str, ...]] = [("kernel", "density", "pays below", "stored", "faster", "why dense")]
        for row in self.rows:
            stored = "dense" if row.block is None else "weights" if row.block == (1, 1) else "{}x{}".format(*row.block)
            cells.append(
                (
                    shown_as(row.path),
                    f"{row.remaining / row.size:.2%}",
                    "" if math.isnan(row.pays_below) else f"{row.pays_below:.0%}",
                    stored,
                    "" if math.isnan(row.factor) else f"{row.factor:.1f} ×",
                    row.reason,
                )
            )
        return cells


def sparsify(
    model: keras.Model,
    masks: Mapping[str, Any] | None = None,
    *,
    include: Filter = None,
    exclude: Filter = None,
    block: int | Sequence[int] | None = None,
    batch_size: int | None = None,
    only_if_faster: bool = True,
    costs: Costs | None = None,
    training: bool = True,
) -> Sparsified:
    """Let masked layers of ``model`` store and multiply what their masks keep, in place; return a report.

    The model trains, predicts and saves as before, in less time and memory: a layer's variable holds the stored values
    alone, the slots of optimizers go with it, and ``layer.kernel`` is the whole kernel, for reading. Files pass between
    sparse and dense models. A ``.keras`` file of the model keeps what is stored: ``import keras_lth.layers``, then
    load it.
    Masks that change later, by `mask`, `rewind` or a callback, change what is stored. `densify` goes back.

    Dense, Conv1D and Conv2D without dilation or groups, EinsumDense (and so attention), the cells of SimpleRNN, LSTM
    and GRU, and subclasses that keep their ``call`` can be stored, and what `keras_lth.layers.register_sparse` adds.
    On accelerators they multiply by the whole kernel. Batch normalisation, which else takes most of a sparse network's
    step, is fused too (`fuse`).

    Args:
        model: a built model.
        masks: put on first, as by `mask`; None for the masks that the model has.
        include, exclude: which of the masked kernels, as in `prunable`. One that ``include`` names and that cannot be
            stored is an error.
        block: sides (inputs, outputs) of the stored blocks; 1 for single weights; None takes the largest of 16, 8 and 4
            that the mask allows.
        batch_size: of training, for the estimate of time; 32 by default.
        only_if_faster: False stores every kernel that can be stored.
        costs: of products; None measures them once on a machine, `keras_lth.layers.costs.DEFAULT` are the same
            everywhere, so that the same kernels are stored.
        training: False prepares for inference: each BatchNormalization behind a Dense or a convolution that nobody else
            reads goes into its kernel and bias, and the ReLU behind it into its activation. What is saved then has
            these weights, too, and a normalisation that does nothing; `densify` does not bring it back.

    Raises:
        TypeError: no Keras 3 model on TensorFlow.
        ValueError: no masks; an included kernel cannot be stored, or has nothing left; blocks that a mask keeps in
            part; an optimizer that couples weights.
    """
    check_model(model)
    check_built(model)
    batch = BATCH if batch_size is None else int(batch_size)
    if batch < 1:
        raise ValueError(f"batch_size={batch_size} is not at least 1")
    with whole(model) as view:
        current = masks_of(model) if masks is None else mask(model, masks)
        if not current:
            raise ValueError(
                f"model {model.name!r} has no masks, so there is nothing to store sparse: pass masks, or call "
                "lth.mask(model, masks) first; a loaded model: lth.masks_from_zeros(model)"
            )
        found = {entry.path: entry for entry in entries(model) if entry.path in current}

        def call(function: Any, path: str) -> bool:
            return bool(function(path, found[path].variable))

        named = chosen(include, found, "include", call=call, of="masked kernel")
        left = chosen(exclude, found, "exclude", call=call, of="masked kernel")
        for optimizer in optimizers_of(model):
            refuse_coupling(optimizer, [entry.variable for entry in found.values()])
        costs = measured() if costs is None else costs
        held = Counter(id(variable) for _, layer in layers(model) for variable in _variables(layer).values())
        choices = [_choice(entry, current[path], block, batch, costs) for path, entry in found.items()]
        choices = [
            one.but("is held by another layer too") if held[id(one.entry.variable)] > 1 else one for one in choices
        ]
        refused = [f"{one.path} {one.reason}" for one in choices if one.path in named - left and one.reason]
        if refused:
            raise ValueError(
                f"include= names kernels that cannot be stored sparse: {'; '.join(refused)}. Leave them out of include="
            )
        choices = [
            one
            if one.reason
            else one.but("excluded")
            if one.path in left
            else one.but("not included")
            if include is not None and one.path not in named
            else one.but("dense is faster" if one.factor <= 1 else f"gains less than {MARGIN:g} ×")
            if only_if_faster and not one.factor > MARGIN
            else one
            for one in choices
        ]
        view.wanted = _wanted([one for one in choices if not one.reason])
        # Last: what is refused leaves the model as it was.
        if not training:
            fold_in_place(model)
    if view.wanted:
        model.__class__ = sparse_model(model)
        fuse(model)
    rows = tuple(one.row for one in choices)
    dense, sparse = (sum(one.seconds[i] for one in choices if not one.reason) for i in (0, 1))
    return Sparsified(rows, batch, dense / sparse if sparse else 1.0)


def fitted(model: keras.Model, kernels: str, batch_size: int | None = None, **how: Any) -> Sparsified | None:
    """Let ``model`` have dense, sparse or the faster kernels for the masks that it has: one of `KERNELS`.

    Returns:
        The report; None where no kernel is stored, because nothing is pruned or ``kernels="dense"``.
    """
    masks = Masks({}) if kernels == "dense" else masks_of(model)
    if masks.remaining == masks.size:
        densify(model)
        return None
    return sparsify(model, batch_size=batch_size, only_if_faster=kernels == "auto", **how)


def densify(model: keras.Model) -> Masks:
    """Give every sparse layer of ``model`` its whole kernel back, in place; return the masks, which stay on.

    Raises:
        TypeError: no Keras 3 model on TensorFlow.
    """
    check_model(model)
    stored = [entry.variable for entry in entries(model) if is_stored(entry.variable)]
    if stored:
        with whole(model) as view:
            view.wanted = []
        follow(stored)
    return masks_of(model)


@dataclass(frozen=True)
class _Choice:
    """A masked kernel and what may become of it; ``reason``: why it stays dense, else ""."""

    entry: Entry
    mask: np.ndarray
    reason: str
    name: str = ""
    product: Any = None
    block: tuple[int, int] = (1, 1)
    seconds: tuple[float, float] = (math.nan, math.nan)
    pays_below: float = math.nan

    @property
    def path(self) -> str:
        return self.entry.path

    @property
    def factor(self) -> float:
        return self.seconds[0] / self.seconds[1]

    @property
    def row(self) -> SparseRow:
        block = None if self.reason else self.block
        size, kept = self.mask.size, int(np.count_nonzero(self.mask))
        return SparseRow(self.path, size, kept, block, self.factor, self.pays_below, self.reason)

    def but(self, reason: str) -> _Choice:
        return replace(self, reason=reason)


def _choice(entry: Entry, mask: np.ndarray, block: int | Sequence[int] | None, batch: int, costs: Costs) -> _Choice:
    layer = entry.layer
    name = attribute_of(layer, entry.variable)
    reason = why_dense(layer, name)
    if not reason and not mask.any():
        reason = "has nothing left"
    if reason:
        return _Choice(entry, mask, reason)
    layout = layout_of(layer, name)
    product = layout.product(mask)
    sides = _block(product, block, entry.path)
    density = count_groups(product, block=sides) * sides[0] * sides[1] / product.size
    line = costs.line(layout.shape)
    rows = batch * positions(layer)
    seconds = line.times(layout.shape, density, sides != (1, 1), rows)
    return _Choice(entry, mask, "", name, product, sides, seconds, line.pays_below(layout.shape, sides != (1, 1), rows))


def _variables(layer: keras.layers.Layer) -> dict[int, keras.Variable]:
    return {id(value): value for value in vars(layer).values() if isinstance(value, keras.Variable)}


def _block(product: np.ndarray, block: int | Sequence[int] | None, path: str) -> tuple[int, int]:
    """The sides of the stored blocks: the given ones, else the largest that the mask keeps whole."""
    if block is not None:
        sides = (block, block) if isinstance(block, int) else tuple(block)
        try:
            return SparseStructure.from_mask(product, sides).block
        except ValueError as error:
            raise ValueError(f"{path}: {error}; in sparsify, block=1") from None
    for side in BLOCKS:
        if min(product.shape[-2:]) >= side and is_whole(product, (side, side)):
            return side, side
    return 1, 1


def _wanted(choices: Sequence[_Choice]) -> list[Wanted]:
    by_layer: dict[int, list[_Choice]] = {}
    for one in choices:
        by_layer.setdefault(id(one.entry.layer), []).append(one)
    return [
        each
        for of in by_layer.values()
        for each in wanted(of[0].entry.layer, {one.name: (one.product, one.block, None) for one in of})
    ]
