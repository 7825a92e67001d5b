"""The order of `ordered` against loops, peeks and seeks, and what the batches hold."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_lth.datasets import ordered
from tests.datasets.reference_order import expected_batches, expected_order
from tests.forms import examples


def batches(data):
    return [batch.tolist() for batch in data.as_numpy_iterator()]


# --- the order ---------------------------------------------------------------------------------------------------


@settings(max_examples=examples(15), deadline=None)
@given(
    n=st.integers(1, 40),
    batch=st.integers(1, 45),
    seed=st.integers(0, 2**63 - 1),
    step=st.one_of(st.integers(0, 100), st.integers(0, 2**62 - 1)),
    other=st.integers(0, 2**63 - 1),
)
def test_iterators_yield_the_loops(n, batch, seed, step, other):
    data = ordered(np.arange(n), batch_size=batch, seed=seed)
    steps = data.steps_per_epoch
    assert steps == len(data) == len(range(0, n, batch))
    assert [batches(data) for _ in range(2)] == expected_batches(n, batch, seed, 0, 2)
    assert data.position == (seed, 2 * steps)
    data.seek(step)
    assert data.position == (seed, step)
    assert [batches(data) for _ in range(2)] == expected_batches(n, batch, seed, step, 2)
    assert data.position == (seed, (step // steps + 2) * steps)
    data.seek(step, seed=other)
    assert (data.position, data.seed) == ((other, step), other)
    assert [batches(data)] == expected_batches(n, batch, other, step, 1)


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 0), (0, 1), (2**63 - 1, 2**40)])
def test_order_is_a_permutation_of_its_own(seed, epoch):
    data = ordered(np.zeros(101), batch_size=7, seed=3)
    order = data.order(epoch, seed)
    assert order.tolist() == expected_order(101, seed, epoch)
    assert sorted(order.tolist()) == list(range(101))
    assert data.order(epoch).tolist() == expected_order(101, 3, epoch)
    assert data.position == (3, 0)


def test_positions_in_the_order_are_uniform():
    # Counts of (example, place) over 500 epochs of 5: chi-square with 16 degrees of freedom, 99.99 % at 45.1.
    data = ordered(np.zeros(5), batch_size=5, seed=11)
    counts = np.zeros((5, 5))
    for epoch in range(500):
        counts[data.order(epoch), np.arange(5)] += 1
    assert ((counts - 100) ** 2 / 100).sum() * 4 / 5 < 45.1


def test_unshuffled_is_the_order_of_the_arrays_every_time():
    data = ordered(np.arange(10), batch_size=4, seed=0, shuffle=False)
    for _ in range(3):
        assert batches(data) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert data.order(7).tolist() == list(range(10))
    data.seek(1)
    assert batches(data) == [[4, 5, 6, 7], [8, 9]]
    assert batches(data) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


# --- peeks, seeks, stale iterators -------------------------------------------------------------------------------


@pytest.mark.parametrize(("drawn", "used"), [(1, False), (8, False), (9, True), (20, True)])
def test_a_look_uses_nothing_up(drawn, used):
    data = ordered(np.arange(40), batch_size=2, seed=5)
    looked = list(data.take(drawn).as_numpy_iterator())
    assert len(looked) == drawn
    step = 20 if used else 0
    assert data.position == (5, step)
    assert [batches(data)] == expected_batches(40, 2, 5, step, 1)


def test_a_short_epoch_is_used_up_by_its_last_batch():
    data = ordered(np.arange(6), batch_size=2, seed=5)
    iterator = iter(data)
    for step in (0, 0, 3):
        next(iterator)
        assert data.position == (5, step)


def test_two_iterators_of_one_epoch_use_one_epoch():
    data = ordered(np.arange(40), batch_size=2, seed=5)
    first, second = iter(data), iter(data)
    for a, b in zip(first, second, strict=True):
        assert a.numpy().tolist() == b.numpy().tolist()
    assert data.position == (5, 20)


def test_a_late_iterator_does_not_take_the_position_back():
    data = ordered(np.arange(40), batch_size=2, seed=5)
    late = iter(data)
    next(late)
    batches(data), batches(data)
    assert data.position == (5, 40)
    assert len(list(late)) == 19
    assert data.position == (5, 40)


@pytest.mark.parametrize("target", [0, 7, 20, 33])
@pytest.mark.parametrize("drawn", [1, 8, 12])
def test_a_seek_wins_over_live_iterators(drawn, target):
    data = ordered(np.arange(40), batch_size=2, seed=5)
    live = iter(data)
    before = [next(live).numpy().tolist() for _ in range(drawn)]
    data.seek(target)
    assert data.position == (5, target)
    after = [batch.numpy().tolist() for batch in live]
    assert [before + after] == expected_batches(40, 2, 5, 0, 1)  # the live one goes on undisturbed
    assert data.position == (5, target)
    assert [batches(data) for _ in range(2)] == expected_batches(40, 2, 5, target, 2)


def test_an_iterator_made_before_a_seek_that_has_not_drawn_follows_it():
    data = ordered(np.arange(40), batch_size=2, seed=5)
    iterator = iter(data)
    data.seek(13, seed=6)
    assert [[batch.numpy().tolist() for batch in iterator]] == expected_batches(40, 2, 6, 13, 1)


def test_seeks_from_another_thread_are_never_lost():
    data = ordered(np.arange(40), batch_size=2, seed=5)
    for round_ in range(30):
        live = iter(data)
        reader = threading.Thread(target=lambda it=live: list(it))
        reader.start()
        data.seek(round_)
        reader.join()
        # The reader drew first and was overruled, or drew after the seek and used that epoch.
        assert data.position in {(5, round_), (5, (round_ // 20 + 1) * 20)}
        data.seek(round_)
        assert data.position == (5, round_)


def test_a_fork_shares_everything_before():
    trunk, branch = (ordered(np.arange(30), batch_size=4, seed=1) for _ in range(2))
    common = [batches(data)[:5] for data in (trunk, branch)]
    assert common[0] == common[1]
    trunk.seek(5)
    branch.seek(5, seed=2)
    rest = [[batches(data) for _ in range(3)] for data in (trunk, branch)]
    assert rest == [expected_batches(30, 4, seed, 5, 3) for seed in (1, 2)]
    assert rest[0] != rest[1]


# --- the values --------------------------------------------------------------------------------------------------


def test_trees_keep_their_shape_and_their_rows_together():
    x = {"a": np.arange(10), "b": (np.arange(10) * 2, np.arange(20).reshape(10, 2))}
    data = ordered(x, [np.arange(10) * 3], np.arange(10) / 10, batch_size=3, seed=4)
    order = expected_order(10, 4, 0)
    for b, (bx, (by,), bw) in enumerate(data):
        rows = np.array(order[3 * b : 3 * b + 3])
        assert bx["a"].numpy().tolist() == rows.tolist()
        assert bx["b"][0].numpy().tolist() == (rows * 2).tolist()
        assert bx["b"][1].numpy().tolist() == [[2 * r, 2 * r + 1] for r in rows]
        assert by.numpy().tolist() == (rows * 3).tolist()
        np.testing.assert_array_equal(bw, (rows / 10).astype(np.float32))


def test_without_y_an_array_comes_alone_and_a_tuple_as_one_input():
    assert isinstance(ordered(np.arange(4), batch_size=2, seed=0).element_spec, tf.TensorSpec)
    spec = ordered((np.arange(4), np.arange(4)), batch_size=2, seed=0).element_spec
    assert [len(spec), len(spec[0])] == [1, 2]


def test_dtypes_are_those_of_fit():
    spec = ordered(np.zeros((4, 1)), np.zeros(4, np.int16), batch_size=2, seed=0).element_spec
    assert [part.dtype for part in spec] == [tf.float32, tf.int16]


@pytest.mark.parametrize(("n", "batch", "static"), [(12, 4, 4), (13, 4, None), (3, 4, 3), (4, 4, 4)])
def test_the_batch_size_is_static_where_batches_are_equal(n, batch, static):
    assert ordered(np.zeros((n, 5)), batch_size=batch, seed=0).element_spec.shape.as_list() == [static, 5]


@pytest.mark.parametrize(
    ("arguments", "changed", "named"),
    [
        ((np.zeros(4),), {"batch_size": 0}, "batch_size"),
        ((np.zeros(4),), {"batch_size": 2.0}, "batch_size"),
        ((np.zeros(4),), {"seed": -1}, "seed"),
        ((np.zeros(4),), {"seed": 2**63}, "seed"),
        ((np.zeros(4),), {"seed": None}, "seed"),
        ((np.zeros(4),), {"seed": True}, "seed"),
        ((np.zeros(4), np.zeros(5)), {}, r"'x': 4, 'y': 5"),
        (({"a": np.zeros(4), "b": np.zeros(3)},), {}, r"x\['b'\]"),
        ((np.zeros(4), np.zeros(4), np.zeros(1)), {}, "sample_weight"),
        ((np.zeros(4), None, np.zeros(4)), {}, "sample_weight needs y"),
        ((np.zeros((0, 3)),), {}, "no examples"),
        ((None,), {}, "no array"),
        (((),), {}, "no array"),
        ((3.0,), {}, "x must be an array"),
    ],
)
def test_bad_arguments_are_named(arguments, changed, named):
    with pytest.raises(ValueError, match=named):
        ordered(*arguments, **{"batch_size": 2, "seed": 0, **changed})


def test_bad_seeks_are_named_and_change_nothing():
    data = ordered(np.arange(4), batch_size=2, seed=1)
    for arguments, named in [
        ((-1,), "step"),
        ((2**62,), "step"),
        ((1.5,), "step"),
        ((0, -1), "seed"),
        ((0, "a"), "seed"),
    ]:
        with pytest.raises(ValueError, match=named):
            data.seek(*arguments)
    with pytest.raises(ValueError, match="epoch"):
        data.order(-1)
    assert data.position == (1, 0)
