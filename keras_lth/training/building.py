"""Create, before the first step of ``fit`` and without running it, the variables that Keras creates in that step."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_lth import surgery

__all__ = ["batch_spec", "build"]


def build(model: keras.Model, data: Any) -> None:
    """Create slots, metrics, and what a custom ``train_step`` creates, from the shapes of a batch of ``data``.

    Nothing is run, so no statistic, seed or weight changes. Keras builds its own step from shapes alone. A custom step
    is traced once, as ``fit`` traces it, because only the step itself knows what it creates.
    """
    batch = batch_spec(model, data)
    strategy = model.distribute_strategy
    with strategy.scope():
        if not _custom(model):
            model._symbolic_build(data_batch=batch)
            return
        optimizer = model.optimizer
        if isinstance(optimizer, keras.optimizers.Optimizer) and not optimizer.built:
            optimizer.build(model.trainable_variables)
        built = {id(leaf) for leaf in _leaves(model) if leaf.built}
        tf.function(lambda one: strategy.run(model.train_step, (one,))).get_concrete_function(batch)
        for leaf in _leaves(model):
            if leaf.built and id(leaf) not in built:
                # A value assigned while tracing is not a value.
                surgery.start_fresh(leaf)


def batch_spec(model: keras.Model, data: Any) -> Any:
    """Return shapes and types of one replica's batch; its size is a number, because some layers and losses need one."""
    size = data.batch_size
    if hasattr(data, "arrays"):
        size = min(size, int(tf.nest.flatten(data.arrays)[0].shape[0]))
    share = max(size // model.distribute_strategy.num_replicas_in_sync, 1)
    return tf.nest.map_structure(lambda spec: tf.TensorSpec([share, *spec.shape[1:]], spec.dtype), data.element_spec)


def _custom(model: keras.Model) -> bool:
    return "train_step" in vars(model) or type(model).train_step is not keras.Model.train_step


def _leaves(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    return [leaf for outer in surgery.optimizers_of(model) for leaf in surgery.leaves(outer)]
