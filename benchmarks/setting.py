"""The network of a config, compiled for Keras' ``fit`` at its best, 50 steps per execution, and its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from keras_lth import datasets, models
from keras_lth.training.optimizers import named


class Setting:
    """Its splits, its test data in batches, steps an epoch, epochs."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.splits = datasets.load(config["data"])
        self.steps_per_epoch = -(-len(self.splits.train[0]) // config["batch_size"])
        self.test = datasets.ordered(*self.splits.test, batch_size=1000, seed=0, shuffle=False)
        self.epochs = max(1, round(config["steps"] / self.steps_per_epoch))

    def model(self, seed: int) -> keras.Model:
        """A new model at the first rate of its config; its initial values are a function of ``seed``."""
        build = getattr(models, self.config["model"])
        shape, options = self.splits.train[0].shape[1:], self.config.get("model_options", {})
        model = build(shape, self.splits.classes, seed=seed, **options)
        optimizer = dict(self.config["optimizer"])
        model.compile(
            named(**optimizer),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile="auto" if self.config["jit_compile"] is None else self.config["jit_compile"],
            steps_per_execution=50,
        )
        return model
