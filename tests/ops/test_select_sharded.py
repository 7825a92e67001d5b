"""Selection over shards, in one process and over processes, against the selection over everything put together."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lth import ops

sys.path.insert(0, str(Path(__file__).resolve().parent))

from select_cases import DTYPES, ORDERS, bools, numpy_only, same, shaped

from tests.forms import examples, spread

ROUNDS = {"float64": 6, "float32": 3, "float16": 2, "bfloat16": 2}


def together(shards: list[ops.ShardedSelection]) -> list[list[np.ndarray]]:
    """The protocol by hand, all shards in this process."""
    while not shards[0].done:
        summed = np.sum([shard.histogram() for shard in shards], axis=0)
        assert summed.dtype == np.int64 and summed.shape == (2048,)
        for shard in shards:
            shard.refine(summed)
    ties = [shard.ties() for shard in shards]
    return [shard.masks(sum(ties[:i])) for i, shard in enumerate(shards)]


@st.composite
def sharded(draw: st.DrawFn) -> dict[str, Any]:
    dtype = draw(st.sampled_from(DTYPES))
    shapes = st.lists(st.lists(st.integers(0, 6), max_size=2).map(tuple), max_size=3)
    shards = [[draw(shaped(dtype, shape)) for shape in draw(shapes)] for _ in range(draw(st.integers(1, 4)))]
    masks = [[draw(bools(array.shape)) for array in arrays] for arrays in shards] if draw(st.booleans()) else None
    eligible = sum(a.size for s in shards for a in s) if masks is None else sum(int(m.sum()) for s in masks for m in s)
    by, largest = draw(st.sampled_from(ORDERS))
    return {
        "dtype": dtype, "shards": shards, "masks": masks, "k": draw(st.integers(0, eligible)), "by": by,
        "largest": largest, "packed": draw(st.booleans()),
    }  # fmt: skip


def check(case: dict[str, Any]) -> None:
    options = {name: case[name] for name in ("by", "largest", "packed")}
    everything = [array for arrays in case["shards"] for array in arrays]
    masks = None if case["masks"] is None else [mask for shard in case["masks"] for mask in shard]
    whole = ops.top_k(everything, case["k"], masks=masks, **options)
    shards = [
        ops.ShardedSelection(
            arrays,
            case["k"],
            masks=None if case["masks"] is None else case["masks"][i],
            dtype=case["dtype"].name,
            **options,
        )
        for i, arrays in enumerate(case["shards"])
    ]
    got = together(shards)
    assert same([mask for masks in got for mask in masks], whole.masks)
    # Fewer where the threshold is at an end of all keys.
    assert len({shard.rounds for shard in shards}) == 1 and shards[0].rounds <= ROUNDS[case["dtype"].name]
    for shard in shards:
        assert (shard.threshold is None) == (case["k"] == 0)
        if case["k"]:
            assert shard.threshold == whole.threshold and shard.threshold.dtype == case["dtype"]


@settings(max_examples=examples(150), deadline=None)
@given(sharded())
def test_shards_in_one_process(case: dict[str, Any]) -> None:
    check(case)


@settings(max_examples=examples(40), deadline=None)
@given(sharded())
def test_shards_without_the_extension(case: dict[str, Any]) -> None:
    with numpy_only():
        check(case)


@pytest.mark.parametrize(("dtype", "order"), spread(2, DTYPES, ORDERS))
def test_large_shards_with_ties(dtype: np.dtype[Any], order: tuple[str, bool]) -> None:
    by, largest = order
    random = np.random.default_rng(6)
    coarse = [np.round(random.standard_normal(n) * 4).astype(dtype) for n in (70_000, 5, 0, 130_001)]
    normal = [random.standard_normal(n).astype(dtype) for n in (70_000, 5, 0, 130_001)]
    for arrays in (coarse, normal):
        for k in (1, 77_777, 200_005, 200_006):
            whole = ops.top_k(arrays, k, by=by, largest=largest)
            shards = [ops.ShardedSelection([array], k, by=by, largest=largest) for array in arrays]
            assert same([masks[0] for masks in together(shards)], whole.masks)
            assert shards[0].rounds == (ROUNDS[dtype.name] if float(whole.threshold) else shards[0].rounds)
            assert sum(shard.ties() for shard in shards) == sum(
                int(((np.abs(a) if by == "magnitude" else a) == whole.threshold).sum()) for a in arrays
            )


def data(shard: int) -> list[np.ndarray]:
    """Weights of one host, a function of its number; zeros are ties."""
    random = np.random.default_rng(shard)
    sizes = [(40, 50), (1000 * shard,), (3, 3, 8, 9)]
    return [(random.standard_normal(size) * (random.random(size) < 0.5)).astype(np.float32) for size in sizes]


def host(pipe: Connection, shard: int, shards: int, k: int, broken: int) -> None:
    """A process that owns one shard; sums are made by the parent."""

    def all_reduce(array: np.ndarray) -> np.ndarray:
        pipe.send(array)
        return pipe.recv()

    arrays = data(shard)
    if shard == broken:
        arrays[1][7] = np.nan
    try:
        selection = ops.ShardedSelection(arrays, k, packed=True)
        pipe.send(("masks", selection.run(all_reduce, shard, shards)))
    except ValueError as error:
        pipe.send(("error", str(error)))


def over_processes(shards: int, k: int, broken: int = -1) -> tuple[list[Any], list[tuple[tuple[int, ...], ...]]]:
    """What each process ended with, and the shapes that it sent."""
    context = multiprocessing.get_context("spawn")
    pipes, children = [], []
    for shard in range(shards):
        ours, theirs = context.Pipe()
        child = context.Process(target=host, args=(theirs, shard, shards, k, broken), daemon=True)
        child.start()
        pipes.append(ours)
        children.append(child)
    sent: list[list[tuple[int, ...]]] = [[] for _ in pipes]
    while True:
        assert all(pipe.poll(120) for pipe in pipes), "a host does not answer"
        received = [pipe.recv() for pipe in pipes]
        if isinstance(received[0], tuple):
            break
        for i, array in enumerate(received):
            assert array.dtype == np.int64
            sent[i].append(array.shape)
        for pipe in pipes:
            pipe.send(np.sum(received, axis=0))
    for child in children:
        child.join(60)
    return received, [tuple(shapes) for shapes in sent]


def test_over_processes() -> None:
    arrays = [array for shard in range(3) for array in data(shard)]
    eligible = sum(array.size for array in arrays)
    for k in (2000, int(0.7 * eligible)):  # the second one cuts through the zeros, ties of all hosts
        received, sent = over_processes(3, k)
        # Three histograms of 16 KiB and one vector with a number for each host.
        assert sent == [((2048,), (2048,), (2048,), (3,))] * 3
        assert [kind for kind, _ in received] == ["masks"] * 3
        assert same([mask for _, masks in received for mask in masks], ops.top_k_masks(arrays, k, packed=True))


def test_a_nan_ends_all_processes() -> None:
    received, sent = over_processes(3, 100, broken=1)
    assert [kind for kind, _ in received] == ["error"] * 3
    assert "arrays[1] has a NaN at flat index 7" in received[1][1]
    assert received[0][1] == received[2][1] == "another shard has a NaN"
    assert sent == [((2048,),)] * 3


def test_run_in_threads() -> None:
    """The driver with an all-reduce that waits for the others, as those of clusters do."""
    shards, k = 4, 3000
    barrier, sums, results = threading.Barrier(shards), [np.zeros(0)] * shards, [[]] * shards

    def work(shard: int) -> None:
        def all_reduce(array: np.ndarray) -> np.ndarray:
            sums[shard] = array
            barrier.wait(60)
            total = np.sum(sums, axis=0)
            barrier.wait(60)
            return total

        results[shard] = ops.ShardedSelection(data(shard), k).run(all_reduce, shard, shards)

    threads = [threading.Thread(target=work, args=(shard,)) for shard in range(shards)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    expected = ops.top_k_masks([array for shard in range(shards) for array in data(shard)], k)
    assert same([mask for masks in results for mask in masks], expected)


def test_one_shard_needs_nobody() -> None:
    x = [np.array([3.0, -1.0, 3.0, 2.0, -3.0])]
    assert ops.ShardedSelection(x, 2).run(lambda array: array)[0].tolist() == [True, False, True, False, False]


@pytest.mark.parametrize("core", [True, False])
def test_misuse(core: bool) -> None:
    with pytest.MonkeyPatch.context() if core else numpy_only():
        x = np.ones(10, np.float32)
        new = ops.ShardedSelection([x], 3)
        for call in (lambda: new.ties(), lambda: new.masks(0), lambda: new.threshold):
            with pytest.raises(RuntimeError, match="refine until done"):
                call()
        with pytest.raises(RuntimeError, match=r"call histogram\(\) first"):
            new.refine(np.zeros(2048, np.int64))
        mine = new.histogram()
        assert mine.sum() == 10
        with pytest.raises(ValueError, match=r"summed must be int64 of shape \(2048,\), not float64 of \(2048,\)"):
            new.refine(mine.astype(float))
        with pytest.raises(ValueError, match=r"not int64 of \(7,\)"):
            new.refine(mine[:7])
        with pytest.raises(ValueError, match="less than the counts of this shard alone"):
            new.refine(mine - mine)
        new.refine(mine)
        with pytest.raises(ValueError, match=r"less than|does not contain the counts"):
            new.histogram()
            new.refine(np.zeros(2048, np.int64))
        while not new.done:
            new.refine(new.histogram())
        with pytest.raises(RuntimeError, match="nothing to refine"):
            new.histogram()
        with pytest.raises(ValueError, match="ties_before = -1 is negative"):
            new.masks(-1)
        with pytest.raises(TypeError, match="ties_before must be an integer"):
            new.masks(0.5)
        assert new.ties() == 10 and [int(new.masks(before)[0].sum()) for before in (0, 2, 3, 99)] == [3, 1, 0, 0]
        many = ops.ShardedSelection([x], 11)
        with pytest.raises(ValueError, match=r"k = 11 is outside 0\.\.\.10"):
            many.refine(many.histogram())
        for arguments, kind, pattern in [
            (([x], -1), ValueError, "k = -1 is negative"),
            (([x], 1.5), TypeError, "k must be an integer"),
            (([], 1), ValueError, "needs the dtype of the others"),
            (([x.astype(int)], 1), TypeError, r"arrays\[0\] is int64"),
        ]:
            with pytest.raises(kind, match=pattern):
                ops.ShardedSelection(*arguments)
        with pytest.raises(TypeError, match=r"arrays\[0\] is float32, not float64"):
            ops.ShardedSelection([x], 1, dtype="float64")
        with pytest.raises(ValueError, match=r"shard = 2 is outside 0\.\.\.1"):
            ops.ShardedSelection([x], 1).run(lambda array: array, 2, 2)
        empty = ops.ShardedSelection([], 0, dtype="bfloat16")
        empty.refine(empty.histogram())
        assert empty.masks(0) == [] and empty.threshold is None
        later = ops.ShardedSelection([np.zeros(0, ml_dtypes.bfloat16)], 1)
        later.refine(later.histogram() + np.eye(1, 2048, 5, dtype=np.int64)[0])
        assert not later.done and later.rounds == 1
