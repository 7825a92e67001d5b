"""What models with masked weights do first in ``fit``, ``evaluate`` and ``predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_lth.surgery.gradients import teach_optimizers
from keras_lth.surgery.holders import TRAINED, models_with, trace_again, variables_in
from keras_lth.surgery.optimizers import leaves, optimizers_of, refuse_coupling
from keras_lth.surgery.paths import Entry, entries
from keras_lth.surgery.roles import refuse_replaced_weights, replaced
from keras_lth.surgery.stored import is_stored
from keras_lth.surgery.teaching import teach
from keras_lth.surgery.variable_mask import mask_of, settle

__all__ = ["follow", "own_loop"]

_MASKED = "_keras_lth_masked"
_OWN_LOOP = "_keras_lth_own_loop"
_changes = [0]  # of which variables have masks, in this process


def follow(variables: Iterable[keras.Variable]) -> None:
    """Update all holders after ``variables`` were masked or unmasked, and have their models trace their steps again."""
    variables = list(variables)
    _changes[0] += 1
    teach_optimizers()
    teach(
        keras.Model,
        {
            "make_train_function": _first(_before_training),
            "make_test_function": _first(_before_evaluation),
            "make_predict_function": _first(_before_evaluation),
        },
    )
    for model in models_with(variables):
        if _look(model) and getattr(model, "train_function", None) is not None:
            # This may be inside a `fit`, which does not rebuild its function, so check now what it would refuse.
            _before_training(model)
    trace_again(variables)


def _before_training(model: keras.Model) -> None:
    """Run at every ``fit`` and ``train_on_batch``, so that it sees the optimizer of a later ``compile``."""
    TRAINED.announce(model)
    masked = _masked(model)
    if not masked:
        return
    refuse_replaced_weights(masked)
    if not vars(model).get(_OWN_LOOP):
        refuse_impossible_cells(model)
    # Only its own optimizer, because this runs before every train_on_batch. Others refuse in their first step.
    if isinstance(model.optimizer, keras.optimizers.Optimizer):
        refuse_coupling(model.optimizer, [entry.variable for entry in masked])
    # A class of optimizers may have been defined since the mask.
    teach_optimizers()
    _settle(masked)


def _before_evaluation(model: keras.Model) -> None:
    """Run at every ``evaluate`` and ``predict``; quantised weights are allowed, they are 0 where they were pruned."""
    masked = _masked(model)
    refuse_replaced_weights(entry for entry in masked if getattr(entry.layer, "lora_enabled", False))
    _settle(masked)


def _first(act: Callable[[keras.Model], None]) -> Callable[[Any], Any]:
    """Wrap a method so that ``act(model)`` runs first."""

    def wrap(method: Any) -> Any:
        def acting(self: keras.Model, *args: Any, **kwargs: Any) -> Any:
            act(self)
            return method(self, *args, **kwargs)

        return acting

    return wrap


def _masked(model: keras.Model) -> list[Entry]:
    """The masked weights of ``model``, cached, because a step on one batch must not walk through all layers."""
    seen, kept = vars(model).get(_MASKED, (_changes[0], []))
    if seen < _changes[0] or (not kept and any(_is_pruned(variable) for variable in variables_in(model))):
        return _look(model)
    return kept


def _look(model: keras.Model) -> list[Entry]:
    _, before = vars(model).pop(_MASKED, (0, []))
    masked = [entry for entry in entries(model) if _is_pruned(entry.variable)]
    # A layer that was quantised since has another kernel; it is refused by its name.
    masked += [entry for entry in before if replaced(entry.layer) and mask_of(entry.variable) is not None]
    if masked:
        # Through __dict__: a tracked attribute would be saved with the model, or refused by a locked layer.
        vars(model)[_MASKED] = (_changes[0], masked)
    return masked


def _is_pruned(variable: keras.Variable) -> bool:
    return mask_of(variable) is not None or is_stored(variable)


def _settle(masked: Iterable[Entry]) -> None:
    """Ensure that pruned weights are 0, because a value may have been written without `assign`."""
    for entry in masked:
        if replaced(entry.layer) is None:
            settle(entry.variable, entry.path)


@contextmanager
def own_loop(model: keras.Model) -> Iterator[None]:
    """Allow, inside, what only ``fit`` cannot do: ``model`` is trained by another loop than Keras' ``fit``."""
    before = vars(model).get(_OWN_LOOP, False)
    vars(model)[_OWN_LOOP] = True
    try:
        yield
    finally:
        vars(model)[_OWN_LOOP] = before


def refuse_impossible_cells(model: keras.Model) -> None:
    """Raise for settings that Keras on TensorFlow cannot train with several replicas, masked or not."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas < 2 or not getattr(model, "compiled", False):
        return
    problems = []
    if model.jit_compile:
        problems.append("jit_compile=True (compile with jit_compile=False)")
    if model.steps_per_execution > 1:
        problems.append(f"steps_per_execution={model.steps_per_execution} (compile with steps_per_execution=1)")
    for optimizer in optimizers_of(model):
        steps = [leaf.gradient_accumulation_steps for leaf in leaves(optimizer) if leaf.gradient_accumulation_steps]
        if steps:
            problems.append(f"gradient_accumulation_steps={steps[0]} (use a larger batch)")
    if problems:
        raise ValueError(
            f"Keras on TensorFlow cannot train model {model.name!r} on {replicas} replicas with {'; '.join(problems)}"
        )
