"""A live Keras optimizer: its slots, their fresh values, and optimizers that cannot be masked."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_lth.surgery.held import held, inside
from keras_lth.surgery.variable_mask import mask_of

__all__ = [
    "COPY",
    "EMA",
    "fresh_fill",
    "fresh_others",
    "leaves",
    "optimizers_of",
    "refuse_coupling",
    "reset_pruned",
    "scalars",
    "slots",
    "start_fresh",
]

COPY = "copy of the weight"
_FILL = "_keras_lth_fill"
EMA = "_model_variables_moving_average"
# Adafactor factors its second moment into rows and columns and clips by the root mean square of a whole weight; Muon
# orthogonalises a whole weight. Lamb is not here: its norms over a weight do not see entries that are 0 in the
# weight, the gradient and the slots.
_COUPLING = ("Adafactor", "Muon")


def optimizers_of(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return every optimizer that ``model`` holds, outermost ones only.

    They may be attributes of the model, of its layers and sub-models, in containers and plain objects, or what its own
    ``train_step`` uses from outside.
    """
    return list(held(model).optimizers.values())


def leaves(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Return ``optimizer`` and those that it wraps (loss scaling, several optimizers in one)."""
    return [optimizer, *inside(optimizer)]


def slots(optimizer: keras.optimizers.Optimizer) -> dict[str, list[keras.Variable | None]]:
    """Return attribute → slot variables aligned with the optimizer's weights, found by length and shape, not by
    name.
    """
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
    """Return attribute → variable that belongs to no weight (Nadam's product, the loss scale), without count and
    rate.
    """
    known = {id(optimizer._iterations), id(optimizer._learning_rate)}
    owned = {id(variable) for variable in optimizer._variables}
    own = vars(optimizer).items()
    return {name: v for name, v in own if isinstance(v, keras.Variable) and id(v) in owned and id(v) not in known}


def fresh_fill(optimizer: keras.optimizers.Optimizer) -> dict[str, float | str]:
    """Return attribute → the value of that slot in a freshly built optimizer: a constant, or `COPY`.

    It is found by building a twin from the config on one small variable, so that no initial value is assumed.
    """
    if not slots(optimizer) and not scalars(optimizer):
        return {}
    if _FILL not in vars(optimizer):
        vars(optimizer)[_FILL] = _learn_fill(optimizer)
    return vars(optimizer)[_FILL]


def _learn_fill(optimizer: keras.optimizers.Optimizer) -> dict[str, float | str]:
    if hasattr(optimizer, "inner_optimizer"):
        return {"dynamic_scale": float(optimizer.initial_scale), "step_counter": 0.0}
    twin = _twin(optimizer, [keras.Variable(np.full(2, 3.0, np.float32), name="probe")])
    if twin is None:
        return {}
    fill: dict[str, float | str] = {}
    for name, (slot,) in slots(twin).items():
        value = float(slot.numpy()[0]) if slot is not None else 0.0
        fill[name] = COPY if value == 3.0 else value
    return fill | {name: float(variable.numpy()) for name, variable in scalars(twin).items()}


def fresh_others(
    optimizer: keras.optimizers.Optimizer, values: Mapping[int, np.ndarray]
) -> list[tuple[keras.Variable, np.ndarray]]:
    """Return the variables of ``optimizer`` that are neither slots of a weight's shape nor scalars.

    Examples are Adafactor's rows and columns, and slots in a dictionary. Each comes with its value in ``values``, or
    else in a freshly built optimizer.
    """
    known = {id(optimizer._iterations), id(optimizer._learning_rate)}
    known |= {id(slot) for of in slots(optimizer).values() for slot in of}
    known |= {id(variable) for variable in scalars(optimizer).values()}
    others = [(place, v) for place, v in enumerate(optimizer._variables) if id(v) not in known]
    given = [(v, values[id(v)]) for _, v in others if id(v) in values]
    if len(given) == len(others):
        return given
    probes = []
    for weight in optimizer._trainable_variables:
        probe = keras.Variable(np.array(weight.numpy()), name=weight.name.split(":")[0])
        # Some optimizers choose by path (Muon).
        probe._path = getattr(weight, "path", weight.name)
        probes.append(probe)
    twin = _twin(optimizer, probes)
    made = [] if twin is None else twin._variables
    same = len(made) == len(optimizer._variables)
    fresh = {id(v): np.array(made[place].numpy()) if same else np.zeros(tuple(v.shape)) for place, v in others}
    return [(v, values.get(id(v), fresh[id(v)])) for _, v in others]


def _twin(optimizer: keras.optimizers.Optimizer, weights: list[keras.Variable]) -> keras.optimizers.Optimizer | None:
    """A new optimizer with the same config, built on ``weights``; None, with a warning, if it cannot be built."""
    try:
        config = optimizer.get_config()
        twin = type(optimizer).from_config(config | ({"learning_rate": 1e-3} if "learning_rate" in config else {}))
        twin.build(weights)
    except Exception as error:
        warnings.warn(
            f"optimizer {optimizer.name!r} cannot be created from its config ({error}); its fresh slots are "
            "assumed to be 0",
            stacklevel=2,
        )
        return None
    return twin


def start_fresh(optimizer: keras.optimizers.Optimizer, values: Mapping[int, np.ndarray] | None = None) -> None:
    """Set every variable of ``optimizer``, except count and rate, to the value of a freshly built optimizer.

    The fresh optimizer is built on the current weights. ``values`` (id of a variable → value) take precedence.
    """
    values = {} if values is None else values
    fill = fresh_fill(optimizer)
    for name, of in slots(optimizer).items():
        for slot, weight in zip(of, optimizer._trainable_variables, strict=True):
            if slot is None:
                continue
            if id(slot) in values:
                slot.assign(values[id(slot)])
            elif name == EMA or fill.get(name) == COPY:
                slot.assign(weight._value)
            else:
                slot.assign(tf.fill(tuple(slot.shape), tf.cast(fill.get(name, 0.0), slot._value.dtype)))
    for name, variable in scalars(optimizer).items():
        if id(variable) in values:
            variable.assign(values[id(variable)])
        elif name in fill:
            variable.assign(fill[name])
    for variable, value in fresh_others(optimizer, values):
        variable.assign(value)


def reset_pruned(optimizer: keras.optimizers.Optimizer, variables: Iterable[keras.Variable]) -> None:
    """Set slots, accumulators and averages of pruned entries of ``variables`` to the values of a fresh optimizer."""
    chosen = {id(variable) for variable in variables}
    for leaf in leaves(optimizer):
        if not leaf.built:
            continue
        found = slots(leaf)
        fill = fresh_fill(leaf) if found else {}
        for name, of in found.items():
            value = fill.get(name, 0.0)
            # A slot that starts as the weight starts at 0 where the weight is pruned.
            constant = 0.0 if isinstance(value, str) else value
            for slot, weight in zip(of, leaf._trainable_variables, strict=True):
                mask = mask_of(weight)
                if slot is not None and mask is not None and id(weight) in chosen:
                    tensor = tf.convert_to_tensor(slot._value)
                    slot.assign(tf.where(mask.mask, tensor, tf.cast(constant, tensor.dtype)))


def refuse_coupling(optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]) -> None:
    """Raise if an optimizer whose update of one entry depends on the pruned others updates a masked weight."""
    for leaf in leaves(optimizer):
        names = {cls.__name__ for cls in type(leaf).__mro__ if cls.__module__.split(".")[0] == "keras"}
        kind = next((name for name in _COUPLING if name in names), None)
        if kind is None:
            continue
        if leaf is not optimizer and not leaf.built:
            # Its weights are decided when it is built; the hook checks again then.
            continue
        handled = {id(variable) for variable in leaf._trainable_variables} if leaf.built else None
        if handled is None or any(id(variable) in handled for variable in variables):
            raise ValueError(
                f"optimizer {leaf.name!r} ({kind}) couples the entries of a weight, so a pruned entry would still "
                "affect "
                "the others: train masked models with SGD, Adam, AdamW, RMSprop, Lion, Nadam, Adagrad or another "
                "optimizer that works entry by entry"
            )
