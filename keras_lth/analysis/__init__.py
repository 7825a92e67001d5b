"""Numbers from snapshots: the error along a line between two networks, distances, instability to SGD noise."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_lth.analysis.averages import Soup, average, soup
    from keras_lth.analysis.comparison import Comparison, compare, figure, summary
    from keras_lth.analysis.connectivity import Path, error_barrier, instability, interpolate, is_stable, linear_path
    from keras_lth.analysis.curves import Plane, bezier, curve_path, fit_curve, plane
    from keras_lth.analysis.distances import Travelled, cosine, l2, travelled
    from keras_lth.analysis.evaluation import Evaluator
    from keras_lth.analysis.permutations import Symmetries, symmetries
    from keras_lth.analysis.predictions import Predictions, differences

# Public name → module; loaded on first use, so that NumPy-only code loads neither TensorFlow nor Matplotlib.
_NAMES = {
    "Comparison": "keras_lth.analysis.comparison",
    "Evaluator": "keras_lth.analysis.evaluation",
    "Path": "keras_lth.analysis.connectivity",
    "Plane": "keras_lth.analysis.curves",
    "Predictions": "keras_lth.analysis.predictions",
    "Soup": "keras_lth.analysis.averages",
    "Symmetries": "keras_lth.analysis.permutations",
    "Travelled": "keras_lth.analysis.distances",
    "average": "keras_lth.analysis.averages",
    "bezier": "keras_lth.analysis.curves",
    "compare": "keras_lth.analysis.comparison",
    "cosine": "keras_lth.analysis.distances",
    "curve_path": "keras_lth.analysis.curves",
    "differences": "keras_lth.analysis.predictions",
    "error_barrier": "keras_lth.analysis.connectivity",
    "figure": "keras_lth.analysis.comparison",
    "fit_curve": "keras_lth.analysis.curves",
    "instability": "keras_lth.analysis.connectivity",
    "interpolate": "keras_lth.analysis.connectivity",
    "is_stable": "keras_lth.analysis.connectivity",
    "l2": "keras_lth.analysis.distances",
    "linear_path": "keras_lth.analysis.connectivity",
    "plane": "keras_lth.analysis.curves",
    "soup": "keras_lth.analysis.averages",
    "summary": "keras_lth.analysis.comparison",
    "symmetries": "keras_lth.analysis.permutations",
    "travelled": "keras_lth.analysis.distances",
}

__all__ = [
    "Comparison",
    "Evaluator",
    "Path",
    "Plane",
    "Predictions",
    "Soup",
    "Symmetries",
    "Travelled",
    "average",
    "bezier",
    "compare",
    "cosine",
    "curve_path",
    "differences",
    "error_barrier",
    "figure",
    "fit_curve",
    "instability",
    "interpolate",
    "is_stable",
    "l2",
    "linear_path",
    "plane",
    "soup",
    "summary",
    "symmetries",
    "travelled",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)
