"""Whether the output of a network depends on its input."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import surgery
from keras_lth.callbacks.fit_call import fit_argument
from keras_lth.surgery.metrics import undisturbed

_EXAMPLES = 64


class Connection:
    """Asks a network for its outputs on some examples: where they are all the same, no path is left.

    ``x``: inputs of at least two examples, None where none could be had; then every network is taken to be connected.
    """

    def __init__(self, x: Any = None) -> None:
        self._x = x if x is not None and _differs(x) else None

    def holds(self, model: keras.Model) -> bool:
        """Whether the output differs between the examples, as the first host sees it."""
        if self._x is None:
            return True
        with undisturbed(model):
            try:
                outputs = model(self._x, training=False)
            except Exception:  # a model that cannot be called so, such as one with a train step for two networks
                self._x = None
                return True
        return bool(surgery.hosts_of(model).of_chief(int(_differs(outputs))))


def examples(callback: Any) -> Any | None:
    """Inputs of some examples that the running fit holds, or None."""
    model = callback.model
    held = callback.params.get("data")
    if held is not None:
        return _inputs(getattr(held, "arrays", None))
    for name in ("val_x", "x"):
        x = fit_argument(model, name)
        if isinstance(x, keras.utils.PyDataset):
            return _inputs(x[0])
        if hasattr(x, "arrays"):  # made by datasets.ordered: a look would move it
            return _inputs(x.arrays)
        if isinstance(x, tf.data.Dataset) and not hasattr(x, "seek"):
            return _inputs(next(iter(x.take(1)), None))
        if x is not None and all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x)):
            return _some(x)
    return None


def _inputs(batch: Any) -> Any | None:
    return None if batch is None else _some(keras.utils.unpack_x_y_sample_weight(batch)[0])


def _some(x: Any) -> Any:
    """Evenly spaced examples: sorted data would begin with one class."""
    first = keras.tree.flatten(x)[0]
    rows = np.unique(np.linspace(0, int(first.shape[0]) - 1, _EXAMPLES).astype(int))
    return keras.tree.map_structure(lambda leaf: tf.gather(tf.convert_to_tensor(np.asarray(leaf)), rows), x)


def _differs(values: Any) -> bool:
    """Whether any array of a structure differs along its first axis."""
    arrays = [leaf.numpy() if tf.is_tensor(leaf) else np.asarray(leaf) for leaf in keras.tree.flatten(values)]
    return any(array.ndim > 0 and len(array) > 1 and bool((array != array[:1]).any()) for array in arrays)
