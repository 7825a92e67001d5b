"""A training loop for what Keras' ``fit`` cannot do: exact stops, many steps per call, exact resuming."""

from __future__ import annotations

from keras_lth.training.evaluation import evaluate
from keras_lth.training.loop import Loop, fit, train
from keras_lth.training.optimizers import Momentum, Pieces

__all__ = ["Loop", "Momentum", "Pieces", "evaluate", "fit", "train"]
