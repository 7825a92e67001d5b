"""What a user does with a model, step by step, and whether each step was right.

Two instances are walked, so that a model is traced twice and no more: one finds tickets from its dense start; the
other, with other automatic names, is masked before its first step and takes the first one's ticket at the end.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_lth as lth
from tests.zoo.kinds import BATCH, STEPS, Kind

OK = "ok"
REFUSED = "refused"
NAMES = ("prunable", "mask", "fit", "rewind", "report", "save", "IMP", "ticket")


class Walk:
    """The steps of one kind of model; each raises where something is wrong."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.first, self.second = kind.compiled(seed=0), kind.compiled(seed=1)
        self.masks: dict[str, np.ndarray] = {}

    def fit(self, model: keras.Model, **options: Any) -> None:
        model.fit(self.kind.x, self.kind.y, batch_size=BATCH, verbose=0, **options)

    def prunable(self) -> None:
        """Every weight of rank 2 or more is of a known kind."""
        assert len(lth.prunable(self.second)) > 1
        assert not lth.unknown_layers(self.second)

    def mask(self) -> None:
        scores = lth.criteria.Magnitude()(self.second)
        self.masks = dict(lth.mask(self.second, lth.select(scores, density=0.5, scope="layer")))
        check_zeros(self.second, self.masks)
        assert all(abs(int(mask.sum()) - mask.size / 2) <= 0.5 for mask in self.masks.values())

    def fit_masked(self) -> None:
        before = weights(self.second, self.masks)
        self.fit(self.second)
        check_zeros(self.second, self.masks)
        after = weights(self.second, self.masks)
        assert all(np.isfinite(value).all() for value in after.values())
        assert any(not np.array_equal(before[path], after[path]) for path in self.masks)

    def rewind(self) -> None:
        kept = lth.snapshot(self.second)
        assert kept.step == STEPS
        self.fit(self.second)
        assert not lth.snapshot(self.second).same_bits(kept)
        lth.rewind(self.second, kept, restore_optimizer=True)
        assert lth.snapshot(self.second).differences(kept) == []

    def report(self) -> None:
        found = lth.sparsity(self.second)
        kept = sum(int(mask.sum()) for mask in self.masks.values())
        assert (found.size, found.remaining) == (sum(mask.size for mask in self.masks.values()), kept)
        assert all(path in str(found) for path in self.masks)

    def save(self) -> None:
        """Zeros stay in the files of the model, or of the parts that Keras can write."""
        pruned = 0
        for number, part in enumerate(self.kind.saved(self.second)):
            path = self.folder / f"{number}.keras"
            part.save(path)
            read, masks = keras.saving.load_model(path), lth.masks_of(part)
            same(lth.snapshot(read).weights, lth.snapshot(part).weights)
            check_zeros(read, masks)
            zeros = masks.size - masks.remaining
            assert sum(row.size - row.nonzero for row in lth.sparsity(read).rows) >= zeros
            pruned += zeros
        assert pruned == sum(int((~mask).sum()) for mask in self.masks.values())

    def imp(self) -> None:
        """Two rounds of a fifth each from the dense model, rewound into the middle of an epoch."""
        self.found = lth.IMPCallback(rounds=2, epochs_per_round=1, fraction=0.2, rewind_to="1 steps", verbose=0)
        self.fit(self.first, epochs=3, callbacks=[self.found])
        size = sum(int(np.prod(v.shape)) for v in lth.prunable(self.first).values())
        left, expected = size, [size]
        for _ in range(2):
            left -= round(0.2 * left)
            expected.append(left)
        assert [level.remaining for level in self.found.history] == expected
        assert [level.steps for level in self.found.history] == [STEPS, STEPS - 1, STEPS - 1]
        check_zeros(self.first, self.found.masks(2))
        assert lth.masks_of(self.first) == self.found.masks(2)

    def ticket(self) -> None:
        """The other instance takes masks and weights from the ticket's file, and trains on."""
        self.found.ticket().save(self.folder / "found.ticket")
        ticket = lth.Ticket.load(self.folder / "found.ticket")
        ticket.apply_to(self.second)
        worn = lth.masks_of(self.second)
        assert list(worn) == list(ticket.masks)
        assert all(np.array_equal(worn[path], ticket.masks[path]) for path in worn)
        same(lth.snapshot(self.second).weights, ticket.masks.apply(ticket.snapshot.weights))
        self.fit(self.second)
        check_zeros(self.second, ticket.masks)


def walk(kind: Kind, folder: Path) -> dict[str, str]:
    """Each step's outcome: ``ok``, ``refused`` where the kind expects the error, or what went wrong."""
    walked = Walk(kind, folder)
    w = walked
    steps = (w.prunable, w.mask, w.fit_masked, w.rewind, w.report, w.save, w.imp, w.ticket)
    return {name: _outcome(step, kind.refused.get(name)) for name, step in zip(NAMES, steps, strict=True)}


def _outcome(step: Callable[[], None], refused: str | None) -> str:
    try:
        step()
    except Exception as error:  # every step is tried, so that the table shows all that fails
        if refused is not None and re.search(refused, str(error)):
            return REFUSED
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    return OK if refused is None else f"was to be refused with {refused!r}"


def weights(model: keras.Model, paths: Any) -> dict[str, np.ndarray]:
    """Copies of the named weights."""
    variables = lth.surgery.variables(model)
    return {path: np.array(variables[path].numpy()) for path in paths}


def same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """The same arrays under the same names, bit by bit."""
    assert list(found) == list(expected)
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def check_zeros(model: keras.Model, masks: Any) -> None:
    """Every pruned weight is 0."""
    for path, value in weights(model, masks).items():
        revived = np.count_nonzero(value[~np.asarray(masks[path])])
        assert not revived, f"{revived} pruned weights of {path} are not 0"
