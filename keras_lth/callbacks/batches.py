"""A batch of the running fit, for what needs a gradient at a step; Keras gives callbacks no data."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.callbacks.fit_call import fit_argument
from keras_lth.selection import uniform

__all__ = ["batch_at"]


def batch_at(callback: keras.callbacks.Callback, step: int) -> tuple[Any, Any, Any]:
    """Return (x, y, sample_weight) of the batch of step ``step``, counted from 0, without consuming the data.

    On `keras_lth.datasets.ordered` it is that very batch. Of arrays it is as many examples as a batch has, drawn by the
    step. Of a ``PyDataset`` it is that batch; of a ``tf.data.Dataset`` the first one of a new iterator.

    Raises:
        ValueError: data that cannot be read without consuming it, such as a generator.
    """
    model, data = callback.model, callback.params.get("data")
    x = fit_argument(model, "x") if data is None else data
    if all(hasattr(x, name) for name in ("batch_of", "order", "steps_per_epoch")):
        epoch, number = divmod(step, x.steps_per_epoch)
        seed = callback.params.get("seed", x.seed)
        rows = x.order(epoch, seed)[number * x.batch_size : (number + 1) * x.batch_size]
        return keras.utils.unpack_x_y_sample_weight(x.batch_of(tf.constant(rows), seed, epoch))
    if isinstance(x, keras.utils.PyDataset):
        return keras.utils.unpack_x_y_sample_weight(x[step % max(1, len(x))])
    if isinstance(x, tf.data.Dataset):
        return keras.utils.unpack_x_y_sample_weight(next(iter(x.take(1))))
    leaves = keras.tree.flatten(x)
    if not leaves or not all(hasattr(leaf, "shape") for leaf in leaves):
        raise ValueError(
            f"{type(callback).__name__} needs a gradient, but the data of fit cannot be read without consuming it: "
            "train on arrays, a tf.data.Dataset, a keras.utils.PyDataset or keras_lth.datasets.ordered"
        )
    n = int(leaves[0].shape[0])
    size = min(n, fit_argument(model, "batch_size") or 32)
    rows = np.sort(np.argsort(uniform(step, "batch", (n,)), kind="stable")[:size])
    given = (x, fit_argument(model, "y"), fit_argument(model, "sample_weight"))
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else tf.gather(tf.convert_to_tensor(np.asarray(leaf)), rows), given
    )
