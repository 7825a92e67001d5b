"""Check whether the output of a network depends on its input."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import surgery
from keras_lth.callbacks.fit_call import fit_argument
from keras_lth.surgery.metrics import undisturbed

_EXAMPLES = 64
_TRAINING_EXAMPLES = 256


class Connection:
    """Compares a network's outputs on some examples: if they are all the same, no path leads through it.

    ``x``: inputs of at least two examples, or None if there are none; then every network counts as connected.
    """

    def __init__(self, x: Any = None) -> None:
        self._x = x if x is not None and _differs(x) else None

    def holds(self, model: keras.Model) -> bool:
        """Return whether the output differs between the examples, as computed on the first host."""
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
    """Return the inputs of some examples of the running fit, or None."""
    names = ("x",) if callback.params.get("data") is not None else ("val_x", "x")
    found = next((batch for name in names if (batch := _batch(callback, name)) is not None), None)
    return None if found is None else _some(found[0], _EXAMPLES)


def training_examples(callback: Any) -> tuple[Any, Any]:
    """Return inputs and targets of some training examples of the running fit, for a criterion that needs data.

    Raises ``ValueError`` if the fit's data cannot be read without consuming it.
    """
    found = _batch(callback, "x")
    if found is None:
        raise ValueError(
            "this criterion takes (model, x, y), but the data of fit is not accessible: train on arrays, a "
            "tf.data.Dataset, a keras.utils.PyDataset or keras_lth.datasets.ordered, or use a criterion of (model)."
        )
    return _some(found, _TRAINING_EXAMPLES)


def _batch(callback: Any, name: str) -> tuple[Any, Any] | None:
    """Inputs and targets of a batch, or of all data if it is in memory; ``name``: "x" or "val_x"."""
    model = callback.model
    x = callback.params.get("data")
    if x is None:
        x = fit_argument(model, name)
    if isinstance(x, keras.utils.PyDataset):
        batch = x[0]
    elif hasattr(x, "arrays"):  # from datasets.ordered: reading would move its position
        batch = x.arrays
    elif isinstance(x, tf.data.Dataset) and not hasattr(x, "seek"):
        batch = next(iter(x.take(1)), None)
    elif x is not None and all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x)):
        batch = (x, fit_argument(model, name.replace("x", "y")))
    else:
        return None
    return None if batch is None else keras.utils.unpack_x_y_sample_weight(batch)[:2]


def _some(values: Any, most: int) -> Any:
    """Evenly spaced examples, because sorted data would begin with a single class."""
    first = keras.tree.flatten(values)[0]
    rows = np.unique(np.linspace(0, int(first.shape[0]) - 1, most).astype(int))
    return keras.tree.map_structure(lambda leaf: tf.gather(tf.convert_to_tensor(np.asarray(leaf)), rows), values)


def _differs(values: Any) -> bool:
    """Whether any array of a structure differs along its first axis."""
    arrays = [leaf.numpy() if tf.is_tensor(leaf) else np.asarray(leaf) for leaf in keras.tree.flatten(values)]
    return any(array.ndim > 0 and len(array) > 1 and bool((array != array[:1]).any()) for array in arrays)
