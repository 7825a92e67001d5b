"""A live Keras optimizer: its slots, the hook that masks gradients, and optimizers that cannot be masked."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.surgery.variable_mask import heal, mask_of

__all__ = [
    "COPY",
    "EMA",
    "fresh_fill",
    "hook",
    "leaves",
    "optimizers_of",
    "refuse_coupling",
    "reset_pruned",
    "scalars",
    "slots",
    "trust",
    "unhook",
]

COPY = "copy of the weight"
_FILL = "_keras_lth_fill"
EMA = "_model_variables_moving_average"
# Adafactor factors its second moment into rows and columns and clips by the root mean square of a whole weight; Muon
# orthogonalises a whole weight. Lamb is not here: its norms over a weight do not see entries that are 0 in the
# weight, the gradient and the slots.
_COUPLING = ("Adafactor", "Muon")
_KEEPING = ("SGD", "Adam", "AdamW", "RMSprop", "Lion", "Nadam", "Adagrad", "Adadelta", "Adamax")


def optimizers_of(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Every optimizer among the attributes of ``model`` (a GAN has two), outermost ones only."""
    found: dict[int, keras.optimizers.Optimizer] = {}

    def visit(value: Any) -> None:
        if isinstance(value, keras.optimizers.Optimizer):
            found[id(value)] = value
        elif isinstance(value, (list, tuple)):
            for item in value:
                visit(item)
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)

    for name, value in list(vars(model).items()):
        if name not in ("_layers", "_tracked"):
            visit(value)
    return list(found.values())


def leaves(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """``optimizer`` and those that it wraps (loss scaling, several optimizers in one)."""
    inner = getattr(optimizer, "inner_optimizer", None)
    wrapped = [inner] if inner is not None else list(getattr(optimizer, "optimizers", None) or [])
    return [optimizer, *(leaf for child in wrapped for leaf in leaves(child))]


def slots(optimizer: keras.optimizers.Optimizer) -> dict[str, list[keras.Variable | None]]:
    """Attribute → slot variables aligned with the optimizer's weights, found by length and shape, not by name."""
    weights = list(optimizer._trainable_variables)
    own = {id(optimizer._iterations), *(id(weight) for weight in weights)}
    found: dict[str, list[keras.Variable | None]] = {}
    for name, value in vars(optimizer).items():
        if name in ("_variables", "_trainable_variables") or not isinstance(value, (list, tuple)) or not weights:
            continue
        if len(value) != len(weights) or all(slot is None for slot in value):
            continue
        aligned = (
            slot is None
            or (isinstance(slot, keras.Variable) and id(slot) not in own and tuple(slot.shape) == tuple(weight.shape))
            for slot, weight in zip(value, weights, strict=True)
        )
        if all(aligned):
            found[name] = list(value)
    return found


def scalars(optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """Attribute → variable that belongs to no weight (Nadam's product, the loss scale); not count and rate."""
    known = {id(optimizer._iterations), id(optimizer._learning_rate)}
    owned = {id(variable) for variable in optimizer._variables}
    held = vars(optimizer).items()
    return {name: v for name, v in held if isinstance(v, keras.Variable) and id(v) in owned and id(v) not in known}


def fresh_fill(optimizer: keras.optimizers.Optimizer) -> dict[str, float | str]:
    """Attribute → what a freshly built optimizer has in that slot: a constant, or `COPY`.

    Learned by building a twin from its config on one small variable, so that no initial value is assumed.
    """
    if _FILL not in vars(optimizer):
        vars(optimizer)[_FILL] = _learn_fill(optimizer)
    return vars(optimizer)[_FILL]


def _learn_fill(optimizer: keras.optimizers.Optimizer) -> dict[str, float | str]:
    if hasattr(optimizer, "inner_optimizer"):
        return {"dynamic_scale": float(optimizer.initial_scale), "step_counter": 0.0}
    if hasattr(optimizer, "optimizers"):
        return {}
    try:
        twin = type(optimizer).from_config({**optimizer.get_config(), "learning_rate": 1e-3})
    except Exception as error:
        warnings.warn(
            f"optimizer {optimizer.name!r} cannot be made from its config ({error}); its fresh slots are taken to be 0",
            stacklevel=2,
        )
        return {}
    probe = keras.Variable(np.full(2, 3.0, np.float32), name="probe")
    twin.build([probe])
    fill: dict[str, float | str] = {}
    for name, (slot,) in slots(twin).items():
        value = float(slot.numpy()[0]) if slot is not None else 0.0
        fill[name] = COPY if value == 3.0 else value
    return fill | {name: float(variable.numpy()) for name, variable in scalars(twin).items()}


def reset_pruned(optimizer: keras.optimizers.Optimizer, variables: Iterable[keras.Variable]) -> None:
    """Set slots, accumulators and averages of the pruned entries of ``variables`` to a fresh optimizer's values."""
    chosen = {id(variable) for variable in variables}
    for leaf in leaves(optimizer):
        if not leaf.built:
            continue
        found = slots(leaf)
        fill = fresh_fill(leaf) if found else {}
        for name, held in found.items():
            value = fill.get(name, 0.0)
            # A slot that starts as the weight starts at 0 where the weight is pruned.
            constant = 0.0 if isinstance(value, str) else value
            for slot, weight in zip(held, leaf._trainable_variables, strict=True):
                mask = mask_of(weight)
                if slot is not None and mask is not None and id(weight) in chosen:
                    tensor = tf.convert_to_tensor(slot._value)
                    slot.assign(tf.where(mask.mask, tensor, tf.cast(constant, tensor.dtype)))


def refuse_coupling(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> None:
    """Raise if a masked weight is updated by an optimizer whose update of one weight depends on the pruned others."""
    for leaf in leaves(optimizer):
        names = {cls.__name__ for cls in type(leaf).__mro__ if cls.__module__.split(".")[0] == "keras"}
        kind = next((name for name in _COUPLING if name in names), None)
        if kind is None:
            continue
        if leaf is not optimizer and not leaf.built:
            # Which weights it gets is decided when it is built; the hook asks again then.
            continue
        handled = {id(variable) for variable in leaf._trainable_variables} if leaf.built else None
        if handled is None or any(id(variable) in handled for variable in variables):
            raise ValueError(
                f"optimizer {leaf.name!r} ({kind}) couples the entries of a weight, so a pruned entry would still act "
                "on the others: train masked models with SGD, Adam, AdamW, RMSprop, Lion, Nadam, Adagrad or another "
                "optimizer that works entry by entry"
            )


class _Apply:
    """Replaces ``optimizer.apply`` on one instance: gradients are masked before the optimizer sees them.

    Clipping by norm comes first inside ``apply``, so masking later would clip by the norm of absent weights.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self.optimizer = optimizer
        self.previous = optimizer.apply
        # Set while the training step of a hooked model runs: it has healed its weights just before.
        self.healed = False

    def __call__(self, grads: Sequence[Any], trainable_variables: Iterable[keras.Variable] | None = None) -> Any:
        given = None if trainable_variables is None else list(trainable_variables)
        weights = list(self.optimizer._trainable_variables) if given is None else given
        masked = [weight for weight in weights if mask_of(weight) is not None]
        if masked and not self.optimizer.built:
            self.optimizer.build(weights)
        refuse_coupling(self.optimizer, masked)
        if len(grads) == len(weights):
            grads = [_masked(gradient, weight) for gradient, weight in zip(grads, weights, strict=True)]
        if not self.healed or not _keeps_zeros(self.optimizer):
            return self.previous(grads, given)
        constraints = [(weight, weight.constraint) for weight in masked if weight.constraint.user is None]
        for weight, _ in constraints:
            weight.constraint = None
        try:
            return self.previous(grads, given)
        finally:
            for weight, constraint in constraints:
                weight.constraint = constraint


class _Finalize:
    """Replaces ``optimizer.finalize_variable_values``: averages that ``fit`` swaps in at its end are masked too."""

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self.previous = optimizer.finalize_variable_values

    def __call__(self, var_list: Sequence[keras.Variable]) -> None:
        self.previous(var_list)
        for variable in var_list:
            heal(variable)


class _Load:
    """Replaces ``optimizer.load_own_variables``: slots that come from a dense model's file are reset where pruned."""

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self.optimizer = optimizer
        self.previous = optimizer.load_own_variables

    def __call__(self, store: Any) -> None:
        self.previous(store)
        reset_pruned(self.optimizer, self.optimizer._trainable_variables)


_HOOKS: dict[str, Any] = {"apply": _Apply, "finalize_variable_values": _Finalize, "load_own_variables": _Load}


def hook(optimizer: keras.optimizers.Optimizer) -> None:
    """Make ``optimizer`` mask gradients. Masks are looked up on the variables, so one hook serves every model."""
    for name, kind in _HOOKS.items():
        if not isinstance(vars(optimizer).get(name), kind):
            # Through __dict__: the attribute tracking of Keras and TensorFlow must not see it.
            vars(optimizer)[name] = kind(optimizer)


def trust(optimizer: keras.optimizers.Optimizer, healed: bool) -> None:
    """Tell the hook of ``optimizer`` whether its pruned weights are known to be 0 when a step begins."""
    held = vars(optimizer).get("apply")
    if isinstance(held, _Apply):
        held.healed = healed


def unhook(optimizer: keras.optimizers.Optimizer) -> None:
    """Undo `hook`."""
    for name, kind in _HOOKS.items():
        current = vars(optimizer).get(name)
        if isinstance(current, kind):
            del vars(optimizer)[name]
            if current.previous != getattr(optimizer, name):
                vars(optimizer)[name] = current.previous


def _keeps_zeros(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether a weight of 0 with gradient 0 and fresh slots provably stays 0, so that no constraint is needed.

    Not with averages (they are assigned), nor with norms (one infinite gradient makes all of them NaN), nor on several
    replicas (their threads would take each other's constraints away).
    """
    exact = type(optimizer).__name__ in _KEEPING and type(optimizer).__module__.split(".")[0] == "keras"
    settings = (optimizer.use_ema, optimizer.clipnorm, optimizer.global_clipnorm)
    return exact and not any(settings) and optimizer._distribution_strategy.num_replicas_in_sync == 1


def _masked(gradient: Any, weight: Any) -> Any:
    mask = mask_of(weight)
    return gradient if mask is None or gradient is None else mask.gradient(gradient)
