"""Numbers from snapshots: the error along a line between two networks, distances, instability to SGD noise."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_lth.analysis.connectivity import Path, error_barrier, interpolate, linear_path
    from keras_lth.analysis.distances import cosine, l2
    from keras_lth.analysis.evaluation import Evaluator
    from keras_lth.analysis.instability import Comparison, compare, figure, summary

# Public name → module; loaded on first use, so that NumPy-only code loads neither TensorFlow nor Matplotlib.
_NAMES = {
    "Comparison": "keras_lth.analysis.instability",
    "Evaluator": "keras_lth.analysis.evaluation",
    "Path": "keras_lth.analysis.connectivity",
    "compare": "keras_lth.analysis.instability",
    "cosine": "keras_lth.analysis.distances",
    "error_barrier": "keras_lth.analysis.connectivity",
    "figure": "keras_lth.analysis.instability",
    "interpolate": "keras_lth.analysis.connectivity",
    "l2": "keras_lth.analysis.distances",
    "linear_path": "keras_lth.analysis.connectivity",
    "summary": "keras_lth.analysis.instability",
}

__all__ = [
    "Comparison",
    "Evaluator",
    "Path",
    "compare",
    "cosine",
    "error_barrier",
    "figure",
    "interpolate",
    "l2",
    "linear_path",
    "summary",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)
