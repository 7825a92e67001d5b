"""Per-instance overrides of a masked model: what ``fit``, ``evaluate``, ``predict`` and ``save`` do first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_lth.surgery.optimizers import hook, leaves, optimizers_of, refuse_coupling, reset_pruned, trust, unhook
from keras_lth.surgery.paths import Entry
from keras_lth.surgery.roles import refuse_replaced_weights, replaced
from keras_lth.surgery.variable_mask import heal, mask_of

__all__ = ["ModelHooks", "hooks_of", "install", "own_loop", "remove", "retrace"]

_ATTRIBUTE = "_keras_lth_hooks"
_OWN_LOOP = "_keras_lth_own_loop"
_MANY_STEPS = 8


class ModelHooks:
    """What one masked model carries: the weights it masks and the functions it overrides."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.masked: dict[str, Entry] = {}
        self.warned_unknown = False
        self.previous: dict[str, Any] = {}
        for name, before in (
            ("make_train_function", self.before_training),
            ("make_test_function", self.before_evaluation),
            ("make_predict_function", self.before_evaluation),
            ("save", self.heal),
            ("save_weights", self.heal),
            ("export", self.heal),
        ):
            if hasattr(model, name):
                self.previous[name] = vars(model).get(name)
                vars(model)[name] = _Before(before, getattr(model, name))
        making = vars(model)["make_train_function"]
        vars(model)["make_train_function"] = _Before(lambda: None, making, self.after_making)

    def before_training(self) -> None:
        """Runs at every ``fit`` and ``train_on_batch``, so it sees the optimizer of a later ``compile``."""
        refuse_replaced_weights(self.masked.values())
        if not vars(self.model).get(_OWN_LOOP):
            refuse_impossible_cells(self.model)
        variables = [entry.variable for entry in self.masked.values()]
        for optimizer in optimizers_of(self.model):
            refuse_coupling(optimizer, variables)
            hook(optimizer)
            if self.heals_per_execution():
                reset_pruned(optimizer, variables)
        self.heal()

    def heals_per_execution(self) -> bool:
        """With many steps in an execution, healing before each is cheaper than a constraint in every step."""
        return getattr(self.model, "compiled", False) and self.model.steps_per_execution >= _MANY_STEPS

    def after_making(self) -> None:
        """Heal before an execution instead of in every step, where the optimizer keeps zeros by itself."""
        function = self.model.train_function
        if function is not None and not isinstance(function, _Healed):
            vars(self.model)["train_function"] = _Healed(self, function)

    def before_evaluation(self) -> None:
        """Runs at every ``evaluate`` and ``predict``; quantised weights may run, they are 0 where they were pruned."""
        lora = [e for e in self.masked.values() if getattr(e.layer, "lora_enabled", False)]
        refuse_replaced_weights(lora)
        self.heal()

    def heal(self) -> None:
        """Set pruned weights to 0, whatever was assigned since."""
        for entry in self.masked.values():
            if replaced(entry.layer) is None and mask_of(entry.variable) is not None:
                heal(entry.variable)

    def remove(self) -> None:
        """Give the model its own functions back."""
        for name, previous in self.previous.items():
            del vars(self.model)[name]
            if previous is not None:
                vars(self.model)[name] = previous
        for optimizer in optimizers_of(self.model):
            unhook(optimizer)


class _Before:
    """Runs ``before()``, then the function it replaces."""

    def __init__(
        self, before: Callable[[], None], function: Callable[..., Any], after: Callable[[], None] | None = None
    ) -> None:
        self.before = before
        self.function = function
        self.after = after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.before()
        result = self.function(*args, **kwargs)
        if self.after is not None:
            self.after()
        return result


class _Healed:
    """A training function that first heals weights which were assigned from outside since."""

    def __init__(self, hooks: ModelHooks, function: Callable[..., Any]) -> None:
        self.hooks = hooks
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.hooks.heals_per_execution():
            return self.function(*args, **kwargs)
        for entry in self.hooks.masked.values():
            mask = mask_of(entry.variable)
            if mask is not None and mask.touched:
                heal(entry.variable)
        optimizers = optimizers_of(self.hooks.model)
        for optimizer in optimizers:
            trust(optimizer, True)
        try:
            return self.function(*args, **kwargs)
        finally:
            for optimizer in optimizers:
                trust(optimizer, False)


def hooks_of(model: keras.Model) -> ModelHooks | None:
    """The overrides of ``model``, or None."""
    return vars(model).get(_ATTRIBUTE)


def install(model: keras.Model) -> ModelHooks:
    """The overrides of ``model``, put there if needed."""
    hooks = hooks_of(model)
    if hooks is None:
        # Through __dict__: a tracked attribute would be saved with the model, or refused by a locked layer.
        hooks = vars(model)[_ATTRIBUTE] = ModelHooks(model)
    return hooks


def remove(model: keras.Model) -> None:
    """Undo `install`."""
    hooks = vars(model).pop(_ATTRIBUTE, None)
    if hooks is not None:
        hooks.remove()


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
    """Trace the training step anew at its next use, also in the middle of a ``fit``."""
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
