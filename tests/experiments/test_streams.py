"""Plans on data that stays in files: the same numbers as on the same data in memory, and what it cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_lth import datasets
from keras_lth.datasets import Streams
from keras_lth.datasets.sources import Sharded
from keras_lth.datasets.streams import tiny_imagenet_streams
from keras_lth.experiments.early import pruned
from keras_lth.experiments.kinds import examples
from keras_lth.experiments.lab import network
from keras_lth.experiments.live import examples_per_class
from keras_lth.plans import Notebook, StepsFailedError, run, versioned
from keras_lth.store import Store
from tests.plans import nets

quiet: Any = {"say": lambda text: None}


@versioned(version=1)
def streamed() -> Streams:
    """The blobs of `nets`, as if they were in files."""

    def source(pair: Any) -> Sharded:
        return Sharded(lambda index, count: tf.data.Dataset.from_tensor_slices(pair).shard(count, index))

    splits = nets.blobs()
    shape: Any = splits.shape
    return Streams(source(splits.train), source(splits.test), splits.classes, shape)


@versioned(version=1)
def seen(model: Any, x: Any, y: Any) -> Any:
    """Scores that tell which examples came."""
    return {"hidden/kernel": np.broadcast_to(np.sum(x * (y[:, None] + 1)), (5, 8))}


def test_the_numbers_are_those_in_memory(tmp_path: Path) -> None:
    found: dict[str, Any] = {}

    def plan(book: Notebook) -> None:
        for name, data in {"memory": nets.blobs, "files": streamed}.items():
            lab = nets.lab(book).on(network=network(data, nets.net))
            init = lab.init(1)
            line = lab.train(init)
            found[name] = (
                lab.evaluate(init), lab.evaluate(init, what="train"), lab.score(seen, init, examples=6),
                lab.examples(), line.observed("test", every=5, to=10), line.at(10),
            )  # fmt: skip
            book.want(*found[name][:2], *found[name][3:], lab.select(found[name][2], density=0.5))

    run(plan, tmp_path / "s", **quiet)
    store = Store(tmp_path / "s")
    for mine, theirs in zip(found["files"][:2], found["memory"][:2], strict=True):
        (a,), (b,) = store.get(mine.name).rows, store.get(theirs.name).rows
        assert a == pytest.approx(b, rel=1e-6)
    assert store.get(found["files"][3].name).rows == store.get(found["memory"][3].name).rows
    # Both train, in orders of their own; of files the rest of an epoch is left out.
    curves = [store.get(found[name][4].name).rows for name in found]
    assert [row["step"] for row in curves[0]] == [row["step"] for row in curves[1]] == [5, 10]


def test_examples_of_each_class_in_files() -> None:
    data = streamed()
    x, y = examples_per_class(data, 3, seed=4)
    assert np.bincount(y).tolist() == [3] * data.classes
    images, labels = nets.blobs().train
    rows = [int(np.flatnonzero((images == one).all(1))[0]) for one in x]
    assert len(set(rows)) == len(rows) and (labels[rows] == y).all()
    assert (examples_per_class(data, 3, seed=4)[0] == x).all()
    assert {*rows} != {int(np.flatnonzero((images == one).all(1))[0]) for one in examples_per_class(data, 3, seed=5)[0]}
    with pytest.raises(ValueError, match=r"class \d has \d+ examples.*fewer than 1000: use a smaller"):
        examples_per_class(data, 1000, seed=4)


def test_a_criterion_sees_examples_of_each_class(tmp_path: Path) -> None:
    def plan(book: Notebook) -> None:
        lab = nets.lab(book).on(network=network(streamed, nets.net))
        book.want(pruned(lab, "snip", lab.init(1), 0.5, 2, per_class=2))

    run(plan, tmp_path / "s", **quiet)


def test_what_files_cannot_do(tmp_path: Path) -> None:
    def plan(book: Notebook) -> None:
        lab = nets.lab(book).on(network=network(streamed, nets.net))
        book.want(lab.compare(lab.init(1), lab.init(2)))

    with pytest.raises(StepsFailedError, match="data in memory"):
        run(plan, tmp_path / "s", **quiet)
    data = {"function": "tests.experiments.test_streams:streamed", "version": 1}
    with pytest.raises(ValueError, match="data_options holdout need data in memory"):
        examples(network={"data": data, "data_options": {**datasets.OPTIONS, "holdout": 0.1}})
    with pytest.raises(ValueError, match="train and test, not 'holdout'"):
        streamed().part("holdout")


def test_sets_that_stay_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*datasets.STREAMS} == {"imagenet", "imagenet_299", "tiny_imagenet"}
    monkeypatch.setenv("KERAS_LTH_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"tiny-imagenet-200.*tiny-imagenet-200.zip.*\$KERAS_LTH_DATA"):
        tiny_imagenet_streams()
    image = tf.io.encode_jpeg(np.zeros((64, 64, 3), np.uint8)).numpy()
    for place in ("train/n01/images/a.JPEG", "val/images/b.JPEG"):
        (tmp_path / "tiny-imagenet-200" / place).parent.mkdir(parents=True)
        (tmp_path / "tiny-imagenet-200" / place).write_bytes(image)
    (tmp_path / "tiny-imagenet-200" / "val" / "val_annotations.txt").write_text("b.JPEG\tn01\t0\t0\t1\t1\n")
    found = datasets.STREAMS["tiny_imagenet"]()
    assert (found.train.count(0, 1), found.test.count(0, 1), found.shape) == (1, 1, (64, 64, 3))
