"""Per-instance overrides of models with masked weights: what ``fit``, ``evaluate`` and ``predict`` do first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_lth.surgery.gradients import teach_optimizers
from keras_lth.surgery.holders import models_with, trace_again
from keras_lth.surgery.optimizers import leaves, optimizers_of, refuse_coupling
from keras_lth.surgery.overrides import Override
from keras_lth.surgery.paths import Entry, entries
from keras_lth.surgery.roles import refuse_replaced_weights, replaced
from keras_lth.surgery.variable_mask import mask_of, settle

__all__ = ["ModelHooks", "follow", "hooks_of", "own_loop", "retrace"]

_ATTRIBUTE = "_keras_lth_hooks"
_OWN_LOOP = "_keras_lth_own_loop"


class ModelHooks:
    """What one model with masked weights carries: those weights and the functions it overrides."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.masked: list[Entry] = []
        self.warned_unknown = False
        before = {
            "make_train_function": self.before_training,
            "make_test_function": self.before_evaluation,
            "make_predict_function": self.before_evaluation,
        }
        self.overrides = [Override(model, name, _first(act)) for name, act in before.items() if hasattr(model, name)]

    def before_training(self) -> None:
        """Runs at every ``fit`` and ``train_on_batch``, so it sees the optimizer of a later ``compile``."""
        refuse_replaced_weights(self.masked)
        if not vars(self.model).get(_OWN_LOOP):
            refuse_impossible_cells(self.model)
        for optimizer in optimizers_of(self.model):
            refuse_coupling(optimizer, [entry.variable for entry in self.masked])
        # A class of optimizers may have been defined since.
        teach_optimizers()
        self.settle()

    def before_evaluation(self) -> None:
        """Runs at every ``evaluate`` and ``predict``; quantised weights may run, they are 0 where they were pruned."""
        refuse_replaced_weights(entry for entry in self.masked if getattr(entry.layer, "lora_enabled", False))
        self.settle()

    def settle(self) -> None:
        """See that pruned weights are 0: a value may have come past `assign`."""
        for entry in self.masked:
            if replaced(entry.layer) is None:
                settle(entry.variable, entry.path)

    def remove(self) -> None:
        """Give the model its own functions back."""
        for override in self.overrides:
            override.undo()
        vars(self.model).pop(_ATTRIBUTE)


def _first(act: Callable[[], None]) -> Callable[[Any], Any]:
    """Wraps a function so that ``act()`` comes first."""

    def wrap(function: Any) -> Any:
        def acting(*args: Any, **kwargs: Any) -> Any:
            act()
            return function(*args, **kwargs)

        return acting

    return wrap


def hooks_of(model: keras.Model) -> ModelHooks | None:
    """The overrides of ``model``, or None."""
    return vars(model).get(_ATTRIBUTE)


def follow(variables: Iterable[keras.Variable]) -> None:
    """After ``variables`` were masked or unmasked: every model that holds one knows, every step is traced again."""
    variables = list(variables)
    teach_optimizers()
    for model in models_with(variables):
        masked = [entry for entry in entries(model) if mask_of(entry.variable) is not None]
        hooks = hooks_of(model)
        if masked and hooks is None:
            hooks = vars(model)[_ATTRIBUTE] = ModelHooks(model)
        if hooks is not None:
            hooks.masked = masked
            if not masked:
                hooks.remove()
    trace_again(variables)


@contextmanager
def own_loop(model: keras.Model) -> Iterator[None]:
    """Inside, ``model`` is trained by a loop that is not Keras' ``fit``, so what only ``fit`` cannot do is allowed."""
    before = vars(model).get(_OWN_LOOP, False)
    vars(model)[_OWN_LOOP] = True
    try:
        yield
    finally:
        vars(model)[_OWN_LOOP] = before


def retrace(model: keras.Model) -> None:
    """Trace the training step again at its next use, also in the middle of a ``fit``."""
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)


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
