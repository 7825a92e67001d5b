"""Selection turns scores into masks: exactly k weights of highest |score| remain, ties to the lowest index.

A structure is a unit that is kept or removed as a whole: a single weight, a block, a neuron, or n of every m.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_lth.arguments import real, round_half_up, whole
from keras_lth.densities import Densities
from keras_lth.keeping import keep, keep_n_of_m, same_paths
from keras_lth.masks import Masks, Shape, without_weights
from keras_lth.names import assigned, chosen, listed
from keras_lth.structures import Structure, Structured

Exclude = str | Iterable[str] | Callable[[str], bool]


def select(
    scores: Mapping[str, np.ndarray],
    density: float | Mapping[str, float] | Densities | None = None,
    *,
    threshold: float | None = None,
    k: int | None = None,
    scope: str | Mapping[str, float] = "global",
    exclude: Exclude = (),
    within: Masks | None = None,
    structure: Structure = None,
    by: str = "magnitude",
    largest: bool = True,
    reduce: str = "mean",
    min_per_layer: float | None = None,
) -> Masks:
    """Make masks that keep the weights of highest |score|: one of `density`, `k`, `threshold`, or densities in `scope`.

    Args:
        scores: path → array. Ties go to the lowest (path in this order, flat index).
        density: in (0, 1]: round-half-up(density × n) weights remain, where n counts all weights that are not excluded;
            with scope="layer" also a mapping pattern → density. Or a rule for all layers, of `keras_lth.densities`.
        threshold: keep each weight with a score, as `by` says, of at least this; with largest=False, of at most it.
        k: the number that remain among the weights that are not excluded; global scope only.
        scope: "global": one ranking over all layers; "layer": the density in each layer; or a mapping
            pattern → density for each layer: the first match wins. A pattern is a name, as `model.summary()`
            or the path shows it ("dense_1" is not "dense_10"), or a regular expression (re.search).
        exclude: pattern, list of patterns, or callable(path) → bool. Excluded layers stay whole, or as in `within`, and
            do not count.
        within: only weights that these masks keep can remain; `density` is still of all weights.
        structure: None: single weights; (rows, columns): blocks over inputs and outputs, for each tap of a convolution,
            smaller at the edges; "output" or "input": all weights of a neuron or channel (the last axis, or the one
            before it); "n:m", such as "2:4": n of every m consecutive inputs, without a density. Otherwise `density`
            and `k` count blocks, neurons or channels.
        by: "magnitude" compares |score|, "value" the score.
        largest: False keeps the lowest.
        reduce: the score of a block, neuron or channel is the "mean" or the "sum" over its weights that can remain.
        min_per_layer: the least number (≥ 1) or share (< 1) that remains in each layer, and all of a smaller layer.
            The total stays the same: the other layers lose their lowest.

    Returns:
        Masks over the paths of `scores`. Layers may be emptied, with a warning: see `Masks.empty`.

    Raises:
        ValueError: a NaN score (naming the path), no scores, a density outside (0, 1], one that keeps nothing, more
            weights than there are, fewer than `min_per_layer` needs, a pattern that matches nothing, a path that no
            pattern of `scope` matches, `within` over other paths or shapes.
    """
    arrays = {path: np.asarray(array) for path, array in scores.items()}
    eligible = _eligible(arrays, exclude)
    structured = Structured(structure, by=by, largest=largest, reduce=reduce)
    structured.check(arrays, eligible)
    if structured.n_of_m:
        if density is not None or k is not None or scope != "global":
            raise ValueError(f"structure {structure!r} fixes the density: omit density, k and scope")
        return keep_n_of_m(arrays, eligible, structured.n_of_m, structured.order, within)
    given = sum(value is not None for value in (density, k, threshold)) + isinstance(scope, Mapping)
    if given != 1:
        raise ValueError(
            f"give exactly one of density, k, threshold, or densities in scope (density={density}, k={k}, "
            f"threshold={threshold})"
        )
    if threshold is not None:
        if structure is not None or scope != "global":
            raise ValueError('threshold compares single weights: omit structure, and use scope="global"')
        k = _beyond(arrays, eligible, real(threshold, "threshold"), within, by=by, largest=largest)
    if isinstance(density, Mapping) and scope != "layer":
        raise ValueError(
            f'a density for each layer needs scope="layer", not {scope!r}; one threshold takes one density'
        )
    if k is not None and scope != "global":
        raise ValueError(f'k={k} counts over all layers: use scope="global", not {scope!r}')
    if within is not None:
        same_paths(within, arrays, "within")
    rule = isinstance(density, Densities)
    groups = _groups(eligible, "layer" if isinstance(scope, Mapping) or rule else scope)
    if k is not None:
        return _told(keep(arrays, groups, [whole(k, "k")], within, structured, min_per_layer), within)
    sizes = [sum(structured.count(np.ones(arrays[p].shape, np.bool_)) for p in group) for group in groups]
    if isinstance(density, Densities):
        by_layer = density.counts({p: arrays[p].shape for p in eligible}, dict(zip(eligible, sizes, strict=True)))
        counts, asked = list(by_layer.values()), str(density)
    else:
        shares = _shares(groups, scope if isinstance(scope, Mapping) else density, "density", arrays)
        counts = [round_half_up(share, size) for share, size in zip(shares, sizes, strict=True)]
        asked = listed(shares)
    if sum(counts) == 0:
        raise ValueError(f"density {asked} keeps none of {sum(sizes):,} {structured.unit}")
    return _told(keep(arrays, groups, counts, within, structured, min_per_layer), within)


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
    min_per_layer: float | None = None,
) -> Masks:
    """Make one cut: among the remaining weights, remove the round-half-up(fraction × remaining) of lowest |score|.

    Args:
        scores: path → array, the paths of `masks`.
        masks: the masks before the cut.
        fraction: in [0, 1], 0.2 in Frankle's thesis; with scope="layer" also a mapping pattern → fraction, the first
            match wins (patterns as in `select`).
        scope: "global": one ranking over all layers; "layer": the fraction in each layer.
        exclude: pattern, list of patterns, or callable(path) → bool: layers that stay unchanged and do not count.
        structure, by, largest, reduce, min_per_layer: as in `select`; a structure n:m is refused. A block, neuron or
            channel remains as long as one of its weights does.

    Raises:
        ValueError: no weight would be left, or fewer than `min_per_layer` needs; other paths; a fraction outside
            [0, 1]; a pattern that matches nothing, a path that no pattern matches; NaN.
    """
    arrays = {path: np.asarray(array) for path, array in scores.items()}
    same_paths(masks, arrays, "masks")
    if isinstance(fraction, Mapping) and scope != "layer":
        raise ValueError(f'a fraction for each layer needs scope="layer", not {scope!r}')
    eligible = _eligible(arrays, exclude)
    groups = _groups(eligible, scope)
    structured = Structured(structure, by=by, largest=largest, reduce=reduce)
    structured.check(arrays, eligible)
    if structured.n_of_m:
        raise ValueError(f"structure {structure!r} fixes the density: use select, which takes no fraction")
    shares = _shares(groups, fraction, "fraction", arrays)
    remaining = [sum(structured.count(masks[path]) for path in group) for group in groups]
    counts = [n - round_half_up(share, n) for share, n in zip(shares, remaining, strict=True)]
    if sum(counts) == 0:
        raise ValueError(
            f"fraction {listed(shares)} of the {sum(remaining):,} remaining {structured.unit} would leave none"
        )
    return _told(keep(arrays, groups, counts, masks, structured, min_per_layer), masks)


def keep_counts(
    scores: Mapping[str, np.ndarray],
    within: Masks,
    counts: Mapping[str, int],
    min_per_layer: float | None = None,
    structure: Structure = None,
) -> Masks:
    """Return masks within `within` that keep `counts` weights: per path, or in total under the key ""."""
    arrays = {path: np.asarray(scores[path]) for path in within}
    same_paths(within, arrays, "masks")
    groups = [list(within)] if "" in counts else [[path] for path in within]
    numbers = [counts[""]] if "" in counts else [counts[path] for path in within]
    structured = Structured(structure)
    structured.check(arrays, list(within))
    return keep(arrays, groups, numbers, within, structured, min_per_layer)


def random_like(masks: Masks, seed: int, scope: str = "layer") -> Masks:
    """Make random masks with exactly as many weights as `masks`, in each layer or (scope="global") in total.

    The thesis' random pruning "in the proportions of a given mask" (3.1.4). A seed gives the same masks on every host.
    """
    scores = {path: uniform(seed, path, mask.shape) for path, mask in masks.items()}
    groups = _groups(list(masks), scope)
    counts = [sum(int(np.count_nonzero(masks[path])) for path in group) for group in groups]
    return keep(scores, groups, counts, None)


def uniform(seed: int, path: str, shape: Shape) -> np.ndarray:
    """Draw samples of U(0, 1), float64, as a function of (seed, path, flat index) alone.

    They use the raw words of Philox, keyed with the SHA-256 of seed and path. NumPy guarantees that these words never
    change; it does not guarantee this of its samplers.
    """
    key = hashlib.sha256(f"{whole(seed, 'seed')}/{path}".encode()).digest()[:16]
    words = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(math.prod(shape))
    return ((words >> np.uint64(11)) * 2.0**-53).reshape(shape)


def _beyond(
    arrays: Mapping[str, np.ndarray],
    paths: Sequence[str],
    threshold: float,
    within: Masks | None,
    *,
    by: str,
    largest: bool,
) -> int:
    """Count the weights on the side of a threshold that is kept."""
    count = 0
    for path in paths:
        score = np.abs(arrays[path]) if by == "magnitude" else arrays[path]
        kept = score >= threshold if largest else score <= threshold
        count += int(np.count_nonzero(kept if within is None else kept & within[path]))
    return count


def _told(masks: Masks, within: Masks | None) -> Masks:
    """Warn about the layers that this selection has emptied."""
    emptied = [path for path in masks.empty if masks[path].size and (within is None or within[path].any())]
    if emptied:
        warnings.warn(
            f"{without_weights(emptied, len(masks))} Use min_per_layer=1 to keep a weight in each", stacklevel=3
        )
        masks.told = True
    return masks


def _eligible(arrays: Mapping[str, np.ndarray], exclude: Exclude) -> list[str]:
    if not arrays:
        raise ValueError("there are no scores to select from")
    excluded = chosen(exclude, arrays, "exclude", call=lambda function, path: bool(function(path)))
    eligible = [path for path in arrays if path not in excluded]
    if not eligible:
        raise ValueError(f"exclude matches all layers: {listed(arrays)}")
    return eligible


def _groups(paths: Sequence[str], scope: object) -> list[list[str]]:
    if scope == "global":
        return [list(paths)]
    if scope == "layer":
        return [[path] for path in paths]
    raise ValueError(f'scope must be "global" or "layer", not {scope!r}')


def _shares(groups: Sequence[Sequence[str]], given: object, what: str, among: Iterable[str]) -> list[float]:
    """The density or fraction of each group; with a mapping, each group is one layer."""
    if isinstance(given, Mapping):
        return [_share(share, what) for share in assigned(given, [p for (p,) in groups], what, among).values()]
    return [_share(given, what)] * len(groups)


def _share(value: Any, what: str) -> float:
    share = real(value, what)
    if not 0 <= share <= 1 or (share == 0 and what == "density"):
        raise ValueError(f"{what} must lie in {'(0, 1]' if what == 'density' else '[0, 1]'}, not {value!r}")
    return share
