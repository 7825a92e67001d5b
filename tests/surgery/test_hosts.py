"""What several hosts decide together, with the others' words put into their mouths."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lth import surgery
from keras_lth.masks import Masks
from keras_lth.surgery.hosts import Hosts

SHAPES = {"a": (3, 5), "b": (7,), "c": (2, 2, 2)}


class Among(Hosts):
    """One of several hosts; ``others`` gives for its own row those of the rest."""

    def __init__(self, index: int, *others: Any) -> None:
        super().__init__(tf.distribute.get_strategy())
        self.count, self.index, self.others = len(others) + 1, index, others
        self.said: list[np.ndarray] = []

    def gather(self, numbers: Any) -> np.ndarray:
        mine = np.asarray(numbers, np.int32).ravel()
        self.said.append(mine)
        rows = [np.asarray(other(mine), np.int32) for other in self.others]
        rows.insert(self.index, mine)
        return np.stack(rows)


def masks() -> Masks:
    random = np.random.default_rng(0)
    return Masks({path: random.random(shape) < 0.5 for path, shape in SHAPES.items()})


def same(row: np.ndarray) -> np.ndarray:
    return row


def test_one_host_alone() -> None:
    hosts = surgery.hosts_of(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    assert (hosts.count, hosts.index, hosts.chief) == (1, 0, True)
    assert hosts.gather([3, 4]).tolist() == [[3, 4]]
    assert hosts.any(True)
    assert not hosts.any(False)
    assert hosts.of_chief(7) == 7
    hosts.check_same(b"x", "nothing")
    assert hosts.chosen_once(SHAPES, masks) == masks()
    with pytest.raises(OSError, match="full"):
        hosts.first(_full)


def test_any_host_can_ask() -> None:
    assert Among(0, lambda _: [1]).any(False)
    assert not Among(0, lambda _: [0], lambda _: [0]).any(False)
    assert Among(1, lambda _: [9]).of_chief(4) == 9


def test_what_differs_is_named_with_the_workers() -> None:
    Among(0, same, same).check_same(b"one", "masks")
    wanted = r"^masks of worker 2 differ from worker 0's: do all workers run the same program, config, data"
    with pytest.raises(RuntimeError, match=wanted):
        Among(0, same, lambda row: row + 1).check_same(b"one", "masks")
    with pytest.raises(RuntimeError, match=r"^files of worker 1, 2 differ"):
        Among(1, lambda row: row + 1, lambda row: row).check_same(b"one", "files")


@pytest.mark.parametrize("index", [0, 1])
def test_the_masks_are_those_of_the_chief(index: int) -> None:
    chief = Among(0, np.zeros_like)
    assert chief.chosen_once(SHAPES, masks) == masks()
    words = chief.said[0]
    assert len(words) == 1  # 30 weights in one word of 32 bits
    other = Among(1, lambda _: words)
    assert other.chosen_once(SHAPES, _never) == masks()


def test_the_chief_acts_first() -> None:
    done: list[str] = []
    assert Among(0, same).first(lambda: done.append("chief")) is None
    assert Among(1, lambda _: [0]).first(lambda: done.append("other")) is None
    assert done == ["chief", "other"]


def test_what_the_chief_cannot_do_nobody_does() -> None:
    chief = Among(0, same)
    with pytest.raises(OSError, match="full"):
        chief.first(_full)
    assert [row.tolist() for row in chief.said] == [[1]]
    with pytest.raises(RuntimeError, match="worker 0 failed; see its output for the reason"):
        Among(1, lambda _: [1]).first(_never)


def test_a_lost_worker_is_named_with_what_to_do() -> None:
    lost = tf.errors.UnavailableError(None, None, "Socket closed\nmore of it")
    with (
        pytest.raises(
            RuntimeError, match=r"worker 1 of 3 stops: .*\(UnavailableError: Socket closed\)\. Start all"
        ) as raised,
        Among(1, same, same).together(),
    ):
        raise lost
    assert raised.value.__cause__ is lost
    with pytest.raises(tf.errors.UnavailableError), Hosts(tf.distribute.get_strategy()).together():
        raise lost
    with pytest.raises(SystemExit), Among(0, same).together():
        raise SystemExit(143)


def test_masks_of_one_device_agree_with_themselves() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    surgery.mask(model, {"dense/kernel": np.eye(2, dtype=bool)})
    surgery.check_replicas(model)


def _full() -> None:
    raise OSError("full")


def _never() -> Masks:
    raise AssertionError("only the chief chooses")
