"""What a process keeps between steps: data, and models with everything compiled for them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import criteria, datasets, models, surgery
from keras_lth.analysis.evaluation import Evaluator
from keras_lth.datasets import Splits, Streams
from keras_lth.masks import Masks
from keras_lth.plans.step import called, canonical
from keras_lth.tickets import Snapshot
from keras_lth.training import optimizers
from keras_lth.training.evaluation import Evaluation
from keras_lth.training.loop import Loop

Json = Mapping[str, Any]
_TEST_BATCH = 1000


class Live:
    """A compiled model, with its compiled evaluations and training steps."""

    def __init__(
        self, network: Json, optimizer: Callable[[], Any], jit_compile: bool | None, *, trains: bool = True
    ) -> None:
        self.network, self.jit_compile, self._trains = network, jit_compile, trains
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
        if masks is None and self._trains:
            surgery.unmask(self.model)
        elif masks is None:
            self.keep_all()
        surgery.rewind(self.model, state, masks, restore_optimizer=slots)

    def keep_all(self) -> None:
        """Let masks remove nothing.

        Masks that come on or go off have all steps of a model traced and compiled again. What is measured is the same
        with masks that keep everything; a training might be compiled to another order of operations.
        """
        if worn := surgery.masks_of(self.model):
            surgery.mask(self.model, Masks.ones(worn))

    def evaluator(self, what: str, examples: int = 0, *, reestimates: bool = False) -> Evaluator:
        """Return what measures errors of other weights, on a part of the data or on so many evenly spaced examples."""
        key = what, examples, reestimates
        if key not in self._evaluators:
            splits = in_memory(self.network)
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
            data = tested_on(splits_of(text_of(self.network)), what)
            self._evaluations[what] = Evaluation(self.model, data, _TEST_BATCH, self.jit_compile)
        found = self._evaluations[what].run()
        return {name if what == "test" else f"{what}_{name}": value for name, value in found.items()}


def text_of(network: Json) -> str:
    """Return the key under which the functions below are cached."""
    return json.dumps(canonical(network), sort_keys=True)


@functools.lru_cache(maxsize=2)
def splits_of(network: str) -> Splits | Streams:
    """Return the data of a network, after its data options."""
    given = json.loads(network)
    data, options = given["data"], given.get("data_options", {})
    found: Splits | Streams
    if isinstance(data, str):
        found = datasets.STREAMS[data]() if data in datasets.STREAMS else datasets.load(data)
    else:
        found = datasets.npz(data["file"]) if "file" in data else called(data)()
    if isinstance(found, Streams):
        if changed := [key for key, value in options.items() if value != datasets.OPTIONS[key]]:
            raise ValueError(f"data_options {', '.join(changed)} need data in memory, but {data!r} stays in files.")
        return found
    return datasets.derived(found, **options)


def in_memory(network: Json) -> Splits:
    """Return the data of a network. Raises ``ValueError`` for data that stays in files."""
    found = splits_of(text_of(network))
    if isinstance(found, Streams):
        raise ValueError("this step needs data in memory, but the data of this network stays in files.")
    return found


def tested_on(data: Splits | Streams, what: str) -> Any:
    """Return a part of the data as `Evaluation` takes it."""
    if isinstance(data, Splits):
        return data.part(what)
    return datasets.from_files(data.part(what), batch_size=_TEST_BATCH, seed=0, shuffle=False, augment=data.evaluated)


def first_examples(data: Splits | Streams, count: int) -> tuple[Any, Any]:
    """Return the first training examples, all if ``count`` is 0; data in files gives none then."""
    if isinstance(data, Splits):
        return data.train[0][: count or None], data.train[1][: count or None]
    if count == 0:
        return None, None
    batches = datasets.from_files(data.train, batch_size=count, seed=0, shuffle=False, augment=data.evaluated)
    return next(batches.stream(0).as_numpy_iterator())


def examples_per_class(data: Splits | Streams, count: int, seed: int) -> tuple[Any, Any]:
    """Return ``count`` training examples of each class: at random in memory, the first of a seed's order in files."""
    if isinstance(data, Splits):
        x, y = data.train
        chosen = criteria.per_class(y, count, seed=seed)
        return x[chosen], y[chosen]
    left, found = np.full(data.classes, count), []
    # One by one: a whole number of batches could leave examples out.
    order = datasets.from_files(data.train, batch_size=1, seed=seed, augment=data.evaluated).stream(0)
    for (image,), (label,) in order.as_numpy_iterator():
        if left[label]:
            left[label] -= 1
            found.append((image, label))
        if not left.any():
            break
    else:
        label = int(left.argmax())
        raise ValueError(
            f"class {label} has {count - left[label]} examples in these files, fewer than {count}: use a smaller count"
        )
    images, labels = zip(*found, strict=True)
    return np.stack(images), np.stack(labels)


def built(network: Json, seed: int) -> keras.Model:
    """Return a new model, not compiled; its initial values are a function of ``seed``."""
    splits, model = splits_of(text_of(network)), network["model"]
    build = getattr(models, model, None) if isinstance(model, str) else called(model)
    if build is None:
        raise ValueError(f"model={model!r} is not in keras_lth.models: {', '.join(models.__all__)}.")
    made = build(splits.shape, splits.classes, seed=seed, **network["options"])
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
    return Live(json.loads(network), keras.optimizers.SGD, None, trains=False)


@functools.lru_cache(maxsize=3)
def _trained(setting: str, strategy: Any) -> tuple[Live, Loop]:
    given = json.loads(setting)

    def optimizer() -> Any:
        # One form for all rates, even a constant one: an optimizer with its own rate holds another variable, and a
        # state before a drop could not be continued after it.
        options = {"name": "sgd", **given["optimizer"]}
        return optimizers.named(**options, learning_rate=optimizers.Pieces(given["rates"]))

    live = Live(given["network"], optimizer, given["jit_compile"])
    splits, how = splits_of(text_of(given["network"])), {"batch_size": given["batch_size"], "augment": given["augment"]}
    if isinstance(splits, Splits):
        data: Any = datasets.ordered(*splits.train, seed=0, **how)
    else:
        data = datasets.from_files(splits.train, seed=0, **how)
    return live, Loop(live.model, data, jit_compile=given["jit_compile"])
