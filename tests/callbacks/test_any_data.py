"""Rounds inside ``fit`` on every kind of data that Keras takes, with a rewind inside an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth.callbacks.fingerprint import digest
from tests.forms import short_if

RNG = np.random.default_rng(1)
X = RNG.normal(size=(24, 5)).astype("float32")
Y = RNG.integers(0, 2, 24).astype("int32")
BATCH, STEPS = 4, 6


class Batches(keras.utils.PyDataset):
    """Six batches; the order changes at the end of each epoch."""

    def __init__(self, endless: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.endless, self.ended = endless, 0

    @property
    def num_batches(self) -> int | None:
        return None if self.endless else STEPS

    def __getitem__(self, i: int) -> Any:
        order = np.random.default_rng([self.ended, i // STEPS]).permutation(24)
        rows = order[i % STEPS * BATCH :][:BATCH]
        return X[rows], Y[rows]

    def on_epoch_end(self) -> None:
        self.ended += 1


def generator() -> Iterator[Any]:
    data = Batches(endless=True)
    for i in range(10_000):
        yield data[i]


def dataset() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(24, reshuffle_each_iteration=True).batch(BATCH)


KINDS: dict[str, Any] = {
    "arrays": lambda: {"x": X, "y": Y, "batch_size": BATCH},
    "sample_weight": lambda: {"x": X, "y": Y, "batch_size": BATCH, "sample_weight": np.ones(24, "float32")},
    "class_weight": lambda: {"x": X, "y": Y, "batch_size": BATCH, "class_weight": {0: 1.0, 1: 2.0}},
    "half epochs": lambda: {"x": X, "y": Y, "batch_size": BATCH, "steps_per_epoch": 3},
    "PyDataset": lambda: {"x": Batches()},
    "PyDataset, threads": lambda: {"x": Batches(workers=2, max_queue_size=4)},
    "PyDataset, half epochs": lambda: {"x": Batches(workers=2), "steps_per_epoch": 3},
    "PyDataset, endless": lambda: {"x": Batches(True), "steps_per_epoch": STEPS},
    "PyDataset, endless, threads": lambda: {"x": Batches(True, workers=2), "steps_per_epoch": STEPS},
    "PyDataset, class_weight": lambda: {"x": Batches(), "class_weight": {0: 1.0, 1: 2.0}},
    "tf.data": lambda: {"x": dataset()},
    "tf.data, endless": lambda: {"x": dataset().repeat(), "steps_per_epoch": STEPS},
    "generator": lambda: {"x": generator(), "steps_per_epoch": STEPS},
}


class Seen(keras.callbacks.Callback):
    """Batches of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.epochs[-1] += 1


def net() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    return model


@pytest.mark.filterwarnings("error:Your input ran out")
@pytest.mark.parametrize(
    "kind",
    # The three are combinations or parts of what others show.
    short_if(lambda kind: kind not in ("PyDataset", "PyDataset, endless, threads", "PyDataset, class_weight"), KINDS),
)
def test_imp(kind: str) -> None:
    options, seen = KINDS[kind](), Seen()
    steps = options.get("steps_per_epoch", STEPS)
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to=2, verbose=0)
    net().fit(**options, epochs=6, verbose=0, callbacks=[imp, seen])
    assert seen.epochs == [steps, steps, steps - 2, steps, steps - 2, steps]
    assert [level.remaining for level in imp.history] == [42, 34, 27]
    if kind.startswith("PyDataset"):
        # Once an epoch, as in a plain fit of as many.
        assert options["x"].ended == 6 + plain_ends(kind) - 1


def plain_ends(kind: str) -> int:
    options = KINDS[kind]()
    net().fit(**options, epochs=1, verbose=0)
    return options["x"].ended


@pytest.mark.filterwarnings("error:Your input ran out")
# All kinds are in the test above, by the same means; arrays and datasets of TensorFlow in test_watched.py.
@pytest.mark.parametrize(
    "kind",
    short_if(
        ("PyDataset, threads", "generator").__contains__,
        [kind for kind in KINDS if kind not in ("half epochs", "class_weight")],
    ),
)
def test_instability(kind: str) -> None:
    options, seen = KINDS[kind](), Seen()
    steps = options.get("steps_per_epoch", STEPS)
    stability = lth.InstabilityCallback("2 steps", runs=2, data={"test": (X, Y)}, points=2, verbose=0)
    model = net()
    if kind in ("arrays", "sample_weight"):
        # They are shuffled alike in each epoch, which the analysis refuses.
        with pytest.raises(ValueError, match="same order"):
            model.fit(**options, epochs=4, verbose=0, callbacks=[stability])
        return
    model.fit(**options, epochs=4, verbose=0, callbacks=[stability, seen])
    assert seen.epochs == [steps, steps, steps - 2, steps]
    assert len(stability.results) == 1


def test_workers_hand_over_no_batch_of_the_epoch_before() -> None:
    """After a rest of an epoch the next one sees each example once."""
    batches: list[list[int]] = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            batches.append([])

    class Logged(Batches):
        pass

    model = net()
    plain = model.train_step

    def train_step(data: Any) -> Any:
        batches[-1].append(int(digest(data)))
        return plain(data)

    model.train_step = train_step
    model.run_eagerly = True
    imp = lth.IMPCallback(rounds=1, epochs_per_round=2, rewind_to=2, verbose=0)
    source = Logged(workers=2)
    model.fit(source, epochs=4, verbose=0, callbacks=[imp, Watch()], shuffle=False)
    assert [len(set(epoch)) for epoch in batches] == [6, 6, 4, 6]
    assert not set(batches[3]) & set(batches[2])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"x": generator()}, "generator cannot be restarted.*steps_per_epoch"),
        ({"x": X, "y": Y, "batch_size": BATCH, "steps_per_epoch": 4}, "does not divide the 6 batches.*repeat"),
        ({"x": Batches(), "steps_per_epoch": 4}, "does not divide the 6 batches"),
    ],
)
def test_data_whose_later_epochs_differ_is_refused(options: dict[str, Any], match: str) -> None:
    for callback in (
        lth.IMPCallback(rounds=1, verbose=0),
        lth.InstabilityCallback(data={"test": (X, Y)}, verbose=0),
    ):
        model = net()
        with pytest.raises(ValueError, match=match):
            model.fit(**options, epochs=4, verbose=0, callbacks=[callback])
        assert int(model.optimizer.iterations.numpy()) == 0
