"""Training steps that Keras' own ``train_step`` cannot run on several replicas.

These are XLA, gradient accumulation, and clipping with the same result as on one device. XLA does not compile
communication between replicas on every platform, and a condition must not enclose it. So a step is split where
communication begins, at the optimizer's ``apply_gradients``. What comes before is compiled, and what Keras decides
inside a condition is decided when the function is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["accumulated", "accumulation_steps", "clipped_together", "clips", "cut_step", "fixed_accumulation"]


def accumulation_steps(model: keras.Model) -> int:
    """Return the number of steps whose gradients the optimizer of ``model`` accumulates; 1 without accumulation."""
    optimizer = _applied(model.optimizer)
    return int(optimizer.gradient_accumulation_steps or 1)


def accumulated(model: keras.Model) -> int:
    """Return the number of steps whose gradients the optimizer of ``model`` currently holds."""
    optimizer = _applied(model.optimizer)
    # Not `iterations`, which counts the applied ones.
    return int(np.asarray(optimizer._iterations.numpy())) % accumulation_steps(model)


def cut_step(model: keras.Model) -> Callable[[Any], None]:
    """Return a training step in which XLA compiles everything before ``apply_gradients``.

    It runs the model's ``train_step``. A custom one must call ``apply_gradients`` of the model's optimizer, and must
    not use anything that this call changes afterwards.
    """
    optimizer = model.optimizer
    variables: list[list[Any]] = []

    @tf.function(jit_compile=True)
    def gradients_of(batch: Any) -> list[list[Any]]:
        variables.clear()
        gradients: list[list[Any]] = []

        def keep(pairs: Iterable[tuple[Any, Any]]) -> None:
            given = [(gradient, variable) for gradient, variable in pairs if gradient is not None]
            gradients.append([gradient for gradient, _ in given])
            variables.append([variable for _, variable in given])

        vars(optimizer)["apply_gradients"] = keep
        try:
            model.train_step(batch)
        finally:
            del vars(optimizer)["apply_gradients"]
        return gradients

    def step(batch: Any) -> None:
        for gradients, of in zip(gradients_of(batch), variables, strict=True):
            optimizer.apply_gradients(zip(gradients, of, strict=True))

    return step


def fixed_accumulation(step: Callable[[Any], None], model: keras.Model, last: bool) -> Callable[[Any], None]:
    """Return ``step`` with a fixed ``last``: whether it ends an accumulation, so that the optimizer applies it.

    The accumulated value is the mean over the replicas, so all replicas hold the same.
    """
    optimizer = _applied(model.optimizer)
    steps = accumulation_steps(model)
    if optimizer.ema_overwrite_frequency:
        raise ValueError(
            f"ema_overwrite_frequency={optimizer.ema_overwrite_frequency} cannot be run on several replicas with "
            f"gradient_accumulation_steps={steps}: drop one of them"
        )

    def apply(gradients: Iterable[Any], variables: Iterable[Any]) -> None:
        gradients, variables = list(gradients), list(variables)
        sums = [optimizer._accumulated_gradients[optimizer._get_variable_index(variable)] for variable in variables]
        if not last:
            context = tf.distribute.get_replica_context()
            replicas = context.num_replicas_in_sync
            dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
            means = [total / replicas for total in context.all_reduce(tf.distribute.ReduceOp.SUM, dense)]
            optimizer._backend_increment_gradient_accumulators(means, sums)
        else:
            applied = optimizer._clip_gradients([(g + total) / steps for g, total in zip(gradients, sums, strict=True)])
            optimizer._apply_weight_decay(variables)
            optimizer._backend_update_step(applied, variables, optimizer.learning_rate)
            optimizer._backend_reset_gradient_accumulators()
        if optimizer.use_ema:
            optimizer._update_model_variables_moving_average(optimizer._trainable_variables)

    return _with(step, optimizer, "_backend_apply_gradients", apply)


def clips(model: keras.Model) -> bool:
    """Return whether the optimizer of ``model`` clips gradients."""
    optimizer = _applied(model.optimizer)
    return any((optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue))


def clipped_together(step: Callable[[Any], None], model: keras.Model) -> Callable[[Any], None]:
    """Return ``step`` with the whole batch's gradient clipped, as on one device; Keras clips each replica's."""
    optimizer = _applied(model.optimizer)

    def clip(gradients: Iterable[Any]) -> list[Any]:
        context = tf.distribute.get_replica_context()
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
        whole = type(optimizer)._clip_gradients(optimizer, context.all_reduce(tf.distribute.ReduceOp.SUM, dense))
        # The update adds up the replicas' gradients.
        return [gradient / context.num_replicas_in_sync for gradient in whole]

    return _with(step, optimizer, "_clip_gradients", clip)


def _with(step: Callable[[Any], None], optimizer: Any, method: str, replaced: Any) -> Callable[[Any], None]:
    """``step`` while ``replaced`` replaces a method of the optimizer."""

    def run(batch: Any) -> None:
        vars(optimizer)[method] = replaced
        try:
            step(batch)
        finally:
            # Replicas take turns inside `step`, so each of them gets here.
            vars(optimizer).pop(method, None)

    return run


def _applied(optimizer: Any) -> Any:
    """The optimizer that applies gradients, inside those that only wrap it."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer
