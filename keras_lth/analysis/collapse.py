"""What masks leave of neurons and layers: neuron collapse, layerwise densities, sums of scores. NumPy alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_lth.arguments import real
from keras_lth.masks import Masks, Row

__all__ = ["collapse_curve", "imbalance", "layer_sums", "layerwise", "neuron_collapse", "neuron_sparsity"]


def neuron_sparsity(masks: Masks) -> dict[str, np.ndarray]:
    """Return the share of incoming weights that each neuron, or channel of a convolution, has lost.

    A neuron is an entry of the last axis of a kernel.

    Returns:
        {path: array of shape (outputs,)}, values in [0, 1].

    Raises:
        ValueError: a mask without inputs and outputs.
    """
    for path, mask in masks.items():
        if mask.ndim < 2:
            raise ValueError(f"{path!r} has shape {mask.shape}: neurons need a kernel with inputs and outputs")
    return {path: 1 - mask.reshape(-1, mask.shape[-1]).mean(0) for path, mask in masks.items() if mask.size}


def neuron_collapse(masks: Masks, sparsity: float = 1.0) -> float:
    """Return the share of all neurons and channels with a sparsity of at least ``sparsity`` (thesis, 5.7.1, fig. 5-6).

    With 1, the default, those that have lost all of their incoming weights.
    """
    (share,) = collapse_curve(masks, [sparsity])
    return share


def collapse_curve(masks: Masks, sparsities: Iterable[float]) -> list[float]:
    """Return the share of all neurons and channels with a sparsity ≥ s, for each s in [0, 1]."""
    found = list(neuron_sparsity(masks).values())
    values = np.concatenate(found) if found else np.zeros(0)
    shares = []
    for given in sparsities:
        least = real(given, "sparsity")
        if not 0 <= least <= 1:
            raise ValueError(f"a sparsity must lie in [0, 1], not {given!r}")
        # 1 - 9/10 is a little less than 0.1.
        shares.append(float(np.mean(values >= least - 1e-12)) if values.size else 0.0)
    return shares


def layerwise(masks: Masks, shortcuts: str = "shortcut|downsample|projection") -> list[Row]:
    """Return one row for each layer, from input to output, shortcuts after their block (thesis, 5.9, fig. 5-11).

    Args:
        masks: in the order of the model.
        shortcuts: a regular expression; what stands before its match in a path is the name of the block.
    """
    rows = masks.table()
    found = {row.path: match for row in rows if (match := re.search(shortcuts, row.path))}
    plain = [row for row in rows if row.path not in found]
    ordered = list(plain)
    for row in rows:
        if row.path in found:
            block = row.path[: found[row.path].start()]
            last = max((place for place, one in enumerate(ordered) if one.path.startswith(block)), default=-1)
            ordered.insert(last + 1, row)
    return ordered


def layer_sums(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return the sum of the scores of each layer, in float64."""
    return {path: float(np.sum(array, dtype=np.float64)) for path, array in scores.items()}


def imbalance(scores: Mapping[str, Any]) -> float:
    """Return how far scores are from conserved: (greatest − least layer sum) / greatest; 0 if all sums are equal.

    SynFlow's scores are conserved in chains without biases and normalisation (H. Tanaka et al., 2020, theorem 2).
    """
    sums = list(layer_sums(scores).values())
    if not sums:
        raise ValueError("there are no scores")
    most = max(sums)
    return (most - min(sums)) / most if most else 0.0
