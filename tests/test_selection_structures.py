"""Blocks, neurons, n of every m and signed scores from a dictionary of scores."""

from __future__ import annotations

import numpy as np
import pytest

from keras_lth.masks import Masks
from keras_lth.selection import prune, select


def scores() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"conv/kernel": (3, 3, 4, 8), "dense/kernel": (20, 30), "out/kernel": (30, 10)}
    return {path: random.standard_normal(shape).astype(np.float32) for path, shape in shapes.items()}


def blocks(mask: np.ndarray, rows: int, cols: int) -> list[np.ndarray]:
    taps = mask.reshape(-1, *mask.shape[-2:])
    return [
        tap[r : r + rows, c : c + cols]
        for tap in taps
        for r in range(0, tap.shape[0], rows)
        for c in range(0, tap.shape[1], cols)
    ]


def test_blocks_are_kept_or_removed_as_one() -> None:
    masks = select(scores(), 0.25, structure=(4, 4))
    cut = {path: blocks(mask, 4, 4) for path, mask in masks.items()}
    assert all(block.all() or not block.any() for path in cut for block in cut[path])
    # 9 taps × 1 × 2, 5 × 8, 8 × 3 blocks, those at the edges smaller.
    assert {path: len(cut[path]) for path in cut} == {"conv/kernel": 18, "dense/kernel": 40, "out/kernel": 24}
    assert sum(block.all() for path in cut for block in cut[path]) == 21  # round half up of 82 / 4
    by_layer = select(scores(), 0.25, structure=(4, 4), scope="layer")
    assert [sum(b.all() for b in blocks(m, 4, 4)) for m in by_layer.values()] == [5, 10, 6]
    assert select(scores(), k=21, structure=(4, 4)) == masks
    for path, mask in select(scores(), k=1, structure=(4, 4)).items():
        means = [np.abs(block).mean() for block in blocks(np.asarray(scores()[path], np.float64), 4, 4)]
        kept = [block.any() for block in blocks(mask, 4, 4)]
        assert not any(kept) or kept.index(True) == int(np.argmax(means))


def test_neurons_and_channels() -> None:
    given = scores()
    masks = select(given, 0.5, structure="output", scope="layer")
    for path, mask in masks.items():
        columns = mask.reshape(-1, mask.shape[-1])
        assert (columns.all(0) | ~columns.any(0)).all() and columns.all(0).sum() == mask.shape[-1] // 2
        means = np.abs(given[path].astype(np.float64)).reshape(columns.shape).mean(0)
        assert set(np.flatnonzero(columns.all(0))) == set(np.argsort(-means)[: means.size // 2])
    inputs = select(given, k=7, structure="input")
    kept = [int(np.moveaxis(mask, -2, 0).reshape(mask.shape[-2], -1).all(1).sum()) for mask in inputs.values()]
    assert sum(kept) == 7 and inputs.remaining == sum(
        n * mask.size // mask.shape[-2] for n, mask in zip(kept, inputs.values(), strict=True)
    )
    assert select(given, k=1, structure="output", reduce="sum") != select(given, k=1, structure="output")


def test_two_of_four_inputs() -> None:
    given = scores()
    masks = select(given, structure="2:4", exclude="out")
    assert masks["out/kernel"].all()
    assert (masks["dense/kernel"].reshape(5, 4, 30).sum(1) == 2).all()
    assert (masks["conv/kernel"].sum(2) == 2).all()
    group = np.abs(given["dense/kernel"][:4, 7])
    assert set(np.flatnonzero(masks["dense/kernel"][:4, 7])) == set(np.argsort(-group)[:2])
    # 30 inputs: seven groups of four and one of two.
    assert select(given, structure="2:4")["out/kernel"].sum(0).tolist() == [16] * 10
    within = Masks({path: np.arange(array.size).reshape(array.shape) % 3 == 0 for path, array in given.items()})
    inside = select(given, structure="1:4", within=within)
    assert (inside & within) == inside
    assert inside.remaining == sum(
        int(np.logical_or.reduceat(m, np.arange(0, m.shape[-2], 4), axis=-2).sum()) for m in within.values()
    )


def test_signed_scores() -> None:
    given = {"a": np.array([1.0, -5.0, 3.0]), "b": np.array([-2.0, 0.0])}
    for by, largest, kept in [
        ("magnitude", True, [[0, 1, 1], [1, 0]]),
        ("value", True, [[1, 0, 1], [0, 1]]),
        ("value", False, [[0, 1, 0], [1, 1]]),
        ("magnitude", False, [[1, 0, 0], [1, 1]]),
    ]:
        masks = select(given, k=3, by=by, largest=largest)
        assert [mask.astype(int).tolist() for mask in masks.values()] == kept, (by, largest)
        assert prune(given, Masks.ones(given), 0.4, by=by, largest=largest) == masks


def test_cuts_of_blocks() -> None:
    """Of the blocks that remain a fifth goes, again and again; a removed block never comes back."""
    given, counts = scores(), []
    masks = Masks.ones(given)
    for _ in range(5):
        smaller = prune(given, masks, 0.2, structure=(4, 4))
        assert (smaller & masks) == smaller
        masks = smaller
        counts.append(sum(block.any() for mask in masks.values() for block in blocks(mask, 4, 4)))
    assert counts == [66, 53, 42, 34, 27]  # 82 − 16, − 13, − 11, − 8, − 7


def test_whole_numbers_and_mixed_dtypes() -> None:
    given = {"a": np.arange(16).reshape(4, 4), "b": np.full((4, 4), 100.0, np.float16)}
    assert select(given, k=4, structure=(2, 2))["b"].all()
    assert select(given, structure="1:2")["a"].tolist() == [[False] * 4, [True] * 4] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": 0.5, "structure": "block"}, "structure must be None, .* not 'block'"),
        ({"structure": "5:4"}, "1 <= n <= m"),
        ({"density": 0.5, "structure": "2:4", "exclude": "bias"}, "structure '2:4' fixes the density"),
        ({"structure": "2:4", "scope": "layer", "exclude": "bias"}, "structure '2:4' fixes the density"),
        (
            {"density": 0.5, "structure": (2, 2)},
            r"'bias' has shape \(5,\): structure \(2, 2\) needs inputs and outputs",
        ),
        ({"structure": "2:4"}, r"'bias' has shape \(5,\)"),
        ({"density": 0.5, "structure": (2, 0), "exclude": "bias"}, "at least 1"),
        ({"k": 100, "structure": (2, 2), "exclude": "bias"}, "cannot keep 100 of 9 eligible blocks in kernel"),
        ({"density": 0.01, "structure": "output", "exclude": "bias"}, "density 0.01 keeps none of 6 outputs"),
        ({"density": 0.5, "by": "size"}, "by must be"),
        ({"density": 0.5, "structure": (2, 2), "reduce": "max", "exclude": "bias"}, "reduce must be"),
    ],
)
def test_bad_structures(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select({"kernel": np.ones((5, 6)), "bias": np.ones(5)}, **arguments)


def test_what_cannot_be_cut_or_compared() -> None:
    given = {"kernel": np.ones((4, 4))}
    with pytest.raises(ValueError, match="which takes no fraction"):
        prune(given, Masks.ones(given), 0.2, structure="2:4")
    with pytest.raises(ValueError, match=r"fraction 0\.9 of the 4 remaining outputs would leave none"):
        prune(given, Masks.ones(given), 0.9, structure="output")
    given["kernel"][1, 2] = np.nan
    for structure in ("2:4", (2, 2), "input", None):
        with pytest.raises(ValueError, match="the score of 'kernel' is NaN at flat index 6"):
            select(given, None if structure == "2:4" else 0.5, structure=structure)
