"""How the steps of the laboratory are made, with Keras: one function a kind, of the values of its inputs."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import criteria, datasets, models, surgery
from keras_lth.analysis.instability import compare as compared
from keras_lth.imp import IMP, Noise
from keras_lth.masks import Masks
from keras_lth.plans.step import called, canonical
from keras_lth.plans.trajectory import SLOTS
from keras_lth.selection import random_like, select
from keras_lth.store import Value
from keras_lth.tickets import Snapshot
from keras_lth.training.evaluation import Evaluation
from keras_lth.training.loop import Loop

Json = Mapping[str, Any]
_PARTS = {"weights": "weights/", "optimizer": SLOTS, "seeds": "seeds/"}
_TEST_BATCH = 1000


# States ---------------------------------------------------------------------------------------------------------------


def value_of(snapshot: Snapshot) -> Value:
    """A snapshot as a value: arrays by part and path, the step beside them."""
    arrays = {f"{_PARTS[part]}{path}": a for part in _PARTS for path, a in getattr(snapshot, part).items()}
    return Value(arrays, {"step": snapshot.step})


def snapshot_of(state: Value) -> Snapshot:
    """The snapshot that `value_of` was given; its optimizer part is empty where the state was kept without slots."""
    parts = {
        part: {name[len(start) :]: array for name, array in state.arrays.items() if name.startswith(start)}
        for part, start in _PARTS.items()
    }
    return Snapshot(parts["weights"], parts["optimizer"], state.meta["step"], parts["seeds"])


def masks_of(value: Value) -> Masks:
    """Masks from a value."""
    return Masks(value.arrays)


def mask_value(masks: Masks) -> Value:
    """Masks as a value, with their density."""
    row = {"density": masks.density, "remaining": masks.remaining, "size": masks.size}
    return Value(dict(masks), {"rows": [row]})


def init(*, seed: int, network: Json) -> Value:
    """Newly sampled values."""
    return _without_slots(value_of(surgery.snapshot(_built(network, seed))))


def start(wk: Value, *others: Value, network: Json, values: str, step: int, slots: str) -> Value:
    """What a round starts from; seeds are those of step k."""
    arrays = {name: array for name, array in wk.arrays.items() if name.startswith(_PARTS["seeds"])}
    source = others[0] if values in ("trained", "fresh", "signs") else wk
    weights = {name: array for name, array in source.arrays.items() if name.startswith(_PARTS["weights"])}
    if values == "signs":
        weights = {name: np.copysign(array, wk.arrays[name]).astype(array.dtype) for name, array in weights.items()}
    if slots == "k":
        arrays |= {name: array for name, array in others[0].arrays.items() if name.startswith(SLOTS)}
    return Value({**weights, **arrays}, {"step": step})


# Trainings ------------------------------------------------------------------------------------------------------------


class Trainer:
    """One training at a time on a compiled model, which is kept for the next one of the same setting."""

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
    ) -> None:
        self.noise = Noise(**noise)
        if self.noise.augment != self.noise.order:
            raise ValueError("augmentation draws from the seed of the data order: give both the same.")
        setting = {
            "network": network, "optimizer": optimizer, "batch_size": batch_size, "augment": augment,
            "jit_compile": jit_compile, "since": [step for step, _ in rates[1:]], "rates": [rate for _, rate in rates],
        }  # fmt: skip
        self._live, self._loop = _trained(json.dumps(canonical(setting), sort_keys=True))
        self._step = 0

    def load(self, state: Value, masks: Value | None, *, first: bool) -> None:
        """Rewind the model; at the start of a trajectory dropout's seeds move with its noise."""
        snapshot = snapshot_of(state)
        if first and self.noise.dropout:
            moved = {path: np.array(seed) for path, seed in snapshot.seeds.items()}
            for seed in moved.values():
                seed[0] = self.noise.moved(int(seed[0]))
            snapshot = Snapshot(snapshot.weights, snapshot.optimizer, snapshot.step, moved)
        self._live.rewind(snapshot, masks, slots=bool(snapshot.optimizer))
        self._step = snapshot.step

    def advance(self, to: int) -> None:
        """Train up to a step; a call ends with an epoch."""
        while self._step < to:
            rest = self._loop.data.steps_per_epoch - self._step % self._loop.data.steps_per_epoch
            count = min(rest, to - self._step)
            self._loop.run(self._step, count, self.noise.order)
            self._step += count

    def state(self) -> Value:
        """All of the model and its optimizer. Raises ``FloatingPointError`` where the training has diverged."""
        whole = value_of(surgery.snapshot(self._live.model))
        for name, array in whole.arrays.items():
            if name.startswith(_PARTS["weights"]) and np.isnan(np.sum(array, dtype=float)):
                raise FloatingPointError(f"{name} holds NaN at step {self._step}: use a lower learning rate.")
        return whole

    def observe(self, what: str) -> dict[str, float]:
        """Loss and metrics, on "test" or "train"."""
        return self._live.numbers(what)


# Scores and masks -----------------------------------------------------------------------------------------------------


def full(*, network: Json, include: Any, exclude: Any) -> Value:
    """Masks that keep every prunable weight."""
    return mask_value(Masks.ones(surgery.prunable(_measured(_text(network)).model, include, exclude)))


def score(state: Value, *masks: Value, criterion: Any, network: Json, examples: int, options: Json) -> Value:
    """Scores, by a criterion of this package or a user's own."""
    live = _measured(_text(network))
    live.rewind(snapshot_of(state), masks[0] if masks else None)
    x, y = _splits(_text(network)).train
    given = (x[: examples or None], y[: examples or None])
    if isinstance(criterion, str):
        known = {name.lower(): name for name in criteria.__all__}
        if criterion not in known:
            raise ValueError(f"criterion={criterion!r} is not one of {', '.join(known)}.")
        made = getattr(criteria, known[criterion])(**options)
        found = made(live.model, *(given if len(inspect.signature(made).parameters) > 1 else ()))
    else:
        found = called(criterion)(live.model, *given, **options)
    return Value({path: np.asarray(array) for path, array in found.items()})


def cut(scores: Value, masks: Value, **how: Any) -> Value:
    """One cut, as `IMP.cut` says."""
    before = masks_of(masks)
    return mask_value(IMP.of_cut(**how).prune({path: scores.arrays[path] for path in before}, before))


def selected(scores: Value, *, density: float | None, scope: Any, structure: Any) -> Value:
    """The highest scores."""
    form = tuple(structure) if isinstance(structure, list) else structure
    return mask_value(select(scores.arrays, density, scope=scope, structure=form))


def combine(*masks: Value, how: str) -> Value:
    """Masks' algebra."""
    first, *rest = map(masks_of, masks)
    if how == "not" and not rest:
        return mask_value(~first)
    if how not in ("and", "or") or not rest:
        raise ValueError(f'combine is "and" or "or" of several masks, or "not" of one, not {how!r} of {len(masks)}.')
    return mask_value(functools.reduce(lambda a, b: a & b if how == "and" else a | b, rest, first))


def shuffle(masks: Value, *, seed: int, scope: str) -> Value:
    """As many weights at random places."""
    return mask_value(random_like(masks_of(masks), seed, scope=scope))


def layers(masks: Value) -> Value:
    """A row a layer."""
    names = ("path", "size", "remaining", "density")
    return Value({}, {"rows": [{name: getattr(row, name) for name in names} for row in masks_of(masks).table()]})


# Numbers --------------------------------------------------------------------------------------------------------------


def evaluate(state: Value, *masks: Value, network: Json, what: str) -> Value:
    """Loss and metrics; those on the training set are called train_…"""
    live = _measured(_text(network))
    live.rewind(snapshot_of(state), masks[0] if masks else None)
    return Value({}, {"rows": [live.numbers(what)]})


def compare(a: Value, b: Value, *, network: Json, what: str, points: int, statistics: str) -> Value:
    """Error along the line, L2 distance, cosine."""
    model = _measured(_text(network)).model
    surgery.unmask(model)
    splits = _splits(_text(network))
    (found,) = compared(
        [snapshot_of(a), snapshot_of(b)], model, {what: getattr(splits, what)}, points=points, statistics=statistics,
        train_data=splits.train,
    )  # fmt: skip
    row = {**found.as_dict(), **found.as_dict()["path"], "barrier": found.barrier, "stable": bool(found.stable())}
    return Value({}, {"rows": [{name: value for name, value in row.items() if name not in ("path", "pair")}]})


# What a process keeps between steps -----------------------------------------------------------------------------------


class _Live:
    """A compiled model, the compiled evaluations of it, and the compiled steps of one that is trained."""

    def __init__(self, network: Json, optimizer: Callable[[], Any], jit_compile: bool | None) -> None:
        self.network, self.jit_compile = network, jit_compile
        loss = network["loss"]
        with tf.distribute.get_strategy().scope():
            self.model = _built(network, 0)
            self.model.compile(
                optimizer(),
                loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
                if loss.startswith("sparse")
                else loss,
                metrics=list(network["metrics"]),
                jit_compile="auto" if jit_compile is None else jit_compile,
            )
        self._evaluations: dict[str, Evaluation] = {}

    def rewind(self, state: Snapshot, masks: Value | None, *, slots: bool = False) -> None:
        """Set the model to a state, under these masks and no others."""
        if masks is None:
            surgery.unmask(self.model)
        surgery.rewind(self.model, state, None if masks is None else masks_of(masks), restore_optimizer=slots)

    def numbers(self, what: str) -> dict[str, float]:
        """Loss and metrics; those on the training set are called train_…"""
        if what not in ("test", "train"):
            raise ValueError(f'a network is measured on "test" or "train", not on {what!r}.')
        if what not in self._evaluations:
            data = getattr(_splits(_text(self.network)), what)
            self._evaluations[what] = Evaluation(self.model, data, _TEST_BATCH, self.jit_compile)
        found = self._evaluations[what].run()
        return {name if what == "test" else f"train_{name}": value for name, value in found.items()}


def _text(network: Json) -> str:
    return json.dumps(canonical(network), sort_keys=True)


@functools.lru_cache(maxsize=2)
def _splits(network: str) -> datasets.Splits:
    data = json.loads(network)["data"]
    if isinstance(data, str):
        return datasets.load(data)
    return _from_file(data["file"]) if "file" in data else called(data)()


def _from_file(path: str) -> datasets.Splits:
    with np.load(path, allow_pickle=False) as held:
        missing = [name for name in ("x_train", "y_train", "x_test", "y_test") if name not in held]
        if missing:
            raise ValueError(f"{path} has no {', '.join(missing)}: save it with np.savez(path, x_train=…, …).")
        x, y, x_test, y_test = (held[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    if len(x) != len(y) or len(x_test) != len(y_test) or x.shape[1:] != x_test.shape[1:]:
        raise ValueError(f"{path}: x_train {x.shape}, y_train {y.shape}, x_test {x_test.shape}, y_test {y_test.shape}.")
    labels = np.concatenate([y, y_test]).astype(np.int32)
    train, test = labels[: len(y)], labels[len(y) :]
    return datasets.Splits((x.astype(np.float32), train), (x_test.astype(np.float32), test), int(labels.max()) + 1)


def _built(network: Json, seed: int) -> keras.Model:
    splits, model = _splits(_text(network)), network["model"]
    build = getattr(models, model, None) if isinstance(model, str) else called(model)
    if build is None:
        raise ValueError(f"model={model!r} is not in keras_lth.models: {', '.join(models.__all__)}.")
    return build(splits.train[0].shape[1:], splits.classes, seed=seed, **network["options"])


@functools.lru_cache(maxsize=2)
def _measured(network: str) -> _Live:
    """A model that is never trained: for scores, evaluations, comparisons."""
    return _Live(json.loads(network), keras.optimizers.SGD, None)


@functools.lru_cache(maxsize=3)
def _trained(setting: str) -> tuple[_Live, Loop]:
    """A model and its compiled steps, for all trainings of one setting."""
    given = json.loads(setting)

    def optimizer() -> Any:
        rate: Any = given["rates"][0]
        if given["since"]:
            # Keras goes on to the next rate after the boundary, so that a rate from step s on has the boundary s − 1.
            boundaries = [step - 1 for step in given["since"]]
            rate = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, given["rates"])
        options = dict(given["optimizer"])
        kind = type(keras.optimizers.get(options.pop("name", "sgd")))
        return kind(learning_rate=rate, **options)

    live = _Live(given["network"], optimizer, given["jit_compile"])
    x, y = _splits(_text(given["network"])).train
    data = datasets.ordered(x, y, batch_size=given["batch_size"], seed=0, augment=given["augment"])
    return live, Loop(live.model, data, jit_compile=given["jit_compile"])


def _without_slots(state: Value) -> Value:
    return Value({name: array for name, array in state.arrays.items() if not name.startswith(SLOTS)}, state.meta)
