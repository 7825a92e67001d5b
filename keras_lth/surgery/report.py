"""Reports on a live model: what is prunable or masked, what is not and why, and how sparse it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_lth.masks import Masks, without_weights
from keras_lth.names import few, shown_as
from keras_lth.surgery.entry import check_built, check_model
from keras_lth.surgery.kinds import DENSE, PRUNED, UNKNOWN, classified
from keras_lth.surgery.paths import Entry
from keras_lth.surgery.stored import on_whole
from keras_lth.surgery.variable_mask import mask_of
from keras_lth.surgery.warned import warn_once
from keras_lth.tables import html_table, text_table

__all__ = ["Report", "ReportedMasks", "Row", "Sparsity", "Weight", "reported", "sparsity"]


class Weight(NamedTuple):
    """One weight of a `Report`.

    Attributes:
        path: its structural path.
        kind: "kernel", "embedding", "bias", …
        shape: its shape.
        reason: why it is left dense; "" if it is not.
        frozen: whether its layer is not trained.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    reason: str
    frozen: bool

    @property
    def size(self) -> int:
        """Return the number of entries."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Report:
    """What is prunable (or masked), what is left dense, and why; ``str()`` is a table, `summary` its last line.

    Attributes:
        model: the model's name.
        rows: one per weight, in order of construction.
        verb: "prunable" or "masked".
        unbuilt: paths of layers that have no weights yet.
    """

    model: str
    rows: tuple[Weight, ...]
    verb: str = "prunable"
    unbuilt: tuple[str, ...] = ()

    @property
    def groups(self) -> dict[str, list[Weight]]:
        """Return the rows by reason; prunable (masked) ones come first, under the verb."""
        groups: dict[str, list[Weight]] = {self.verb: []}
        for row in self.rows:
            groups.setdefault(row.reason or self.verb, []).append(row)
        return groups

    @property
    def skipped(self) -> str:
        """Describe in one line what is left dense: weights by reason, those of unknown kind by name."""
        parts = []
        for reason, rows in self.groups.items():
            if reason != self.verb:
                named = f" ({few([row.path for row in rows], 60)})" if reason not in _QUIET else ""
                parts.append(f"{_size(rows):,} {reason}{named}")
        return f"left dense: {', '.join(parts)}" if parts else "nothing is left dense"

    @property
    def summary(self) -> str:
        """Describe in one line how many weights are prunable (masked), and what is left dense."""
        rows = self.groups[self.verb]
        total = _size(self.rows)
        share = f" ({_size(rows) / total:.1%})" if total else ""
        frozen = sum(row.frozen for row in rows)
        arrays = "array" if len(rows) == 1 else "arrays"
        note = f", {frozen} of them frozen" if frozen else ""
        return f"{self.verb}: {_size(rows):,} of {total:,} weights{share} in {len(rows)} {arrays}{note}; {self.skipped}"

    def __str__(self) -> str:
        return "\n".join([text_table(self._cells(), left=(0, 3)), *self._notes(), self.summary])

    def _repr_html_(self) -> str:
        return html_table(self._cells(), note=self.summary)

    def _cells(self) -> list[tuple[str, ...]]:
        cells: list[tuple[str, ...]] = [("what", "arrays", "weights", "which")]
        for reason, rows in self.groups.items():
            for frozen in (False, True):
                some = [row for row in rows if row.frozen is frozen]
                if some:
                    what = reason + (", frozen" if frozen else "")
                    cells.append(
                        (what, f"{len(some):,}", f"{_size(some):,}", few([shown_as(row.path) for row in some]))
                    )
        return cells

    def _notes(self) -> list[str]:
        notes = [f"no weights yet: {few(self.unbuilt)}"] if self.unbuilt else []
        groups = self.groups
        by_rule = [reason for reason in DENSE if reason in groups]
        if by_rule:
            example = groups[by_rule[0]][0].path.split("/")[-1]
            notes.append(
                f"{', '.join(by_rule)}: left dense by rule; also= prunes those it names, such as also={example!r}"
            )
        if UNKNOWN in groups:
            notes.append(
                f"unknown kind: also={groups[UNKNOWN][0].path.split('/')[-1]!r} prunes it, or register_prunable"
            )
        return notes


# Reasons that need no names in one line.
_QUIET = ("bias", "normalisation", "slope", "adapter", "vector", "not trained", "not included")


def _size(rows: Any) -> int:
    return sum(row.size for row in rows)


class ReportedMasks(Masks):
    """The masks of a model, equal to any `Masks` with the same content; ``str()`` is the report.

    Attributes:
        report: what is masked, what is not, and why.
    """

    def __init__(self, masks: Masks, report: Report) -> None:
        super().__init__(masks)
        self.report = report

    def __str__(self) -> str:
        return f"{self.report}\n{self!r}"

    def _repr_html_(self) -> str:
        return super()._repr_html_() + self.report._repr_html_()


def reported(model: keras.Model, masks: Masks, given: Mapping[str, Any]) -> ReportedMasks:
    """Return the masks of ``model`` with their report; warn once of unknown kinds and of empty layers."""
    rows = [_weight(entry, kind, entry.path in masks) for entry, kind in classified(model) if not entry.seed]
    unknown = [row.path for row in rows if row.reason == UNKNOWN]
    if unknown:
        warn_once(
            model,
            UNKNOWN,
            f"layers of unknown kind stay dense; also= or register_prunable prunes their weights: {few(unknown)}",
            stacklevel=3,
        )
    empty = [path for path in masks.empty if masks[path].size]
    if empty and not getattr(given, "told", False):
        warn_once(model, "empty", without_weights(empty, len(masks)), stacklevel=3)
    return ReportedMasks(masks, Report(model.name, tuple(rows), verb="masked"))


class Row(NamedTuple):
    """One weight: its size, the number of entries that its mask keeps (all without a mask) and that are not 0."""

    path: str
    size: int
    remaining: int
    nonzero: int


@dataclass(frozen=True)
class Sparsity:
    """What `sparsity` returns; ``str()`` is a table.

    Attributes:
        rows: one per prunable or masked weight, in order of construction.
        unknown: layer path → weights of unknown kind, left dense.
        report: what is masked, what is not, and why.
    """

    rows: tuple[Row, ...]
    unknown: dict[str, tuple[str, ...]]
    report: Report

    @property
    def size(self) -> int:
        """Return the number of prunable weights."""
        return sum(row.size for row in self.rows)

    @property
    def remaining(self) -> int:
        """Return the number of weights that the masks keep."""
        return sum(row.remaining for row in self.rows)

    @property
    def density(self) -> float:
        """Return ``remaining / size``, in [0, 1]; 1 if nothing is prunable."""
        return self.remaining / self.size if self.size else 1.0

    @property
    def zeros(self) -> float:
        """Return the share of prunable weights that are 0, whether masked or not, in [0, 1]."""
        return 1 - sum(row.nonzero for row in self.rows) / self.size if self.size else 0.0

    def __str__(self) -> str:
        return "\n".join([text_table(self._cells()), *self._notes()])

    def _repr_html_(self) -> str:
        return html_table(self._cells(), note=" ".join(self._notes()))

    def _cells(self) -> list[tuple[str, ...]]:
        cells: list[tuple[str, ...]] = [("weight", "size", "remaining", "non-zero", "density")]
        for row in (*self.rows, Row("total", self.size, self.remaining, sum(r.nonzero for r in self.rows))):
            density = row.remaining / row.size if row.size else 1.0
            cells.append(
                (shown_as(row.path), f"{row.size:,}", f"{row.remaining:,}", f"{row.nonzero:,}", f"{density:.2%}")
            )
        return cells

    def _notes(self) -> list[str]:
        notes = []
        if not self.report.groups["masked"] and self.zeros >= 0.01:
            notes.append(f"zeros {self.zeros:.1%}, no mask: lth.mask(model, lth.masks_from_zeros(model)) keeps them")
        notes.append(self.report.skipped)
        for layer, paths in self.unknown.items():
            notes.append(f"left dense, of unknown kind: {layer} ({few(paths)})")
        return notes


@on_whole
def sparsity(model: keras.Model) -> Sparsity:
    """Count size, remaining and non-zero entries of every prunable or masked weight of a built model."""
    check_model(model)
    check_built(model)
    rows, weights = [], []
    for entry, kind in classified(model):
        held = mask_of(entry.variable)
        if not entry.seed:
            weights.append(_weight(entry, kind, masked=held is not None))
        if held is None and kind not in PRUNED:
            continue
        value = np.asarray(entry.variable.numpy())
        remaining = int(held.numpy().sum()) if held is not None else value.size
        rows.append(Row(entry.path, value.size, remaining, int(np.count_nonzero(value))))
    unknown: dict[str, tuple[str, ...]] = {}
    for row in weights:
        if row.reason == UNKNOWN:
            layer = row.path.rpartition("/")[0]
            unknown[layer] = (*unknown.get(layer, ()), row.path)
    return Sparsity(tuple(rows), unknown, Report(model.name, tuple(weights), verb="masked"))


def _weight(entry: Entry, kind: str, masked: bool) -> Weight:
    reason = "" if masked else "without a mask" if kind in PRUNED else kind
    frozen = not entry.variable.trainable and kind != "not trained"
    return Weight(entry.path, kind, tuple(entry.variable.shape), reason, frozen)
