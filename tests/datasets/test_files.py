"""The order of data in files: a function of (seed, step, host) that can be resumed, forked and shared."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_lth.datasets import RandomResizedCrop, from_files
from keras_lth.datasets.files import order_key
from tests.datasets import reference_augment as reference
from tests.datasets.reference_order import expected_order
from tests.forms import short_if

N = 41


def numbers(index, count):
    """Example i is an image full of i."""
    x = np.arange(N, dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 4, 1), np.float32)
    return tf.data.Dataset.from_tensor_slices((x, np.arange(N))).shard(count, index)


def streamed(**options):
    return from_files(numbers, **{"batch_size": 4, "seed": 3, "window": 8, **options})


def labels(stream):
    return [y.tolist() for _, y in stream.as_numpy_iterator()]


def flat(stream):
    return [y for batch in labels(stream) for y in batch]


# --- the order ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "epoch"), short_if(lambda _, epoch: epoch == 5, [(3, 0), (2**62, 5)]))
def test_windows_of_records_are_permuted(seed, epoch):
    mine = list(range(1, N, 2))
    key = order_key(seed, epoch, 1)
    expected = []
    for number, begin in enumerate(range(0, len(mine), 8)):
        window = mine[begin : begin + 8]
        expected += [window[i] for i in expected_order(len(window), key, number + 1)]
    got = labels(streamed().stream(epoch, seed, hosts=2, host=1))
    assert got == [expected[b : b + 2] for b in range(0, 20, 2)]


@pytest.mark.parametrize("hosts", short_if(lambda hosts: hosts == 2, [1, 2, 4]))
def test_hosts_share_an_epoch(hosts):
    data = streamed()
    steps = N // hosts // (4 // hosts)
    assert data.steps_among(hosts) == steps
    for epoch in range(2):
        parts = [labels(data.stream(epoch, hosts=hosts, host=host)) for host in range(hosts)]
        assert [len(part) for part in parts] == [steps] * hosts
        assert {len(batch) for part in parts for batch in part} == {4 // hosts}
        seen = [y for part in parts for batch in part for y in batch]
        assert len(set(seen)) == len(seen) == steps * 4
    assert streamed(hosts=hosts, host=hosts - 1).steps_per_epoch == steps


def test_which_examples_are_left_out_changes():
    data = from_files(numbers, batch_size=4, seed=3, window=N)
    assert len({frozenset(range(N)) - {*flat(data.stream(epoch))} for epoch in range(6)}) > 2


@pytest.mark.parametrize("first", short_if(lambda first: first in (4, 10), [0, 1, 4, 5, 9, 10]))
def test_a_resumed_stream_is_the_tail_of_the_whole(first):
    data = streamed(augment=["flip", "crop"])
    whole, tail = ([(x.tobytes(), y.tolist()) for x, y in data.stream(2, first=f).as_numpy_iterator()]
                   for f in (0, first))  # fmt: skip
    assert len(whole) == 10
    assert tail == whole[first:]


def test_a_fork_shares_everything_before():
    trunk, branch = streamed(augment="crop"), streamed(augment="crop")
    common = [[x.numpy().tobytes() for x, _ in data.stream(0).take(6)] for data in (trunk, branch)]
    assert common[0] == common[1]
    branch.seek(6, seed=4)
    assert (trunk.position, branch.position, branch.seed) == ((3, 0), (4, 6), 4)
    rest = [labels(data.stream(0, first=6)) for data in (trunk, branch)]
    assert rest[0] == labels(streamed().stream(0, 3))[6:]
    assert rest[0] != rest[1]


def test_orders_differ_by_seed_epoch_and_nothing_else():
    data = streamed()
    orders = [labels(data.stream(epoch, seed)) for epoch, seed in ((0, 3), (1, 3), (0, 4))]
    assert len({str(order) for order in orders}) == 3
    tf.random.set_seed(77)
    assert labels(streamed(seed=9).stream(0, 3)) == orders[0]


def test_unshuffled_is_the_order_of_the_shards_and_keeps_the_rest_on_one_host():
    data = streamed(shuffle=False)
    assert data.steps_per_epoch == 11
    for epoch in range(2):
        assert flat(data.stream(epoch)) == list(range(N))
    assert labels(data.stream(0, first=9)) == [[36, 37, 38, 39], [40]]
    assert labels(data.stream(0, hosts=2, host=1)) == [[i, i + 2] for i in range(1, 40, 4)]


PROGRAM = """
import hashlib, random, tensorflow as tf
from tests.datasets.test_files import streamed
tf.random.set_seed(random.randrange(1000)); hash("x")
digest = hashlib.sha256()
for host in range(2):
    for x, y in streamed(augment=["flip", "crop"]).stream(1, hosts=2, host=host).as_numpy_iterator():
        digest.update(x.tobytes() + y.tobytes())
print(digest.hexdigest())
"""


def test_two_processes_give_the_same_bits():
    other = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONHASHSEED": "1", "TF_NUM_INTRAOP_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    with contextlib.redirect_stdout(io.StringIO()) as own:
        exec(PROGRAM, {})
    assert own.getvalue() == other
    assert len(other.strip()) == 64


# --- the values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", short_if(lambda hosts: hosts == 2, [1, 2]))
def test_augmentation_draws_by_seed_epoch_and_identity(hosts):
    picture = np.arange(N * 16, dtype=np.float32).reshape(N, 4, 4, 1)
    whole = tf.data.Dataset.from_tensor_slices((picture, np.arange(N)))
    data = from_files(lambda i, count: whole.shard(count, i), batch_size=4, seed=3, augment=["flip", "crop"])
    count = 0
    for host in range(hosts):
        for batch in data.stream(1, hosts=hosts, host=host).as_numpy_iterator():
            for x, i in zip(*batch, strict=True):
                flipped = reference.flip(picture[i], 3, 1, int(i))
                np.testing.assert_array_equal(x, reference.crop(flipped, 4, 3, 1, int(i), stage=1))
                count += 1
    assert count == 40


def test_images_of_many_sizes_are_decoded_and_augmented_one_by_one():
    def decode(i):
        i = tf.cast(i, tf.int32)
        image = tf.reshape(tf.range((3 + i) * 5), [3 + i, 5, 1])
        return tf.cast(image, tf.float32), i

    data = from_files(
        lambda index, count: tf.data.Dataset.range(12).shard(count, index),
        batch_size=4, seed=3, decode=decode, augment=RandomResizedCrop(6),
    )  # fmt: skip
    assert data.element_spec[0].shape.as_list() == [4, 6, 6, 1]
    for x, y in data.stream(2).as_numpy_iterator():
        for image, i in zip(x, y, strict=True):
            picture = decode(i)[0].numpy()
            expected = reference.random_resized_crop(picture, 6, (0.08, 1), (3 / 4, 4 / 3), 3, 2, int(i))
            np.testing.assert_allclose(image, expected, atol=1e-4)


def test_what_comes_before_is_not_decoded():
    decoded = []

    def note(i):
        tf.py_function(lambda i: decoded.append(int(i)), [i], [])
        return tf.cast(i, tf.float32), i

    data = from_files(
        lambda index, count: tf.data.Dataset.range(40).shard(count, index), batch_size=4, seed=3, decode=note
    )
    tail = [y for _, batch in data.stream(0, first=8).as_numpy_iterator() for y in batch.tolist()]
    assert sorted(decoded) == sorted(tail)
    assert len(tail) == 8


# --- arguments ---------------------------------------------------------------------------------------------------


def unknown(index, count):
    return numbers(index, count).filter(lambda x, y: True)


def test_a_number_of_examples_must_be_known_and_true():
    with pytest.raises(ValueError, match=r"shard\(0, 1\) does not report .* examples="):
        from_files(unknown, batch_size=4, seed=0)
    assert len(labels(from_files(unknown, batch_size=4, seed=0, examples=N).stream(0))) == 10
    with pytest.raises(tf.errors.FailedPreconditionError, match="12"):
        labels(from_files(unknown, batch_size=4, seed=0, examples=48).stream(0))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"batch_size": 0}, "batch_size must be"),
        ({"seed": -1}, "seed must be"),
        ({"hosts": 0}, "hosts must be"),
        ({"hosts": 2, "host": 2}, "host must be"),
        ({"window": 0}, "window must be"),
        ({"hosts": 3}, "3 hosts cannot share a batch of 4"),
        ({"batch_size": 84, "hosts": 2}, "has only 20 examples, less than its 42"),
        ({"augment": "flop"}, "augment: 'flop'"),
    ],
)
def test_bad_arguments_are_named(changed, named):
    with pytest.raises(ValueError, match=named):
        streamed(**changed)


def test_bad_positions_are_named():
    data = streamed()
    for call, named in [
        (lambda: data.seek(-1), "step"),
        (lambda: data.seek(0, 2**63), "seed"),
        (lambda: data.stream(-1), "epoch"),
        (lambda: data.stream(0, first=11), "first"),
        (lambda: data.stream(0, hosts=2, host=2), "host"),
        (lambda: data.stream(0, hosts=3), "3 hosts"),
    ]:
        with pytest.raises(ValueError, match=named):
            call()
    assert data.position == (3, 0)
