"""Repair of initial values after pruning: approximate dynamical isometry of what remains, without data.

N. Lee et al., "A signal propagation perspective for pruning neural networks at initialization", ICLR 2020, section 5: a
pruned layer passes signals on faithfully if the singular values of its remaining weights are near 1. Needs neither
Keras nor TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lth.arguments import real, whole
from keras_lth.masks import Masks

__all__ = ["defect", "isometric"]

# Steps are tried up to this size; at an isometry the curvature is 8.
_STEP = 0.125


def isometric(
    weights: Mapping[str, Any], masks: Masks, *, iterations: int = 1000, tolerance: float = 1e-6
) -> dict[str, np.ndarray]:
    """Move the remaining weights of each masked kernel to the nearest isometry that descent finds; pruned ones are 0.

    It minimises ‖(C ⊙ W)ᵀ (C ⊙ W) − I‖² over W, kernel by kernel, C the mask and W the kernel as the matrix of a
    product, [all other axes, outputs]; W Wᵀ takes the place of Wᵀ W where there are more outputs than inputs. Use it
    after SNIP: ``isometric(lth.snapshot(model).weights, masks)``.

    Args:
        weights: path → array; those without a mask are returned as they are.
        masks: which weights remain.
        iterations: steps of descent for each kernel, at least 1; each lowers the objective.
        tolerance: stop where a step lowers the objective by less than this share.

    Returns:
        {path: array}, all of ``weights``, in their shapes and dtypes.

    Raises:
        ValueError: a mask without a weight or of another shape; a weight that is not finite.
    """
    steps, least = whole(iterations, "iterations", 1), real(tolerance, "tolerance")
    found = masks.apply({path: np.asarray(array) for path, array in weights.items()})
    for path, mask in masks.items():
        if not np.isfinite(found[path]).all():
            raise ValueError(f"the weights of {path!r} are not finite: repair initial values, before training diverges")
        if mask.ndim < 2:
            raise ValueError(
                f"{path!r} has shape {mask.shape}: an isometry needs inputs and outputs; leave its mask out"
            )
        found[path] = _descended(found[path], mask, steps, least)
    return found


def defect(weight: Any) -> float:
    """Return ‖Wᵀ W − I‖ (Frobenius) of a kernel, or of W Wᵀ if that is smaller; 0 is an isometry."""
    matrix = np.asarray(weight, np.float64)
    gram, _ = _gram(matrix.reshape(-1, matrix.shape[-1]))
    return float(np.linalg.norm(gram))


def _descended(weight: np.ndarray, mask: np.ndarray, steps: int, tolerance: float) -> np.ndarray:
    kept = mask.reshape(-1, mask.shape[-1])
    matrix = weight.astype(np.float64).reshape(kept.shape)
    gram, towards = _gram(matrix)
    value, step = float(np.sum(gram**2)), _STEP
    for _ in range(steps):
        gradient = np.where(kept, 4 * towards(gram), 0.0)
        while True:
            moved = matrix - step * gradient
            moved_gram, moved_towards = _gram(moved)
            moved_value = float(np.sum(moved_gram**2))
            if moved_value <= value or step < 1e-12:
                break
            step /= 2
        fell = value - moved_value
        if fell < 0:
            break
        matrix, gram, towards, value = moved, moved_gram, moved_towards, moved_value
        step = min(_STEP, 1.5 * step)
        if fell <= tolerance * value:
            break
    return matrix.reshape(weight.shape).astype(weight.dtype)


def _gram(matrix: np.ndarray) -> tuple[np.ndarray, Any]:
    """The Gram matrix of the smaller side minus I, and how its product with a matrix of that side goes."""
    rows, columns = matrix.shape
    if rows >= columns:
        return matrix.T @ matrix - np.eye(columns), lambda gram: matrix @ gram
    return matrix @ matrix.T - np.eye(rows), lambda gram: gram @ matrix
