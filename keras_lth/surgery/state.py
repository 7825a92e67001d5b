"""Snapshots of a live model and its optimizers, and rewinding to them (Frankle's thesis, 4.2.2)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.masks import Masks, align, match_paths
from keras_lth.surgery import places
from keras_lth.surgery.correction import offset_of, restart
from keras_lth.surgery.entry import check_built, check_model
from keras_lth.surgery.held import Held, held
from keras_lth.surgery.holders import trace_again
from keras_lth.surgery.masking import mask, masks_of, resolve, unmask
from keras_lth.surgery.optimizers import leaves, reset_pruned, slots, start_fresh
from keras_lth.surgery.paths import entries, variables
from keras_lth.surgery.stored import on_whole, whole_shape
from keras_lth.tickets import Snapshot, Ticket

__all__ = ["noise_variables", "rewind", "shapes", "snapshot", "step_of"]


@on_whole
def snapshot(model: keras.Model, *, optimizer: bool = True) -> Snapshot:
    """Copy all values of ``model`` to NumPy: weights, statistics, optimizer variables, step, seeds, state.

    ``weights``, ``seeds`` and ``state`` are keyed by structural path, ``optimizer`` by position and name
    (``"000/iteration"``, ``"002/momentums/dense/kernel"``; for further optimizers the place of the optimizer comes
    first: ``"@opt_b/000/iteration"``). The optimizer part is empty for a model that is not compiled, and has only the
    count and the rate until the optimizer is built. ``step`` counts batches, also with gradient accumulation.

    Args:
        model: a built model.
        optimizer: False omits the slots, but not the count, the rate and the loss scale.

    Raises:
        ValueError: an object whose state cannot be saved: an optimizer that is not a Keras 3 optimizer, a mutable
            lookup table, an iterator; names it.
    """
    check_model(model)
    check_built(model)
    things, found, paths = _kept(model), entries(model), places.paths_by_id(model)
    outer_ones = places.outermost(model, things)
    trainable = list(map(id, model.trainable_variables))
    values: dict[str, np.ndarray] = {}
    for prefix, outer in outer_ones.items():
        for place, leaf in places.with_inner(prefix, outer):
            values.update({key: _numpy(variable) for key, variable in places.named(paths, place, leaf).items()})
            if prefix or list(map(id, leaf._trainable_variables)) != trainable:
                values.update(places.weights_of(paths, place, leaf))
            if offset_of(leaf):
                values[f"{place}{places.START}"] = np.asarray(offset_of(leaf), np.int64)
    taken = Snapshot(
        weights={e.path: _numpy(e.variable) for e in found if not e.seed},
        optimizer=values,
        step=places.steps_done(outer_ones),
        seeds={path: _numpy(variable) for path, variable in _noise(model, things).items()},
        state={path: _numpy(variable) for path, variable in things.state.items()},
    )
    return taken if optimizer else taken.without_slots()


@on_whole
def rewind(
    model: keras.Model,
    state: Snapshot | Ticket,
    masks: Mapping[str, Any] | None = None,
    *,
    restore_optimizer: bool | None = None,
    step: int | None = None,
    seeds: bool = True,
) -> None:
    """Set ``model`` to a snapshot or a ticket, in place, inside or outside ``fit``. This is the only function that
    restores a state.

    Every variable gets the stored value bit by bit, with pruned weights at 0. ``masks`` are set if given, else the
    current masks stay. A ticket sets its own masks and removes others. The step count becomes the stored one (or
    ``step``), and with it the learning rate and the loss scale, as when Keras loads an optimizer. The slots become
    those of a freshly built optimizer and the bias correction restarts, while schedules continue from the step. With
    ``restore_optimizer=True`` the slots are the stored ones, pruned entries reset; this is the default only for a
    ticket that has slots. Averages (EMA) become the stored weights, and partly filled gradient accumulators are
    cleared. This applies to every optimizer that updates a weight of the model; one that is not built yet is first
    built on the weights that it had. ``seeds=True`` also sets seed generators, so that dropout repeats its noise.

    The snapshot may come from another instance of the same architecture: paths may differ, order and shapes may not.

    Raises:
        ValueError: a state of another architecture or of other optimizers, slots that the snapshot does not have, or
            a model whose state cannot be saved; nothing is then changed.
    """
    check_model(model)
    check_built(model)
    whole = isinstance(state, Ticket)
    if isinstance(state, Ticket):
        masks = state.masks if masks is None else masks
        restore_optimizer = state.snapshot.has_slots if restore_optimizer is None else restore_optimizer
        state = state.snapshot
    snapshot: Snapshot = state
    things, found = _kept(model), entries(model)
    own = [e for e in found if not e.seed]
    weights = _complete(snapshot.weights, own, "weights")
    generators = _noise(model, things)
    noise = align(snapshot.seeds, {p: tuple(v.shape) for p, v in generators.items()}, what="seeds") if seeds else {}
    others = _fitting(model, things.state, snapshot.state)
    if step is not None and (int(step) != step or step < 0):
        raise ValueError(f"step must be a whole number ≥ 0, not {step!r}")
    arrays = None if masks is None else _resolved(model, masks, snapshot, _shapes(own))
    stored = places.groups(snapshot)
    outer_ones = places.outermost(model, things)
    places.build(model, outer_ones, stored)
    placed = [one for prefix, outer in outer_ones.items() for one in places.with_inner(prefix, outer)]
    if not placed and snapshot.step and step is None:
        warnings.warn(
            f"model {model.name!r} has no optimizer to set to step {snapshot.step}: compile the model first",
            stacklevel=2,
        )
    if restore_optimizer:
        places.refuse_unknown(model, snapshot, [place for place, _ in placed])
    paths = places.paths_by_id(model)
    plans = [_plan(paths, place, leaf, stored.get(place, {}), bool(restore_optimizer)) for place, leaf in placed]

    if arrays is not None:
        if whole and set(masks_of(model)) - set(arrays):
            unmask(model)
        mask(model, arrays)
    current = masks_of(model)
    by_path = variables(model)
    for path, value in _masked(weights, current).items():
        by_path[path].assign(value)
    for path, value in noise.items():
        generators[path].assign(value)
    for path, value in others.items():
        things.state[path].assign(value)

    new = [
        leaf._iterations
        for (place, leaf), values in zip(placed, plans, strict=True)
        if _set(leaf, values, stored.get(place, {}).get(places.START), snapshot.step, step)
    ]
    for optimizer in outer_ones.values():
        reset_pruned(optimizer, by_path.values())
    if new:
        # The correction is a new operation in every step that uses the iterations.
        trace_again(new)


def step_of(model: keras.Model) -> int:
    """Return the number of training steps of ``model``, from the count of its optimizer."""
    things = held(model)
    near = places.steps_done(places.outermost(model, things, elsewhere=False))
    return near or places.steps_done(places.outermost(model, things))


def shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Return the shape of every variable of ``model``, by structural path; of stored kernels that of the whole one."""
    return {path: whole_shape(variable) for path, variable in variables(model).items()}


def noise_variables(model: keras.Model) -> dict[str, Any]:
    """Return the states of the random generators of ``model``, by path.

    They are the seed generators of its layers, those that it holds elsewhere, and states of ``tf.random.Generator``.
    """
    return _noise(model, held(model))


def _set(
    leaf: keras.optimizers.Optimizer, values: dict[int, np.ndarray], start: Any, taken_at: int, step: int | None
) -> bool:
    """Set one optimizer to its rewound values: the planned ones, otherwise fresh ones."""
    start_fresh(leaf, values)
    rate = leaf._learning_rate
    if id(rate) in values:
        rate.assign(values[id(rate)])

    known = {id(leaf._iterations), id(rate), *_clock(leaf)}
    restored = any(key not in known for key in values)
    wraps = len(leaves(leaf)) > 1
    count = int(values.get(id(leaf._iterations), 0 if wraps else taken_at))
    begin = int(0 if start is None else start) if restored else count
    # A wrapper that only passes gradients on does not count.
    if step is not None and not (wraps and count == 0):
        begin, count = (begin + step - count if restored else step), int(step)
    leaf._iterations.assign(count)
    return restart(leaf, begin)


def _plan(
    paths: Mapping[int, str],
    place: str,
    leaf: keras.optimizers.Optimizer,
    group: Mapping[str, np.ndarray],
    restore: bool,
) -> dict[int, np.ndarray]:
    """id of an optimizer variable → the snapshot's value, for variables that have one."""
    named = {key[len(place) :]: variable for key, variable in places.named(paths, place, leaf).items()}
    stored = {key: value for key, value in group.items() if key[:3].isdigit()}
    if restore:
        # A snapshot taken before the optimizer was built has no slots: it had those of a fresh one.
        aligned = align(
            stored, {key: tuple(v.shape) for key, v in named.items()}, what="optimizer variables", some_match=True
        )
        slotted = {id(slot) for of in slots(leaf).values() for slot in of}
        missing = [key for key, v in named.items() if key not in aligned and id(v) in slotted]
        some = [key for key in aligned if id(named[key]) in slotted]
        if missing and some:
            raise ValueError(f"the snapshot's optimizer variables do not fit the optimizer: {missing} are missing")
        return {id(named[key]): value for key, value in aligned.items()}
    always = {id(leaf._iterations), id(leaf._learning_rate), *_clock(leaf)}
    return {
        id(variable): stored[key]
        for key, variable in named.items()
        if id(variable) in always and key in stored and stored[key].shape == tuple(variable.shape)
    }


def _clock(leaf: keras.optimizers.Optimizer) -> set[int]:
    return {id(getattr(leaf, name)) for name in ("dynamic_scale", "step_counter") if hasattr(leaf, name)}


def _kept(model: keras.Model) -> Held:
    """What ``model`` holds besides its weights."""
    things = held(model)
    if things.refused:
        listed = "; ".join(f"{path} is {what}" for path, what in things.refused.items())
        raise ValueError(
            f"model {model.name!r} has state that cannot be saved and restored: {listed}. Use an optimizer of "
            f"keras.optimizers, store counts in a keras.Variable, and keep tables and iterators outside of the model"
        )
    return things


def _noise(model: keras.Model, things: Held) -> dict[str, Any]:
    return {e.path: e.variable for e in entries(model) if e.seed} | things.noise


def _fitting(model: keras.Model, current: Mapping[str, Any], stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The stored state, by path, after a check that the model has all of it."""
    unknown = [path for path in stored if path not in current]
    if unknown:
        raise ValueError(
            f"the snapshot has state that model {model.name!r} does not have: {unknown}. Create these variables "
            f"when the model is created or built, not in its first step"
        )
    for path, value in stored.items():
        if not tf.TensorShape(current[path].shape).is_compatible_with(value.shape):
            raise ValueError(f"state {path!r} has shape {value.shape} in the snapshot, but {current[path].shape} here")
    missing = [path for path in current if path not in stored]
    if missing:
        warnings.warn(f"the snapshot has no value of {missing}: they stay unchanged", stacklevel=3)
    return dict(stored)


def _resolved(
    model: keras.Model, masks: Mapping[str, Any], snapshot: Snapshot, shapes: Mapping[str, tuple[int, ...]]
) -> Mapping[str, Any]:
    """The masks under the model's paths, matched in the same way as the weights."""
    if set(masks) <= set(shapes) or not set(masks) <= set(snapshot.weights):
        return resolve(model, masks)
    sources = {path: value.shape for path, value in snapshot.weights.items()}
    pairs = match_paths(sources, shapes, what="weights")
    return resolve(model, {target: masks[source] for target, source in pairs.items() if source in masks})


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


def _numpy(variable: Any) -> np.ndarray:
    return np.array(variable.numpy())
