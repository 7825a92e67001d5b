"""Run by test_feeds.py in a process of its own: data from files, and in memory, on two devices and on one."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import datasets, surgery, training
from keras_lth.training import feeds
from tests.training.networks import Strike, Struck
from tests.training.pictures import BATCH, X, Y, files, network, weights
from tests.two_devices import mirrored, report


def trained(strategy: Any, data: Any, **options: Any) -> keras.Model:
    model = network(strategy)
    training.fit(model, data, epochs=2, jit_compile=False, steps_per_call=2, **options)
    return model


def distance(a: keras.Model, b: keras.Model) -> float:
    return max(float(np.abs(x - y).max()) for x, y in zip(weights(a), weights(b), strict=True))


def resumed(strategy: Any, whole: surgery.Snapshot) -> list[str]:
    """Struck inside the second epoch of data from files, and resumed."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"checkpoints": folder, "checkpoint_every": 0}
        with suppress(Struck):
            trained(strategy, files(), callbacks=[Strike(6)], **options)
            return ["not struck"]
        end = trained(strategy, files(), callbacks=[Strike(None)], **options)
    return surgery.snapshot(end).differences(whole)


class Seen:
    """A step that keeps the batches it is given."""

    def __init__(self, strategy: Any, data: Any) -> None:
        self.model = network(strategy)
        with strategy.scope():
            shape = (4 * BATCH, *data.element_spec[0].shape[1:])
            place = tf.VariableSynchronization.ON_READ
            options = {"trainable": False, "synchronization": place, "aggregation": tf.VariableAggregation.NONE}
            self.images = tf.Variable(tf.zeros(shape), **options)
            self.count = tf.Variable(0, **options)

    def step(self, batch: Any) -> None:
        x, _ = batch
        rows = tf.range(tf.shape(x)[0]) + self.count
        self.images.assign(tf.tensor_scatter_nd_update(self.images, rows[:, tf.newaxis], x))
        self.count.assign_add(tf.shape(x)[0])

    def batches(self, steps: int) -> np.ndarray:
        """(steps, global batch, ...): the parts of the replicas one after the other."""
        parts = [copy.numpy() for copy in getattr(self.images, "values", (self.images,))]
        share = BATCH // len(parts)
        return np.concatenate([part[: steps * share].reshape(steps, share, *part.shape[1:]) for part in parts], axis=1)


def same_batches(strategy: Any, augment: Any) -> bool:
    """`Streaming` on examples in memory gives the steps the batches that `Gathered` gives, whole batches only."""
    data = datasets.ordered(X, Y, batch_size=BATCH, seed=3, augment=augment)
    found = []
    for kind in (feeds.Gathered, feeds.Streaming):
        seen = Seen(strategy, data)
        feed = kind(seen.model, data, lambda _, seen=seen: seen.step, False)
        for first, count in ((1, 2), (3, 1)):
            feed.run(2, 5, first, count, None)
        found.append(seen.batches(3))
    return bool(found[0].any() and found[0].tobytes() == found[1].tobytes())


def main() -> None:
    two, one = mirrored(), tf.distribute.get_strategy()
    alone, together = trained(one, files()), trained(two, files())
    wholes = surgery.snapshot(alone), surgery.snapshot(together)
    evaluated = [training.evaluate(alone, files(shuffle=False, batch_size=size)) for size in (BATCH, 7)]
    report(
        {
            "distance": distance(alone, together),
            "resumed": {"one": resumed(one, wholes[0]), "two": resumed(two, wholes[1])},
            "evaluated": evaluated,
            "wanted": alone.evaluate(X, Y, verbose=0, return_dict=True),
            "on_two": training.evaluate(together, files(shuffle=False)),
            "wanted_on_two": network_loss(together),
            "same_batches": {"one": same_batches(one, ("flip", "crop")), "two": same_batches(two, None)},
        }
    )


def network_loss(model: keras.Model) -> dict[str, float]:
    """Keras' own evaluation of the same weights on one device."""
    plain = network(tf.distribute.get_strategy())
    plain.set_weights(weights(model))
    return plain.evaluate(X, Y, verbose=0, return_dict=True)


if __name__ == "__main__":
    main()
