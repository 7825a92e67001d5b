"""The loop over score and select: each iteration scores what the one before has kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_lth.arguments import real, round_half_up
from keras_lth.arguments import whole as whole_number
from keras_lth.criteria.call import Criterion, named, scored
from keras_lth.criteria.scorer import Repeatable, Scorer
from keras_lth.densities import Densities
from keras_lth.masks import Masks, without_weights
from keras_lth.names import listed
from keras_lth.selection import keep_counts
from keras_lth.structures import Structure, Structured
from keras_lth.surgery import check_built, check_model, masks_of, prunable, whole

__all__ = ["prune_iteratively"]

# Share of a final density that is left after a share t of the iterations, from a density of 1.
_SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "exponential": lambda final, t: final**t,
    "linear": lambda final, t: 1 - (1 - final) * t,
}


def prune_iteratively(
    model: keras.Model,
    criterion: Any,
    x: Any = None,
    y: Any = None,
    *,
    density: float | Densities,
    iterations: int = 100,
    schedule: str = "exponential",
    structure: Structure = None,
    min_per_layer: float | None = None,
) -> Masks:
    """Make masks in many small cuts, each by fresh scores of the pruned network (thesis, 5.5.1 and 5.8.1).

    Weights keep their values, and the model does not change: pass the masks to `keras_lth.mask`. It is SynFlow with
    ``criterion="synflow"``, iterative SNIP with ``"snip"``, FORCE with ``"force"``. A model that is masked already is
    pruned further.

    Args:
        model: a built model.
        criterion: the name of one of `keras_lth.criteria`, or a function of (model) or (model, x, y).
        x, y: examples, for a criterion that takes them.
        density: the share of all scored weights that remains at the end, in (0, 1]; or `keras_lth.densities`, one
            for each layer.
        iterations: the number of cuts, 100 in the papers; 1 is one-shot.
        schedule: "exponential": density^(n/iterations) remains after n iterations, so each removes the same share (the
            released code of SynFlow); "linear": 1 − (1 − density) n/iterations.
        structure, min_per_layer: as in `keras_lth.select`.

    Returns:
        Masks with exactly round-half-up(density × weights) weights, or units of the structure. A layer that is emptied
        is named in a warning.

    Raises:
        ValueError: an unknown schedule; a density outside (0, 1], above that of the model's masks, or that keeps
            nothing; what the criterion raises.
    """
    check_model(model)
    check_built(model)
    if schedule not in _SCHEDULES:
        raise ValueError(f"schedule must be one of {listed(map(repr, _SCHEDULES))}, not {schedule!r}")
    steps = whole_number(iterations, "iterations", 1)
    criterion, structured = named(criterion), Structured(structure)
    if structured.n_of_m:
        raise ValueError(f"structure {structure!r} fixes the density: use select, which prunes once")
    with whole(model, run=True):
        score, first = _started(criterion, model, x, y)
        sizes = {path: structured.count(np.ones(mask.shape, np.bool_)) for path, mask in first.items()}
        before, after = _ends(density, first, sizes, structured)
        masks = first
        for n in range(1, steps + 1):
            t = n / steps
            counts = {
                group: after[group]
                if n == steps
                else round_half_up(_SCHEDULES[schedule](after[group] / before[group], t), before[group])
                for group in after
            }
            within = first if getattr(criterion, "revives", False) else masks
            masks = keep_counts(score(masks), within, counts, min_per_layer, structure)
    emptied = [path for path in masks.empty if first[path].any()]
    if emptied:
        warnings.warn(
            f"{without_weights(emptied, len(masks))} Use min_per_layer=1 to keep a weight in each", stacklevel=2
        )
        masks.told = True
    return masks


def _ends(
    density: float | Densities, first: Masks, sizes: dict[str, int], structured: Structured
) -> tuple[dict[str, int], dict[str, int]]:
    """How many remain before the first and after the last iteration: in each layer, or in total under ""."""
    there = {path: structured.count(mask) for path, mask in first.items()}
    if isinstance(density, Densities):
        before, after = there, density.counts({path: mask.shape for path, mask in first.items()}, sizes)
    else:
        share = real(density, "density")
        if not 0 < share <= 1:
            raise ValueError(f"density must lie in (0, 1], not {density!r}")
        before, after = {"": sum(there.values())}, {"": round_half_up(share, sum(sizes.values()))}
    if not sum(after.values()):
        raise ValueError(f"density {density} keeps none of {sum(sizes.values()):,} {structured.unit}")
    for group, count in after.items():
        if count > before[group]:
            where = f" in {group!r}" if group else ""
            raise ValueError(
                f"density {density} keeps {count:,} {structured.unit}{where}, but the model's masks have "
                f"{before[group]:,}: use a lower density, or unmask the model"
            )
    return {group: max(count, 1) for group, count in before.items()}, after


def _started(criterion: Repeatable | Criterion, model: keras.Model, x: Any, y: Any) -> tuple[Scorer, Masks]:
    """The scores as a function of masks, and the masks to begin with."""
    if isinstance(criterion, Repeatable):
        return criterion.start(model, x, y)
    current = masks_of(model)
    found = scored(criterion, model, x, y)
    ones = Masks.ones(found)
    weights = prunable(model, list(found))

    def score(masks: Masks) -> dict[str, np.ndarray]:
        with _pruned(weights, masks):
            return scored(criterion, model, x, y)

    return score, Masks({path: current.get(path, ones[path]) for path in found}) if current else ones


@contextmanager
def _pruned(weights: Any, masks: Masks) -> Iterator[None]:
    """Inside, weights that masks prune are 0."""
    values = {path: np.array(weights[path].numpy()) for path in masks}
    try:
        for path, value in masks.apply(values).items():
            weights[path].assign(value)
        yield
    finally:
        for path, value in values.items():
            weights[path].assign(value)
