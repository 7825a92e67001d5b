"""What a process keeps between steps: data, and models with everything compiled for them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import datasets, models, surgery
from keras_lth.analysis.evaluation import Evaluator
from keras_lth.masks import Masks
from keras_lth.plans.step import called, canonical
from keras_lth.tickets import Snapshot
from keras_lth.training.evaluation import Evaluation
from keras_lth.training.loop import Loop

Json = Mapping[str, Any]
_TEST_BATCH = 1000


class Live:
    """A compiled model, with its compiled evaluations and training steps."""

    def __init__(self, network: Json, optimizer: Callable[[], Any], jit_compile: bool | None) -> None:
        self.network, self.jit_compile = network, jit_compile
        loss = network["loss"]
        with tf.distribute.get_strategy().scope():
            self.model = built(network, 0)
            self.model.compile(
                optimizer(),
                loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
                if loss.startswith("sparse")
                else loss,
                metrics=list(network["metrics"]),
                jit_compile="auto" if jit_compile is None else jit_compile,
            )
        self._evaluations: dict[str, Evaluation] = {}
        self._evaluators: dict[tuple[str, int, bool], Evaluator] = {}

    def rewind(self, state: Snapshot, masks: Masks | None, *, slots: bool = False) -> None:
        """Set the model to a state, with exactly these masks."""
        if masks is None:
            surgery.unmask(self.model)
        surgery.rewind(self.model, state, masks, restore_optimizer=slots)

    def evaluator(self, what: str, examples: int = 0, *, reestimates: bool = False) -> Evaluator:
        """Return what measures errors of other weights, on a part of the data or on so many evenly spaced examples."""
        key = what, examples, reestimates
        if key not in self._evaluators:
            splits = splits_of(text_of(self.network))
            x, y = splits.part(what)
            if examples and examples < len(x):
                chosen = np.linspace(0, len(x) - 1, examples).round().astype(int)
                x, y = x[chosen], y[chosen]
            self._evaluators[key] = Evaluator(
                self.model, (x, y), train_data=tuple(splits.train) if reestimates else None
            )
        return self._evaluators[key]

    def numbers(self, what: str) -> dict[str, float]:
        """Return loss and metrics; those on "train" and "holdout" are named train_… and holdout_…."""
        if what not in self._evaluations:
            data = splits_of(text_of(self.network)).part(what)
            self._evaluations[what] = Evaluation(self.model, data, _TEST_BATCH, self.jit_compile)
        found = self._evaluations[what].run()
        return {name if what == "test" else f"{what}_{name}": value for name, value in found.items()}


def text_of(network: Json) -> str:
    """Return the key under which the functions below are cached."""
    return json.dumps(canonical(network), sort_keys=True)


@functools.lru_cache(maxsize=2)
def splits_of(network: str) -> datasets.Splits:
    """Return the data of a network, after its data options."""
    given = json.loads(network)
    data, options = given["data"], given.get("data_options", {})
    if isinstance(data, str):
        found = datasets.load(data)
    else:
        found = datasets.npz(data["file"]) if "file" in data else called(data)()
    return datasets.derived(found, **options)


def built(network: Json, seed: int) -> keras.Model:
    """Return a new model, not compiled; its initial values are a function of ``seed``."""
    splits, model = splits_of(text_of(network)), network["model"]
    build = getattr(models, model, None) if isinstance(model, str) else called(model)
    if build is None:
        raise ValueError(f"model={model!r} is not in keras_lth.models: {', '.join(models.__all__)}.")
    made = build(splits.train[0].shape[1:], splits.classes, seed=seed, **network["options"])
    shape = getattr(made, "output_shape", None)
    if network["loss"].startswith("sparse") and isinstance(shape, tuple) and (shape[-1] or 0) < splits.classes:
        raise ValueError(
            f"the model has the output shape {shape}, but the data has {splits.classes} classes: the model needs "
            "one output "
            "per class."
        )
    return made


def measured(network: str) -> Live:
    """Return a model that is never trained: for scores, evaluations, comparisons."""
    return _measured(network, tf.distribute.get_strategy())


def trained(setting: str) -> tuple[Live, Loop]:
    """Return a model and its compiled steps, for all trainings with one setting."""
    return _trained(setting, tf.distribute.get_strategy())


@functools.lru_cache(maxsize=2)
def _measured(network: str, strategy: Any) -> Live:
    return Live(json.loads(network), keras.optimizers.SGD, None)


@functools.lru_cache(maxsize=3)
def _trained(setting: str, strategy: Any) -> tuple[Live, Loop]:
    given = json.loads(setting)

    def optimizer() -> Any:
        # One form for all rates, even a constant one: an optimizer with its own rate holds another variable, and a
        # state before a drop could not be continued after it. Keras changes to the next rate after the boundary, so
        # a rate from step s on has the boundary s − 1.
        rates = [float(rate) for rate in given["rates"]]
        boundaries = [step - 1 for step in given["since"]] or [0]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates if given["since"] else rates * 2)
        options = dict(given["optimizer"])
        kind = type(keras.optimizers.get(options.pop("name", "sgd")))
        return kind(learning_rate=rate, **options)

    live = Live(given["network"], optimizer, given["jit_compile"])
    x, y = splits_of(text_of(given["network"])).train
    data = datasets.ordered(x, y, batch_size=given["batch_size"], seed=0, augment=given["augment"])
    return live, Loop(live.model, data, jit_compile=given["jit_compile"])
