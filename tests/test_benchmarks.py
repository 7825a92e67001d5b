"""The benchmark's own arithmetic: masks, floors, break-even, turns. Its times are its own business."""

import importlib
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from keras_lth.ops import SparseStructure

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    """Loads a module of the folder as the scripts do."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


@pytest.mark.parametrize("block", [(1, 1), (4, 4), (1, 16), (16, 1)])
def test_a_block_mask_keeps_whole_blocks_and_as_many_as_asked(bench, block):
    mask = bench("cases").block_mask((3, 64, 48), block, 0.9)
    assert mask.shape == (3, 64, 48)
    tiles = mask.reshape(3, 64 // block[0], block[0], 48 // block[1], block[1])
    per_block = tiles.sum(axis=(2, 4))
    assert set(np.unique(per_block)) <= {0, block[0] * block[1]}
    assert (per_block > 0).sum() == round(0.1 * per_block.size)


@pytest.mark.parametrize(
    ("ratio", "floor", "at_most", "met"),
    [(8.5, 8.5, False, True), (8.49, 8.5, False, False), (1.5, 1.5, True, True), (1.51, 1.5, True, False)],
)
def test_a_floor_is_met_or_visibly_not(bench, ratio, floor, at_most, met):
    rows = bench("rows")
    row = rows.Row("work", 1.0, "peer", ratio, ratio, floor, at_most)
    assert row.met is met
    assert ("**no**" in rows.table([row])) is not met
    assert rows.verdict([row]).startswith(f"{int(met)} of 1 floors met")
    assert ("missed" in rows.verdict([row])) is not met
    assert rows.from_json(row.json()) == row


def test_a_line_without_a_floor_is_not_judged(bench):
    rows = bench("rows")
    row = rows.faster("work", 2.0, "peer", 9.0)
    assert (row.ratio, row.met) == (4.5, None)
    assert rows.verdict([row]) == "0 of 0 floors met."


@pytest.mark.parametrize("cost", [0.35, 0.6, 0.93])
def test_break_even_of_a_product_whose_time_is_density_over_its_efficiency(bench, cost):
    # ratio = efficiency / density is a straight line in the logarithms, so the crossing is exact: density = efficiency.
    wins_from = bench("products").wins_from
    points = [{"sparsity": s, "ratio": cost / (1 - s)} for s in (0.0, 0.2, 0.5, 0.8, 0.98)]
    assert wins_from(points) == pytest.approx(1 - cost)
    assert wins_from(points[::-1]) == pytest.approx(1 - cost)


def test_break_even_counts_from_the_last_loss(bench):
    wins_from = bench("products").wins_from
    points = [{"sparsity": s, "ratio": r} for s, r in ((0.0, 1.2), (0.5, 0.5), (0.75, 2.0), (0.9, 4.0))]
    assert wins_from(points) == pytest.approx(1 - np.sqrt(0.5 * 0.25))
    assert wins_from([{"sparsity": 0.2, "ratio": 1.1}, {"sparsity": 0.5, "ratio": 2}]) == 0.2
    assert wins_from([{"sparsity": 0.2, "ratio": 0.4}, {"sparsity": 0.5, "ratio": 0.9}]) is None


def test_turns_take_the_least_time_and_end_in_both_orders(bench):
    turns = bench("turns")
    order: list[str] = []

    def call(name: str, seconds: float):
        def run() -> None:
            order.append(name)
            time.sleep(seconds)

        return run

    ms = turns.in_turns({"a": call("a", 0.002), "b": call("b", 0.02)}, turns.Effort(turns=2, turn_ms=1, slow_ms=10))
    assert 2 <= ms["a"] < ms["b"]
    assert ms["b"] >= 20
    # Two first calls; then a turn of a (one uncounted) and of the slow b, and the same in the other order.
    assert order == ["a", "a", "b", "b", "a", "a", "b", "b", "a", "a"]


def test_a_wrong_result_is_not_timed(bench):
    cases = bench("cases")
    right = np.arange(1000, dtype=np.float32)
    cases.close("same", right * (1 + 1e-6), right)
    for wrong in (right + 1, np.full_like(right, np.nan)):
        with pytest.raises(RuntimeError, match="what differs"):
            cases.close("what differs", wrong, right)


@pytest.mark.parametrize("block", [1, 16])
def test_masks_of_whole_networks_keep_their_share_of_each_kernel(bench, block):
    nets, layers = bench("nets"), bench("sparse_layers")
    net = nets.Net("small", "transformer", (64, 4, 128, 1), (8, 64), "Adam", 2, ((0.75, block),), 1)
    model = layers.network(net)
    masks = layers.masks_of(model, 0.75, block)
    assert len(masks) == 6 + (block == 1)  # the head is narrower than a block
    for path, mask in masks.items():
        assert mask.mean() == pytest.approx(0.25, abs=1e-2), path
        SparseStructure.from_mask(layers.as_product(path, mask), block)  # raises where a block is kept in part
    assert all(mask.sum() == 1 for mask in layers.one_left(masks).values())


def test_a_ratio_is_the_median_of_neighbouring_turns(bench):
    found = bench("sparse_layers").ratio([2.0, 4.0, 12.0], [1.0, 1.0, 2.0])
    assert found == {"median": 4.0, "quartile 1": 2.0, "quartile 3": 6.0}
