"""Compute the steps of `Lab` with Keras: one function per kind, of the values of its inputs."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from keras_lth import criteria, surgery
from keras_lth.analysis import averages, curves
from keras_lth.analysis.connectivity import linear_path
from keras_lth.analysis.distances import cosine, l2
from keras_lth.analysis.distances import travelled as distances_travelled
from keras_lth.analysis.evaluation import Batches
from keras_lth.analysis.permutations import symmetries
from keras_lth.analysis.predictions import differences
from keras_lth.analysis.statistics import Reestimation
from keras_lth.arguments import round_half_up
from keras_lth.datasets import Streams
from keras_lth.experiments.changes import change_scores
from keras_lth.experiments.live import (
    Json,
    built,
    examples_per_class,
    first_examples,
    in_memory,
    measured,
    splits_of,
    text_of,
    trained,
)
from keras_lth.experiments.moving import mover_of
from keras_lth.imp import IMP, Noise
from keras_lth.layers import fitted
from keras_lth.layers.costs import DEFAULT
from keras_lth.masks import Masks
from keras_lth.plans.step import called, canonical
from keras_lth.plans.training import SLOTS
from keras_lth.selection import keep_counts, random_like, select, uniform
from keras_lth.store import Value
from keras_lth.tickets import Snapshot, snapshot_of, value_of

# States ---------------------------------------------------------------------------------------------------------------


def masks_of(value: Value) -> Masks:
    """Return the masks in a value."""
    return Masks(value.arrays)


def mask_value(masks: Masks) -> Value:
    """Return masks as a value, with their density."""
    row = {"density": masks.density, "remaining": masks.remaining, "size": masks.size}
    return Value(dict(masks), {"rows": [row]})


def init(*, seed: int, network: Json) -> Value:
    """Sample new initial values."""
    return _without_slots(value_of(surgery.snapshot(built(network, seed))))


def start(wk: Value, *others: Value, network: Json, values: str, step: int, slots: str, seed: int) -> Value:
    """Return what a round starts from; seeds are those of step k."""
    before = snapshot_of(wk)
    source = before if values in ("k", "shuffled", "unit", "constant") else snapshot_of(others[0])
    weights = {path: _mixed(values, before.weights[path], array) for path, array in source.weights.items()}
    if values == "shuffled":
        weights |= {path: _shuffled(weights[path], mask, seed, path) for path, mask in masks_of(others[0]).items()}
    if values == "unit":
        weights |= {path: (weights[path] / np.std(weights[path])).astype(np.float32) for path in masks_of(others[0])}
    if values == "constant":
        weights |= {p: (np.sign(weights[p]) * np.std(weights[p])).astype(np.float32) for p in masks_of(others[0])}
    kept = others[0].arrays if slots == "k" else {}  # only slots, which have no step of their own
    kept = {name.removeprefix(SLOTS): array for name, array in kept.items() if name.startswith(SLOTS)}
    return value_of(Snapshot(weights, kept, step, before.seeds, before.state))


def _mixed(values: str, before: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The new values, with the signs of step k, or as noise with a mean of 0 on the values of step k."""
    if values == "signs":
        return np.copysign(new, before).astype(new.dtype)
    if values == "noise":
        return (before + (new - new.mean())).astype(new.dtype)
    return new


def _shuffled(values: np.ndarray, mask: np.ndarray, seed: int, path: str) -> np.ndarray:
    """The values where the mask keeps them, in another order."""
    (kept,) = np.nonzero(mask.ravel())
    order = np.argsort(uniform(seed, path, kept.shape), kind="stable")
    made = np.array(values, order="C")
    made.ravel()[kept] = values.ravel()[kept[order]]
    return made


# Trainings ------------------------------------------------------------------------------------------------------------


class Trainer:
    """Runs one training at a time on a compiled model, which is reused by the next training with the same setting."""

    calls = 500

    def __init__(
        self,
        *,
        network: Json,
        optimizer: Json,
        batch_size: int,
        rates: list[Any],
        noise: Json,
        augment: Any,
        jit_compile: bool | None,
        kernels: str = "dense",
        mover: Json | None = None,
    ) -> None:
        self._mover = None if mover is None else mover_of(mover)
        self.kernels, self.batch_size = kernels, batch_size
        self.noise = Noise(**noise)
        setting = {
            "network": network, "optimizer": optimizer, "batch_size": batch_size, "augment": augment,
            "jit_compile": jit_compile, "rates": rates,
        }  # fmt: skip
        self._live, self._loop = trained(json.dumps(canonical(setting), sort_keys=True))
        self._step = 0

    def load(self, state: Value, masks: Value | None, *, first: bool) -> None:
        """Rewind the model; at the start of a trajectory dropout's seeds change with its noise."""
        snapshot = snapshot_of(state)
        if first and self.noise.dropout:
            moved = {path: np.array(seed) for path, seed in snapshot.seeds.items()}
            for seed in moved.values():
                seed[0] = self.noise.moved(int(seed[0]))
            snapshot = replace(snapshot, seeds=moved)
        worn = None if masks is None else masks_of(masks)
        self._live.rewind(snapshot, worn, slots=bool(snapshot.optimizer))
        self._step = snapshot.step
        if self._mover is not None:
            now = None if first else masks_in_state(state)
            self._mover.begin_at(self._live.model, self._step, self._loop.data, self.noise.order, resumed=now)
            if now is not None:  # the mover's first masks have set other weights to 0
                self._live.rewind(snapshot, now, slots=bool(snapshot.optimizer))
        fitted(self._live.model, self.kernels, self.batch_size, costs=DEFAULT)

    def advance(self, to: int) -> None:
        """Train up to a step; a call ends with an epoch."""
        while self._step < to:
            rest = self._loop.data.steps_per_epoch - self._step % self._loop.data.steps_per_epoch
            stop = None if self._mover is None else self._mover.steps_until_stop()
            count = min(rest, to - self._step, rest if stop is None else stop)
            self._loop.run(self._step, count, self.noise.order, self.noise.augment)
            self._step += count
            if self._mover is not None:
                self._mover.reach(self._step)

    def state(self) -> Value:
        """Return the whole state of model and optimizer. Raises ``FloatingPointError`` if the training has diverged."""
        whole = value_of(surgery.snapshot(self._live.model))
        for name, array in whole.arrays.items():
            if name.startswith("weights/") and np.isnan(np.sum(array, dtype=float)):
                raise FloatingPointError(f"{name} contains NaN at step {self._step}: use a lower learning rate.")
        if self._mover is not None:
            masks = {f"masks/{path}": mask for path, mask in surgery.masks_of(self._live.model).items()}
            return Value({**whole.arrays, **masks}, whole.meta)
        return whole

    def observe(self, what: str) -> dict[str, float]:
        """Measure loss and metrics, on "test", "train" or "holdout"."""
        return self._live.numbers(what)


# Scores and masks -----------------------------------------------------------------------------------------------------


def examples(*, network: Json) -> Value:
    """Count the examples and classes of the data, and give their shape."""
    splits = splits_of(text_of(network))
    if isinstance(splits, Streams):
        row = {"examples": splits.train.count(0, 1), "test_examples": splits.test.count(0, 1)}
    else:
        row = {"examples": len(splits.train[0]), "test_examples": len(splits.test[0])}
        row |= {} if splits.holdout is None else {"holdout_examples": len(splits.holdout[0])}
    return Value({}, {"rows": [{**row, "classes": splits.classes}], "shape": list(splits.shape)})


def full(*, network: Json, include: Any, exclude: Any) -> Value:
    """Make masks that keep every prunable weight."""
    return mask_value(Masks.ones(surgery.prunable(measured(text_of(network)).model, include, exclude)))


def score(
    state: Value, *masks: Value, criterion: Any, network: Json, examples: Any, options: Json, invert: bool
) -> Value:
    """Compute scores, by a criterion of this package or a user's own."""
    live = measured(text_of(network))
    live.rewind(snapshot_of(state), masks_of(masks[0]) if masks else None)
    made, more = _criterion(criterion, options)
    found = criteria.scored(made, live.model, *_some(network, examples), **more)
    return Value(criteria.inverted(found) if invert else found)


def iterate(
    state: Value, *, criterion: Any, network: Json, density: float, iterations: int, schedule: str, examples: Any,
    options: Json, invert: bool,
) -> Value:  # fmt: skip
    """Prune in many cuts, each by fresh scores."""
    live = measured(text_of(network))
    live.rewind(snapshot_of(state), None)
    made, more = _criterion(criterion, options)
    if more:
        raise ValueError(f"a criterion of your own takes no options in iterations, but got {dict(more)}.")
    x, y = _some(network, examples)
    how: dict[str, Any] = {"density": density, "iterations": iterations, "schedule": schedule}
    return mask_value(criteria.prune_iteratively(live.model, criteria.Inverted(made) if invert else made, x, y, **how))


def _criterion(criterion: Any, options: Json) -> tuple[Any, Json]:
    """A criterion made with its options; those of a user's own function are passed when it is called."""
    if isinstance(criterion, str):
        return criteria.named(criterion, **options), {}
    return criteria.named(called(criterion)), options


def _some(network: Json, examples: Any) -> tuple[Any, Any]:
    """The training examples that a criterion sees."""
    splits = splits_of(text_of(network))
    if isinstance(examples, Mapping):
        return examples_per_class(splits, examples["per_class"], examples["seed"])
    return first_examples(splits, examples)


def masks_in_state(state: Value) -> Masks | None:
    """Return the masks of a state whose training moved them; None of another."""
    found = {name.removeprefix("masks/"): array for name, array in state.arrays.items() if name.startswith("masks/")}
    return Masks(found) if found else None


def held(state: Value) -> Value:
    """Take the masks out of a state whose training moved them."""
    found = masks_in_state(state)
    if found is None:
        raise ValueError("this state has no masks of its own: its training has no mover. Use the masks it was given.")
    return mask_value(found)


def change(before: Value, after: Value, *, network: Json, criterion: str, seed: int) -> Value:
    """Score what training did to each prunable weight."""
    states = [snapshot_of(value).weights for value in (before, after)]
    paths = list(surgery.prunable(measured(text_of(network)).model))
    first, last = ({path: weights[path] for path in paths} for weights in states)
    return Value(change_scores(criterion, first, last, seed))


def cut(scores: Value, masks: Value, **how: Any) -> Value:
    """Make one cut, as `IMP.cut` describes it."""
    before = masks_of(masks)
    return mask_value(IMP.of_cut(**how).prune({path: scores.arrays[path] for path in before}, before))


def selected(scores: Value, *, density: float | None, scope: Any, structure: Any) -> Value:
    """Keep the highest scores."""
    form = tuple(structure) if isinstance(structure, list) else structure
    return mask_value(select(scores.arrays, density, scope=scope, structure=form))


def combine(*masks: Value, how: str) -> Value:
    """Combine masks by "and", "or" or "not"."""
    first, *rest = map(masks_of, masks)
    if how == "not" and not rest:
        return mask_value(~first)
    if how not in ("and", "or") or not rest:
        raise ValueError(
            f'combine must be "and" or "or" of several masks, or "not" of one, not {how!r} of {len(masks)}.'
        )
    return mask_value(functools.reduce(lambda a, b: a & b if how == "and" else a | b, rest, first))


def swap(kept: Value, grown: Value, masks: Value, like: Value, *, overlap: float | None) -> Value:
    """Keep the highest scores of the masks, and of all other weights, as many in total as other masks."""
    before, wanted = masks_of(masks), masks_of(like)
    stay = (before & wanted).remaining if overlap is None else round_half_up(overlap, wanted.remaining)
    if not wanted.remaining - (~before).remaining <= stay <= before.remaining:
        raise ValueError(
            f"{stay:,} of {wanted.remaining:,} weights cannot stay of {before.remaining:,}: use another overlap."
        )
    scores = [{path: value.arrays[path] for path in before} for value in (kept, grown)]
    old = keep_counts(scores[0], before, {"": stay})
    return mask_value(old | keep_counts(scores[1], ~before, {"": wanted.remaining - stay}))


def regrow(state: Value, masks: Value, fresh: Value, *, step: int) -> Value:
    """Give every pruned weight a fresh value; the others, statistics and seeds stay."""
    before, new = snapshot_of(state), snapshot_of(fresh)
    grown = {path: np.where(mask, before.weights[path], new.weights[path]) for path, mask in masks_of(masks).items()}
    return value_of(Snapshot({**before.weights, **grown}, {}, step, before.seeds, before.state))


def shuffle(masks: Value, *, seed: int, scope: str) -> Value:
    """Keep as many weights at random positions."""
    return mask_value(random_like(masks_of(masks), seed, scope=scope))


def layers(masks: Value) -> Value:
    """Return one row per layer."""
    names = ("path", "size", "remaining", "density")
    return Value({}, {"rows": [{name: getattr(row, name) for name in names} for row in masks_of(masks).table()]})


def degrees(masks: Value) -> Value:
    """Count the weights that remain of each input, and of each output; those are the last two axes of a kernel."""
    rows = []
    for path, mask in masks_of(masks).items():
        pairs = mask.reshape(-1, *mask.shape[-2:]).sum(axis=0)
        counts = {"inputs": pairs.sum(axis=1).tolist(), "outputs": pairs.sum(axis=0).tolist()}
        rows.append({"path": path, "fan_in": mask.size // mask.shape[-1], **counts})
    return Value({}, {"rows": rows})


def moved(before: Value, after: Value, masks: Value) -> Value:
    """Compare the remaining weights of two states, layer by layer, in float64."""
    first, last, rows = snapshot_of(before).weights, snapshot_of(after).weights, []
    for path, mask in masks_of(masks).items():
        a, b = (np.asarray(weights[path], float)[mask] for weights in (first, last))
        rows.append({
            "path": path,
            "remaining": len(a),
            "distance": float(np.linalg.norm(b - a)),
            "norm_before": float(np.linalg.norm(a)),
            "norm_after": float(np.linalg.norm(b)),
            "mean_move": float(np.mean(np.abs(b - a))) if len(a) else 0.0,
            "mean_before": float(np.mean(np.abs(a))) if len(a) else 0.0,
            "sign_changes": float(np.mean(np.sign(a) * np.sign(b) < 0)) if len(a) else 0.0,
        })  # fmt: skip
    return Value({}, {"rows": rows})


# Numbers --------------------------------------------------------------------------------------------------------------


def evaluate(state: Value, *masks: Value, network: Json, what: str) -> Value:
    """Measure loss and metrics; those on "train" and "holdout" are named train_… and holdout_…."""
    live = measured(text_of(network))
    live.rewind(snapshot_of(state), masks_of(masks[0]) if masks else None)
    return Value({}, {"rows": [live.numbers(what)]})


def compare(a: Value, b: Value, *, network: Json, what: str, points: int, statistics: str, examples: int = 0) -> Value:
    """Measure the error along the line, the L2 distance and the cosine distance."""
    live, (first, second) = measured(text_of(network)), (snapshot_of(each) for each in (a, b))
    live.keep_all()
    with live.evaluator(what, examples, reestimates=statistics == "reestimate") as evaluate:
        path = linear_path(first, second, evaluate, points=points, statistics=statistics)
    row = {"data": what, "l2": l2(first, second), "cosine": cosine(first, second), **path.as_dict()}
    return Value({}, {"rows": [{**row, "stable": path.stable()}]})


def distances(a: Value, b: Value, *, network: Json, what: str, examples: int) -> Value:
    """Count the examples that two states classify differently, and measure how much their losses differ."""
    live = measured(text_of(network))
    live.keep_all()
    with live.evaluator(what, examples) as evaluate:
        one, other = (evaluate.predictions(snapshot_of(each).weights) for each in (a, b))
    if one is None or other is None:
        raise ValueError("the model does not name one class per example, so classifications cannot be compared.")
    apart = differences(one, other)
    return Value({}, {"rows": [{"data": what, **apart._asdict(), "different_share": apart.share}]})


def travelled(init: Value, at_k: Value, masks: Value, *ends: Value) -> Value:
    """Measure how far the remaining weights moved: see `analysis.travelled`."""
    states = [snapshot_of(each) for each in (init, at_k, *ends)]
    found = distances_travelled(states[0], states[1], states[2:], masks_of(masks))
    return Value({}, {"rows": [{**dataclasses.asdict(found), "share_between_ends": found.share}]})


def average(*states: Value, network: Json, step: int, reestimate: bool) -> Value:
    """Average weights and statistics of states; seeds are those of the first."""
    first, *rest = map(snapshot_of, states)
    weights = averages.average([first, *rest])
    if reestimate:
        live = measured(text_of(network))
        live.rewind(Snapshot(weights, {}, step, first.seeds, first.state), None)
        with Batches(tuple(in_memory(network).train), 500, "train") as batches:
            weights |= Reestimation(live.model)(batches)
    return value_of(Snapshot(weights, {}, step, first.seeds, first.state))


def matched(a: Value, b: Value, *, network: Json, seed: int) -> Value:
    """Permute the hidden units of ``b`` to be near those of ``a``."""
    second = snapshot_of(b)
    found = symmetries(measured(text_of(network)).model)
    weights = found.aligned(snapshot_of(a), second, seed=seed)
    return value_of(Snapshot(weights, {}, second.step, second.seeds, second.state))


def plane(
    a: Value, b: Value, c: Value, *, network: Json, what: str, points: int, examples: int, margin: float
) -> Value:
    """Measure the error on a grid of the plane through three states."""
    live = measured(text_of(network))
    live.keep_all()
    with live.evaluator(what, examples) as evaluate:
        found = curves.plane([snapshot_of(each) for each in (a, b, c)], evaluate, points=points, margin=margin)
    row = {"data": what, "x": list(found.x), "y": list(found.y), "errors": found.errors.tolist()}
    return Value({}, {"rows": [{**row, "places": [list(place) for place in found.places]}]})


def _without_slots(state: Value) -> Value:
    return Value({name: array for name, array in state.arrays.items() if not name.startswith(SLOTS)}, state.meta)
