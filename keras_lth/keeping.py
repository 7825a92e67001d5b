"""Keep an exact number of the highest scores in groups of layers, with a minimum for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_lth import ops
from keras_lth.arguments import real, round_half_up
from keras_lth.masks import Masks, differences
from keras_lth.names import listed
from keras_lth.structures import Structured, comparable

__all__ = ["floors", "keep", "keep_n_of_m", "refuse_below_floor", "same_paths"]


def floors(remaining: Mapping[str, int], least: Any) -> dict[str, int]:
    """Return the number that `min_per_layer` keeps in each layer: at least 1, and at most the size of the layer.

    Raises:
        ValueError: neither an integer ≥ 1 nor a share in (0, 1).
    """
    number = real(least, "min_per_layer")
    if not (0 < number < 1 or (number >= 1 and number == int(number))):
        raise ValueError(f"min_per_layer must be a whole number of at least 1, or a share in (0, 1), not {least!r}")
    wanted = {path: int(number) if number >= 1 else max(1, round_half_up(number, n)) for path, n in remaining.items()}
    return {path: min(wanted[path], n) for path, n in remaining.items()}


def refuse_below_floor(count: int, floor: Mapping[str, int], least: Any) -> None:
    """Raise ``ValueError`` if `count` weights cannot give each layer its minimum."""
    if count < sum(floor.values()):
        raise ValueError(
            f"min_per_layer={least!r} needs {sum(floor.values()):,} weights in {len(floor)} layers, but only {count:,} "
            "would remain: raise the density, or lower min_per_layer"
        )


def keep(
    arrays: Mapping[str, np.ndarray],
    groups: Sequence[Sequence[str]],
    counts: Sequence[int],
    within: Masks | None,
    structured: Structured | None = None,
    least: Any = None,
) -> Masks:
    """Keep the `count` highest scores in each group of layers; layers in no group stay whole, or as in `within`.

    With `least`, the highest scores of each layer are kept first, as many as `floors` says, then those of the whole
    group.
    """
    structured = Structured() if structured is None else structured
    if least is None:
        return _highest(arrays, groups, counts, within, structured)
    start = Masks.ones(arrays) if within is None else within
    # Sizes, so that a share refers to the whole layer and does not shrink from round to round.
    sizes = {path: structured.count(np.ones(arrays[path].shape, np.bool_)) for group in groups for path in group}
    wanted = floors(sizes, least)
    floor = {path: min(wanted[path], structured.count(start[path])) for path in wanted}
    first = _highest(arrays, [[path] for path in floor], list(floor.values()), start, structured)
    for group, count in zip(groups, counts, strict=True):
        refuse_below_floor(count, {path: floor[path] for path in group}, least)
    rest = Masks({path: start[path] & ~first[path] if path in floor else start[path] for path in arrays})
    left = [count - sum(floor[path] for path in group) for group, count in zip(groups, counts, strict=True)]
    others = _highest(arrays, groups, left, rest, structured)
    return Masks({path: first[path] | others[path] if path in floor else first[path] for path in arrays})


def _highest(
    arrays: Mapping[str, np.ndarray],
    groups: Sequence[Sequence[str]],
    counts: Sequence[int],
    within: Masks | None,
    structured: Structured,
) -> Masks:
    kept = dict(Masks.ones(arrays) if within is None else {path: within[path] for path in arrays})
    for group, count in zip(groups, counts, strict=True):
        inside = None if within is None else [within[path] for path in group]
        available = sum(structured.count(kept[path]) for path in group)
        if not 0 <= count <= available:
            raise ValueError(f"cannot keep {count:,} of {available:,} eligible {structured.unit} in {listed(group)}")
        values = comparable({path: arrays[path] for path in group})
        try:
            chosen = ops.top_k_masks(values, count, masks=inside, **structured.groups, **structured.order)
        except ops.NotANumberError as error:  # the core knows positions, the user knows paths
            raise ValueError(f"the score of {group[error.array]!r} is NaN at flat index {error.index}") from error
        kept.update(zip(group, chosen, strict=True))
    return Masks(kept)


def keep_n_of_m(
    arrays: Mapping[str, np.ndarray],
    eligible: Sequence[str],
    n_of_m: tuple[int, int],
    order: Mapping[str, Any],
    within: Masks | None,
) -> Masks:
    """Keep n of every m consecutive inputs in each eligible layer; other layers stay whole, or as in `within`."""
    if within is not None:
        same_paths(within, arrays, "within")
    kept = dict(Masks.ones(arrays) if within is None else {path: within[path] for path in arrays})
    for path in eligible:
        (values,) = comparable({path: arrays[path]})
        mask = None if within is None else within[path]
        try:
            kept[path] = ops.n_of_m_masks(values, *n_of_m, -2, mask=mask, **order)
        except ops.NotANumberError as error:
            raise ValueError(f"the score of {path!r} is NaN at flat index {error.index}") from error
    return Masks(kept)


def same_paths(masks: Masks, arrays: Mapping[str, np.ndarray], what: str) -> None:
    """Raise ``ValueError`` if masks and scores have different weights."""
    lines = differences({p: m.shape for p, m in masks.items()}, {p: a.shape for p, a in arrays.items()})
    if lines:
        raise ValueError(f"{what} and scores have different weights: " + "; ".join(lines))
