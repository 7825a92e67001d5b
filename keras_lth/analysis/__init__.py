"""Numbers from snapshots and masks.

The error along a line between two networks, curves, permutations, averages; distances, instability to SGD noise; the
structure that masks leave: collapsed neurons, paths, effective density; costs: parameters, bytes, FLOPs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_lth.analysis.averages import Soup, average, soup
    from keras_lth.analysis.collapse import (
        collapse_curve,
        imbalance,
        layer_sums,
        layerwise,
        neuron_collapse,
        neuron_sparsity,
    )
    from keras_lth.analysis.comparison import Comparison, compare, figure, summary
    from keras_lth.analysis.connectivity import Path, error_barrier, instability, interpolate, is_stable, linear_path
    from keras_lth.analysis.costs import Cost, TrainingCost, cost, training_cost
    from keras_lth.analysis.curves import Plane, bezier, curve_path, fit_curve, plane
    from keras_lth.analysis.distances import Travelled, cosine, l2, travelled
    from keras_lth.analysis.evaluation import Evaluator
    from keras_lth.analysis.paths import Effective, effective, path_norm
    from keras_lth.analysis.permutations import Symmetries, symmetries
    from keras_lth.analysis.predictions import Predictions, differences

# Public name → module; loaded on first use, so that NumPy-only code loads neither TensorFlow nor Matplotlib.
_NAMES = {
    "Comparison": "keras_lth.analysis.comparison",
    "Cost": "keras_lth.analysis.costs",
    "Effective": "keras_lth.analysis.paths",
    "Evaluator": "keras_lth.analysis.evaluation",
    "Path": "keras_lth.analysis.connectivity",
    "Plane": "keras_lth.analysis.curves",
    "Predictions": "keras_lth.analysis.predictions",
    "Soup": "keras_lth.analysis.averages",
    "Symmetries": "keras_lth.analysis.permutations",
    "TrainingCost": "keras_lth.analysis.costs",
    "Travelled": "keras_lth.analysis.distances",
    "average": "keras_lth.analysis.averages",
    "bezier": "keras_lth.analysis.curves",
    "collapse_curve": "keras_lth.analysis.collapse",
    "compare": "keras_lth.analysis.comparison",
    "cosine": "keras_lth.analysis.distances",
    "cost": "keras_lth.analysis.costs",
    "curve_path": "keras_lth.analysis.curves",
    "differences": "keras_lth.analysis.predictions",
    "effective": "keras_lth.analysis.paths",
    "error_barrier": "keras_lth.analysis.connectivity",
    "figure": "keras_lth.analysis.comparison",
    "fit_curve": "keras_lth.analysis.curves",
    "imbalance": "keras_lth.analysis.collapse",
    "instability": "keras_lth.analysis.connectivity",
    "interpolate": "keras_lth.analysis.connectivity",
    "is_stable": "keras_lth.analysis.connectivity",
    "l2": "keras_lth.analysis.distances",
    "layer_sums": "keras_lth.analysis.collapse",
    "layerwise": "keras_lth.analysis.collapse",
    "linear_path": "keras_lth.analysis.connectivity",
    "neuron_collapse": "keras_lth.analysis.collapse",
    "neuron_sparsity": "keras_lth.analysis.collapse",
    "path_norm": "keras_lth.analysis.paths",
    "plane": "keras_lth.analysis.curves",
    "soup": "keras_lth.analysis.averages",
    "summary": "keras_lth.analysis.comparison",
    "symmetries": "keras_lth.analysis.permutations",
    "training_cost": "keras_lth.analysis.costs",
    "travelled": "keras_lth.analysis.distances",
}

__all__ = [
    "Comparison",
    "Cost",
    "Effective",
    "Evaluator",
    "Path",
    "Plane",
    "Predictions",
    "Soup",
    "Symmetries",
    "TrainingCost",
    "Travelled",
    "average",
    "bezier",
    "collapse_curve",
    "compare",
    "cosine",
    "cost",
    "curve_path",
    "differences",
    "effective",
    "error_barrier",
    "figure",
    "fit_curve",
    "imbalance",
    "instability",
    "interpolate",
    "is_stable",
    "l2",
    "layer_sums",
    "layerwise",
    "linear_path",
    "neuron_collapse",
    "neuron_sparsity",
    "path_norm",
    "plane",
    "soup",
    "summary",
    "symmetries",
    "training_cost",
    "travelled",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)
