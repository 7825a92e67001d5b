"""Selection: scores become masks. The highest |score| remain, exactly as many as asked, ties to the lowest index.

What is kept or removed as one is a structure: single weights, blocks, neurons, or n of every m.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from keras_lth import ops
from keras_lth.masks import Masks, Shape, differences
from keras_lth.structures import Structure, Structured, comparable

Exclude = str | Iterable[str] | Callable[[str], bool]


def round_half_up(share: float, count: int) -> int:
    """share × count as printed in decimal, rounded, halves up: 0.145 of 100 is 15, though the float is just below."""
    return math.floor(Fraction(repr(float(share))) * count + Fraction(1, 2))


def select(
    scores: Mapping[str, np.ndarray],
    density: float | None = None,
    *,
    k: int | None = None,
    scope: str | Mapping[str, float] = "global",
    exclude: Exclude = (),
    within: Masks | None = None,
    structure: Structure = None,
    by: str = "magnitude",
    largest: bool = True,
    reduce: str = "mean",
) -> Masks:
    """Masks that keep the weights of highest |score|; give one of `density`, `k`, or densities in `scope`.

    Args:
        scores: path → array. Ties go to the lowest (path in this order, flat index).
        density: in (0, 1]: round-half-up(density × n) weights remain, n all weights that are not excluded.
        k: the number that remain among the weights that are not excluded; global scope only.
        scope: "global": one ranking over all layers; "layer": the density in each layer; or a mapping
            regex → density, a layer: the first regex found in the path (re.search) counts.
        exclude: regex, list of regex, or callable(path) → bool. Excluded layers stay whole, or as in `within`, and are
            not counted.
        within: only weights that these masks keep can remain; `density` is still of all weights.
        structure: None: each weight for itself; (rows, columns): blocks over inputs and outputs, for each tap of a
            convolution, smaller at the edges; "output" or "input": all weights of a neuron or channel (the last axis,
            or the one before it); "n:m", as "2:4": n of every m consecutive inputs, and then no density. Otherwise
            `density` and `k` are of blocks, neurons or channels.
        by: "magnitude" compares |score|, "value" the score.
        largest: False keeps the lowest.
        reduce: the score of a block, neuron or channel is the "mean" or the "sum" over its weights that can remain.

    Returns:
        Masks over the paths of `scores`. Layers may come out empty: see `Masks.empty`.

    Raises:
        ValueError: a NaN score (naming the path), no scores, a density outside (0, 1], one that keeps nothing, more
            weights than there are, a path that no regex of `scope` matches, `within` over other paths or shapes.
    """
    arrays = {path: np.asarray(array) for path, array in scores.items()}
    eligible = _eligible(arrays, exclude)
    structured = Structured(structure, by=by, largest=largest, reduce=reduce)
    structured.check(arrays, eligible)
    if structured.n_of_m:
        if density is not None or k is not None or scope != "global":
            raise ValueError(f"structure {structure!r} is a density: give no density, k or scope with it")
        return _keep_n_of_m(arrays, eligible, structured.n_of_m, structured.order, within)
    given = sum(value is not None for value in (density, k)) + isinstance(scope, Mapping)
    if given != 1:
        raise ValueError(f"give exactly one of density, k, or densities in scope (density={density}, k={k})")
    if k is not None and scope != "global":
        raise ValueError(f'k={k} counts over all layers: it needs scope="global", not {scope!r}')
    if within is not None:
        _same_paths(within, arrays, "within")
    groups = _groups(eligible, "layer" if isinstance(scope, Mapping) else scope)
    if k is not None:
        return _keep(arrays, groups, [k], within, structured)
    shares = _shares(groups, scope if isinstance(scope, Mapping) else density, "density")
    sizes = [sum(structured.count(np.ones(arrays[p].shape, np.bool_)) for p in group) for group in groups]
    counts = [round_half_up(share, size) for share, size in zip(shares, sizes, strict=True)]
    if sum(counts) == 0:
        raise ValueError(f"density {_text(shares)} keeps none of {sum(sizes):,} {structured.unit}")
    return _keep(arrays, groups, counts, within, structured)


def prune(
    scores: Mapping[str, np.ndarray],
    masks: Masks,
    fraction: float | Mapping[str, float],
    scope: str = "global",
    exclude: Exclude = (),
    *,
    structure: Structure = None,
    by: str = "magnitude",
    largest: bool = True,
    reduce: str = "mean",
) -> Masks:
    """One cut: of the weights that remain, remove the round-half-up(fraction × remaining) of lowest |score|.

    Args:
        scores: path → array, the paths of `masks`.
        masks: what remains now.
        fraction: in [0, 1], 0.2 in Frankle's thesis; with scope="layer" also a mapping regex → fraction, the first
            regex found in the path (re.search) counts.
        scope: "global": one ranking over all layers; "layer": the fraction in each layer.
        exclude: regex, list of regex, or callable(path) → bool: layers that stay as they are and are not counted.
        structure, by, largest, reduce: as in `select`; a structure n:m cannot be cut. A block, neuron or channel
            remains as long as one of its weights does.

    Raises:
        ValueError: no weight would be left, other paths, a fraction outside [0, 1], a path that no regex matches, NaN.
    """
    arrays = {path: np.asarray(array) for path, array in scores.items()}
    _same_paths(masks, arrays, "masks")
    if isinstance(fraction, Mapping) and scope != "layer":
        raise ValueError(f'a fraction for each layer needs scope="layer", not {scope!r}')
    eligible = _eligible(arrays, exclude)
    groups = _groups(eligible, scope)
    structured = Structured(structure, by=by, largest=largest, reduce=reduce)
    structured.check(arrays, eligible)
    if structured.n_of_m:
        raise ValueError(f"structure {structure!r} has one density: it is selected, not cut by a fraction")
    shares = _shares(groups, fraction, "fraction")
    remaining = [sum(structured.count(masks[path]) for path in group) for group in groups]
    counts = [n - round_half_up(share, n) for share, n in zip(shares, remaining, strict=True)]
    if sum(counts) == 0:
        raise ValueError(
            f"fraction {_text(shares)} of the {sum(remaining):,} {structured.unit} that remain would leave none"
        )
    return _keep(arrays, groups, counts, masks, structured)


def random_like(masks: Masks, seed: int, scope: str = "layer") -> Masks:
    """Random masks with exactly as many weights as `masks`, in each layer or (scope="global") in total.

    The thesis' random pruning "in the proportions of a given mask" (3.1.4). The same on every host for a seed.
    """
    scores = {path: uniform(seed, path, mask.shape) for path, mask in masks.items()}
    groups = _groups(list(masks), scope)
    counts = [sum(int(np.count_nonzero(masks[path])) for path in group) for group in groups]
    return _keep(scores, groups, counts, None)


def uniform(seed: int, path: str, shape: Shape) -> np.ndarray:
    """Samples of U(0, 1), float64, a function of (seed, path, flat index) alone.

    The raw words of Philox keyed with SHA-256 of seed and path: NumPy promises these, and not its samplers, for ever.
    """
    key = hashlib.sha256(f"{int(seed)}/{path}".encode()).digest()[:16]
    words = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(math.prod(shape))
    return ((words >> np.uint64(11)) * 2.0**-53).reshape(shape)


def _keep(
    arrays: Mapping[str, np.ndarray],
    groups: Sequence[Sequence[str]],
    counts: Sequence[int],
    within: Masks | None,
    structured: Structured | None = None,
) -> Masks:
    """In each group of layers the `count` highest scores; layers of no group whole, or as in `within`."""
    structured = Structured() if structured is None else structured
    kept = dict(Masks.ones(arrays) if within is None else {path: within[path] for path in arrays})
    for group, count in zip(groups, counts, strict=True):
        inside = None if within is None else [within[path] for path in group]
        available = sum(structured.count(kept[path]) for path in group)
        if not 0 <= count <= available:
            raise ValueError(f"cannot keep {count:,} of {available:,} eligible {structured.unit} in {_text(group)}")
        values = comparable({path: arrays[path] for path in group})
        try:
            chosen = ops.top_k_masks(values, count, masks=inside, **structured.groups, **structured.order)
        except ops.NotANumberError as error:  # the core knows positions, the user knows paths
            raise ValueError(f"the score of {group[error.array]!r} is NaN at flat index {error.index}") from error
        kept.update(zip(group, chosen, strict=True))
    return Masks(kept)


def _keep_n_of_m(
    arrays: Mapping[str, np.ndarray],
    eligible: Sequence[str],
    n_of_m: tuple[int, int],
    order: Mapping[str, Any],
    within: Masks | None,
) -> Masks:
    """n of every m consecutive inputs in each eligible layer; other layers whole, or as in `within`."""
    if within is not None:
        _same_paths(within, arrays, "within")
    kept = dict(Masks.ones(arrays) if within is None else {path: within[path] for path in arrays})
    for path in eligible:
        (values,) = comparable({path: arrays[path]})
        mask = None if within is None else within[path]
        try:
            kept[path] = ops.n_of_m_masks(values, *n_of_m, -2, mask=mask, **order)
        except ops.NotANumberError as error:
            raise ValueError(f"the score of {path!r} is NaN at flat index {error.index}") from error
    return Masks(kept)


def _eligible(arrays: Mapping[str, np.ndarray], exclude: Exclude) -> list[str]:
    if not arrays:
        raise ValueError("there are no scores to select from")
    if callable(exclude):
        eligible = [path for path in arrays if not exclude(path)]
    else:
        patterns = [exclude] if isinstance(exclude, str) else list(exclude)
        eligible = [path for path in arrays if not any(re.search(pattern, path) for pattern in patterns)]
    if not eligible:
        raise ValueError(f"exclude leaves none of the layers {_text(arrays)}")
    return eligible


def _groups(paths: Sequence[str], scope: object) -> list[list[str]]:
    if scope == "global":
        return [list(paths)]
    if scope == "layer":
        return [[path] for path in paths]
    raise ValueError(f'scope must be "global" or "layer", not {scope!r}')


def _shares(groups: Sequence[Sequence[str]], given: object, what: str) -> list[float]:
    """The density or fraction of each group; with a mapping, each group is one layer."""
    if isinstance(given, Mapping):
        return [_share(_first_match(given, path, what), what) for (path,) in groups]
    return [_share(given, what)] * len(groups)


def _first_match(given: Mapping[str, Any], path: str, what: str) -> Any:
    for pattern, value in given.items():
        if re.search(pattern, path):
            return value
    raise ValueError(f"no {what} for {path!r}: none of {_text(given)} matches; add one, such as '.*', or exclude it")


def _share(value: Any, what: str) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a number, not {value!r}") from None
    if not 0 <= share <= 1 or (share == 0 and what == "density"):
        raise ValueError(f"{what} must lie in {'(0, 1]' if what == 'density' else '[0, 1]'}, not {value!r}")
    return share


def _same_paths(masks: Masks, arrays: Mapping[str, np.ndarray], what: str) -> None:
    lines = differences({p: m.shape for p, m in masks.items()}, {p: a.shape for p, a in arrays.items()})
    if lines:
        raise ValueError(f"{what} and scores have different weights: " + "; ".join(lines))


def _text(values: Iterable[Any]) -> str:
    unique = list(dict.fromkeys(map(str, values)))
    return ", ".join(unique[:8]) + (f", … ({len(unique)})" if len(unique) > 8 else "")
