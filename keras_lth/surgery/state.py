"""Snapshots of a live model and its optimizer, and rewinding to them (Frankle's thesis, 4.2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.masks import Masks, align
from keras_lth.surgery.correction import offset_of, restart
from keras_lth.surgery.entry import check_built, check_model
from keras_lth.surgery.hooks import retrace
from keras_lth.surgery.masking import mask, masks_of, resolve
from keras_lth.surgery.optimizers import COPY, EMA, fresh_fill, leaves, optimizers_of, reset_pruned, scalars, slots
from keras_lth.surgery.paths import entries, variables
from keras_lth.tickets import Snapshot

__all__ = ["rewind", "snapshot"]

_START = "correction_start"


def snapshot(model: keras.Model) -> Snapshot:
    """All values of ``model`` as NumPy copies: weights, statistics, optimizer variables, step and seeds.

    ``weights`` and ``seeds`` are keyed by structural path, ``optimizer`` by position and name (``"000/iteration"``,
    ``"002/momentums/dense/kernel"``). The optimizer part is empty for a model that is not compiled, and holds only
    the count and the rate while the optimizer is not built. ``step`` counts batches, also under gradient
    accumulation.
    """
    check_model(model)
    check_built(model)
    found = entries(model)
    optimizer: dict[str, np.ndarray] = {}
    for prefix, leaf in _leaves(model):
        optimizer.update({key: _numpy(variable) for key, variable in _named(model, prefix, leaf).items()})
        if offset_of(leaf):
            optimizer[f"{prefix}{_START}"] = np.asarray(offset_of(leaf), np.int64)
    return Snapshot(
        weights={e.path: _numpy(e.variable) for e in found if not e.seed},
        optimizer=optimizer,
        step=_step(model),
        seeds={e.path: _numpy(e.variable) for e in found if e.seed},
    )


def rewind(
    model: keras.Model,
    snapshot: Snapshot,
    masks: Mapping[str, Any] | None = None,
    *,
    restore_optimizer: bool = False,
    step: int | None = None,
    seeds: bool = True,
) -> None:
    """Set ``model`` back to ``snapshot``, in place, inside or outside ``fit``.

    Every variable takes the snapshot's value bit by bit, pruned ones 0: by ``masks``, which are then also put on,
    else by the current masks. The step count goes back to the snapshot's (or to ``step``), the learning-rate
    variable and the loss scale with it. The slots take the values of a freshly built optimizer and the bias
    correction restarts, while schedules go on from the step; with ``restore_optimizer=True`` the slots are the
    snapshot's, pruned entries reset. Averages (EMA) take the rewound weights, half-filled gradient accumulators are
    cleared. ``seeds=True`` also rewinds seed generators, so that dropout repeats its noise.

    Raises:
        ValueError: a snapshot of another architecture or optimizer; nothing is then changed.
    """
    check_model(model)
    check_built(model)
    found = entries(model)
    weights = _complete(snapshot.weights, [e for e in found if not e.seed], "weights")
    noise = align(snapshot.seeds, _shapes([e for e in found if e.seed]), what="seeds") if seeds else {}
    if step is not None and (int(step) != step or step < 0):
        raise ValueError(f"step must be a whole number ≥ 0, not {step!r}")
    arrays = None if masks is None else resolve(model, masks)
    _build(model)
    plans = [_plan(model, prefix, leaf, snapshot, restore_optimizer) for prefix, leaf in _leaves(model)]

    if arrays is not None:
        mask(model, arrays)
    current = masks_of(model)
    by_path = variables(model)
    for path, value in {**_masked(weights, current), **noise}.items():
        by_path[path].assign(value)

    anew = False
    for (prefix, leaf), values in zip(_leaves(model), plans, strict=True):
        anew |= _set(leaf, prefix, values, snapshot, step)
    for optimizer in optimizers_of(model):
        reset_pruned(optimizer, by_path.values())
    if anew:
        retrace(model)


def _set(
    leaf: keras.optimizers.Optimizer, prefix: str, values: dict[int, np.ndarray], snapshot: Snapshot, step: int | None
) -> bool:
    """Give one optimizer its rewound values: the planned ones, fresh ones where nothing is planned."""
    fill = fresh_fill(leaf)
    for name, held in slots(leaf).items():
        for slot, weight in zip(held, leaf._trainable_variables, strict=True):
            if slot is None:
                continue
            if id(slot) in values:
                slot.assign(values[id(slot)])
            elif name == EMA or fill.get(name) == COPY:
                slot.assign(weight._value)
            else:
                slot.assign(tf.fill(tuple(slot.shape), tf.cast(fill.get(name, 0.0), slot._value.dtype)))
    for name, variable in scalars(leaf).items():
        if id(variable) in values:
            variable.assign(values[id(variable)])
        elif name in fill:
            variable.assign(fill[name])

    rate = leaf._learning_rate
    if id(rate) in values:
        rate.assign(values[id(rate)])

    restored = any(id(slot) in values for held in slots(leaf).values() for slot in held if slot is not None)
    wraps = len(leaves(leaf)) > 1 and hasattr(leaf, "inner_optimizer")
    count = int(values.get(id(leaf._iterations), 0 if wraps else snapshot.step))
    start = int(snapshot.optimizer.get(f"{prefix}{_START}", 0)) if restored else count
    if step is not None and not wraps:
        start, count = (start + step - count if restored else step), int(step)
    leaf._iterations.assign(count)
    return restart(leaf, start)


def _plan(
    model: keras.Model, prefix: str, leaf: keras.optimizers.Optimizer, snapshot: Snapshot, restore: bool
) -> dict[int, np.ndarray]:
    """id of an optimizer variable → the snapshot's value for it, for those that take one."""
    named = _named(model, prefix, leaf)
    stored = {
        key: value
        for key, value in snapshot.optimizer.items()
        if key.startswith(prefix)
        and key[len(prefix) :][:3].isdigit()
        and key[len(prefix) : len(prefix) + 4].endswith("/")
    }
    always = {id(leaf._iterations), id(leaf._learning_rate)}
    always |= {id(getattr(leaf, name, None)) for name in ("dynamic_scale", "step_counter")}
    if restore:
        # A snapshot taken before the optimizer was built has no slots: it had those of a fresh one.
        aligned = align(
            stored, {key: tuple(v.shape) for key, v in named.items()}, what="optimizer variables", some_match=True
        )
        slotted = {id(slot) for held in slots(leaf).values() for slot in held}
        missing = [key for key, v in named.items() if key not in aligned and id(v) in slotted]
        some = [key for key in aligned if id(named[key]) in slotted]
        if missing and some:
            raise ValueError(f"the snapshot's optimizer variables do not fit the optimizer: {missing} are missing")
        return {id(named[key]): value for key, value in aligned.items()}
    return {
        id(variable): stored[key]
        for key, variable in named.items()
        if id(variable) in always and key in stored and stored[key].shape == tuple(variable.shape)
    }


def _named(model: keras.Model, prefix: str, leaf: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """Optimizer variables by position and name; Keras' own names carry instance counters."""
    paths = {id(variable): path for path, variable in variables(model).items()}
    names = {id(variable): name.strip("_") for name, variable in scalars(leaf).items()}
    names |= {id(leaf._iterations): "iteration", id(leaf._learning_rate): "learning_rate"}
    for name, held in slots(leaf).items():
        for slot, weight in zip(held, leaf._trainable_variables, strict=True):
            names[id(slot)] = f"{name.strip('_')}/{paths.get(id(weight), weight.name)}"
    return {f"{prefix}{i:03d}/{names.get(id(v), 'variable')}": v for i, v in enumerate(leaf._variables)}


def _leaves(model: keras.Model) -> list[tuple[str, keras.optimizers.Optimizer]]:
    """Every optimizer of the model with the prefix of its keys: none for a single plain optimizer."""
    result = []
    for number, optimizer in enumerate(optimizers_of(model)):
        outer = f"optimizer_{number}/" if number else ""
        for depth, leaf in enumerate(leaves(optimizer)):
            result.append((f"{outer}inner_{depth}/" if depth else outer, leaf))
    return result


def _build(model: keras.Model) -> None:
    for optimizer in optimizers_of(model):
        if optimizer is model.optimizer and not optimizer.built:
            with model.distribute_strategy.scope():
                optimizer.build(model.trainable_variables)


def _step(model: keras.Model) -> int:
    optimizer = getattr(model, "optimizer", None)
    candidates = [optimizer] if isinstance(optimizer, keras.optimizers.Optimizer) else optimizers_of(model)[:1]
    return max((int(leaf._iterations.numpy()) for outer in candidates for leaf in leaves(outer)), default=0)


def _complete(values: Mapping[str, np.ndarray], wanted: list[Any], what: str) -> dict[str, np.ndarray]:
    shapes = _shapes(wanted)
    aligned = align(values, shapes, what=what)
    missing = [path for path in shapes if path not in aligned]
    if missing:
        raise ValueError(f"these {what} do not fit the model: {missing} are missing")
    return aligned


def _masked(weights: dict[str, np.ndarray], masks: Masks) -> dict[str, np.ndarray]:
    return masks.apply(weights) if masks else weights


def _shapes(found: list[Any]) -> dict[str, tuple[int, ...]]:
    return {entry.path: tuple(entry.variable.shape) for entry in found}


def _numpy(variable: keras.Variable) -> np.ndarray:
    return np.array(variable.numpy())
