"""The engine of experiments: steps with names, trainings as trajectories, and a run that computes what is missing.

A plan is a function that names steps. It does not deal with files, processes or resuming. This package needs neither
Keras nor TensorFlow.
"""

from __future__ import annotations

from keras_lth.plans.estimate import Estimate, estimate, rows
from keras_lth.plans.notebook import Notebook, Row, Waiting, tidy
from keras_lth.plans.run import StepsFailedError, run
from keras_lth.plans.step import Beside, Kind, Step, step, versioned
from keras_lth.plans.trajectory import Trajectory, trajectory

__all__ = [
    "Beside",
    "Estimate",
    "Kind",
    "Notebook",
    "Row",
    "Step",
    "StepsFailedError",
    "Trajectory",
    "Waiting",
    "estimate",
    "rows",
    "run",
    "step",
    "tidy",
    "trajectory",
    "versioned",
]
