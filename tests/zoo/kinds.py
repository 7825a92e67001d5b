"""What a model of the zoo is: how it is made, what it trains on, and what it cannot do by its own nature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

EXAMPLES = 5
BATCH = 2  # the last batch of an epoch holds one example
STEPS = 3

_RANDOM = np.random.default_rng(7)


@dataclass(frozen=True)
class Kind:
    """A model and its data.

    Attributes:
        build: makes a model that has its weights and is not compiled.
        x, y: arguments of ``fit``.
        compile: keyword arguments of ``compile``, made for each model, since optimizers are not shared.
        refused: step → a pattern of the error that is right for it.
        saved: the models of it that Keras can write and read: itself, or its parts where it has no configuration.
    """

    build: Callable[[], keras.Model]
    x: Any
    y: Any = None
    compile: Callable[[], dict[str, Any]] = lambda: {"optimizer": keras.optimizers.Adam(0.01), "loss": "mse"}
    refused: Mapping[str, str] = field(default_factory=dict)
    saved: Callable[[Any], Sequence[keras.Model]] = lambda model: [model]

    def compiled(self, seed: int) -> keras.Model:
        """A new instance, compiled."""
        keras.utils.set_random_seed(seed)
        model = self.build()
        model.compile(**self.compile())
        return model


def classes(count: int, *shape: int) -> np.ndarray:
    """Labels or tokens for each example."""
    return _RANDOM.integers(1, count, (EXAMPLES, *shape)).astype("int32")


def values(*shape: int) -> np.ndarray:
    """Real numbers for each example."""
    return _RANDOM.normal(size=(EXAMPLES, *shape)).astype("float32")


def classifier(logits: bool = False, optimizer: str = "Adam", rate: float = 0.01) -> Callable[[], dict[str, Any]]:
    """How a classifier is compiled: labels are integers."""
    options = {"momentum": 0.9} if optimizer == "SGD" else {}
    return lambda: {
        "optimizer": getattr(keras.optimizers, optimizer)(rate, **options),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=logits),
        "metrics": ["accuracy"],
    }
