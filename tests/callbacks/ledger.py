"""A callback that writes down, with Keras' own means, what rounds do to a model, and checks it against the masks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import keras_lth as lth
from keras_lth import surgery


def survivors(n: int, rounds: int) -> list[int]:
    """n, then each time less a fifth rounded to the nearest whole number, halves up, in whole numbers."""
    counts = [n]
    for _ in range(rounds):
        counts.append(counts[-1] - (2 * counts[-1] + 5) // 10)
    return counts


class Ledger(keras.callbacks.Callback):
    """Weights after step k of the first training, and at the begin and the end of every epoch. Comes after IMP."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.at_k: list[np.ndarray] = []
        self.slots_at_k: list[np.ndarray] = []
        self.begin: list[list[np.ndarray]] = []
        self.slots: list[list[np.ndarray]] = []
        self.end: list[list[np.ndarray]] = []
        self.rates: list[float] = []
        self.step = self.coming = 0

    def values(self) -> list[np.ndarray]:
        return [np.array(value) for value in self.model.get_weights()]

    def optimizer(self) -> list[np.ndarray]:
        return [np.array(variable.numpy()) for variable in self.model.optimizer.variables]

    def keep(self) -> None:
        if self.step == self.k and not self.at_k:
            self.at_k, self.slots_at_k = self.values(), self.optimizer()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.keep()
        self.begin.append(self.values())
        self.slots.append(self.optimizer())

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))
        # The number given at the end is of the first step of an execution before Keras 3.11, of the last since.
        if len(self.begin) == 1:
            self.coming = batch + int(self.model.steps_per_execution)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step = self.coming
        self.keep()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.end.append(self.values())


def mask_of_each(model: keras.Model, masks: lth.Masks) -> list[np.ndarray | None]:
    """For each of Keras' own list of weights its mask, found by the identity of the variable."""
    by_id = {id(variable): masks[path] for path, variable in surgery.variables(model).items() if path in masks}
    return [by_id.get(id(variable)) for variable in model.weights]


def same_bits(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)


def check(model: keras.Model, imp: lth.IMPCallback, ledger: Ledger, weights: int, rounds: int = 2) -> None:
    """Exact counts; round begins are W_k ⊙ m bit by bit, what no mask names untouched; zeros to the end."""
    counts = survivors(weights, rounds)
    assert [level.remaining for level in imp.history] == counts
    assert [imp.masks(r).remaining for r in range(rounds + 1)] == counts
    assert len(ledger.begin) == len(ledger.end) == rounds + 1  # one epoch a round
    for round in range(1, rounds + 1):
        masks = mask_of_each(model, imp.masks(round))
        assert sum(mask is not None for mask in masks) == len(imp.masks(round))
        same_bits(ledger.begin[round], masked(ledger.at_k, masks))
        before = mask_of_each(model, imp.masks(round - 1))
        check_cut(ledger.end[round - 1], before, masks)
        no_pruned_weight(ledger.end[round], masks)
    no_pruned_weight(model.get_weights(), mask_of_each(model, imp.masks(rounds)))
    assert surgery.masks_of(model) == imp.masks(rounds)


def masked(values: list[np.ndarray], masks: list[np.ndarray | None]) -> list[np.ndarray]:
    """The values, 0 where a mask says so."""
    pairs = zip(values, masks, strict=True)
    return [value if mask is None else np.where(mask, value, 0).astype(value.dtype) for value, mask in pairs]


def no_pruned_weight(values: list[np.ndarray], masks: list[np.ndarray | None]) -> None:
    assert sum(int(np.count_nonzero(v[~m])) for v, m in zip(values, masks, strict=True) if m is not None) == 0


def check_cut(trained: list[np.ndarray], before: list[np.ndarray | None], after: list[np.ndarray | None]) -> None:
    """Masks shrink, and nothing that was cut is larger than what was kept, over the whole network."""
    cut = [0.0]
    least = np.inf
    for value, old, new in zip(trained, before, after, strict=True):
        if old is None or new is None:
            assert old is None and new is None
            continue
        assert not np.any(new & ~old)
        size = np.abs(value.astype("float64"))
        least = min([least, *size[new]])
        cut.extend(size[old & ~new])
    assert len(cut) > 1 and max(cut) <= least
