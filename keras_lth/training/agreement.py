"""Check that all workers got the same model, data and arguments; otherwise they deadlock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from keras_lth import surgery
from keras_lth.datasets.order import Ordered

__all__ = ["agree"]


def agree(model: keras.Model, data: Any, callbacks: Iterable[Any], call: dict[str, Any]) -> None:
    """Compare the arguments of all workers: model, optimizer, data, callbacks by name, arguments of the call.

    Raises ``RuntimeError`` on all of them that names the first difference.
    """
    hosts = surgery.hosts_of(model)
    if hosts.count == 1:
        return
    given = {
        "the weights of the model": {path: list(shape) for path, shape in surgery.shapes(model).items()},
        "the optimizer's settings": [type(model.optimizer).__name__, model.optimizer.get_config()],
        "the data": [data.batch_size, data.steps_per_epoch, data.position, _digest(data)],
        "the callbacks": [type(one).__name__ for one in callbacks],
        "the arguments of the training": call,
    }
    for what, value in given.items():
        text = json.dumps(value, sort_keys=True, default=lambda other: type(other).__name__)
        hosts.check_same(text.encode(), what)


def _digest(data: Any) -> str:
    """A digest of examples in memory. Files are divided among the hosts, so each host sees different ones."""
    digest = hashlib.sha256()
    if isinstance(data, Ordered):
        for array in tf.nest.flatten(data.arrays):
            digest.update(array.numpy().tobytes())
    return digest.hexdigest()
