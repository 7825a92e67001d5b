"""Distances between the weights of two networks (thesis 4.1.5, 4.3), and checks that they can be compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lth.masks import Masks, align
from keras_lth.tickets import Snapshot, Ticket

STATISTICS = ("moving_mean", "moving_variance")
Network = Snapshot | Ticket | Mapping[str, Any]


def l2(a: Network, b: Network, masks: Mapping[str, np.ndarray] | None = None) -> float:
    """Return the Euclidean distance of the floating weights of two networks, without normalisation statistics.

    Of tickets only the weights that remain count; of other networks those that ``masks`` keep, and all weights without
    a mask. See `both` for what is refused.
    """
    return math.sqrt(sum(float(np.sum(np.square(x - y))) for x, y in _pairs(a, b, masks)))


def cosine(a: Network, b: Network, masks: Mapping[str, np.ndarray] | None = None) -> float:
    """Return the cosine distance of the floating weights, 1 − a·b / (|a| |b|) in [0, 2], of the weights as in `l2`.

    Raises ``ValueError`` if all weights of one network are 0.
    """
    dot = aa = bb = 0.0
    for x, y in _pairs(a, b, masks):
        dot, aa, bb = dot + float(np.sum(x * y)), aa + float(np.sum(x * x)), bb + float(np.sum(y * y))
    if aa == 0 or bb == 0:
        raise ValueError("The cosine distance is not defined for a network whose weights are all 0.")
    return 1 - max(-1.0, min(1.0, dot / math.sqrt(aa * bb)))


@dataclass(frozen=True)
class Travelled:
    """How far weights move in a training with a fork (thesis 4.3, figures 4-32 and 4-33): Euclidean distances.

    Attributes:
        init_to_k, k_to_end, init_to_end: between the initial state, the state at step k and the ends, the latter two as
            means over the ends.
        between_ends: mean over all pairs of ends; NaN for a single end.
    """

    init_to_k: float
    k_to_end: float
    init_to_end: float
    between_ends: float

    @property
    def share(self) -> float:
        """Return the distance between the ends as a share of the distance from the initial state to the ends."""
        return self.between_ends / self.init_to_end if self.init_to_end else math.nan


def travelled(
    init: Network, at_k: Network, ends: Sequence[Network], masks: Mapping[str, np.ndarray] | None = None
) -> Travelled:
    """Measure how far weights moved from the initial state to step k, from there to each end, and between the ends.

    ``masks`` as for `l2`. Raises ``ValueError`` without an end.
    """
    if not ends:
        raise ValueError("travelled needs at least one end of a training, not an empty sequence.")
    pairs = list(itertools.combinations(ends, 2))
    return Travelled(
        l2(init, at_k, masks),
        float(np.mean([l2(at_k, end, masks) for end in ends])),
        float(np.mean([l2(init, end, masks) for end in ends])),
        float(np.mean([l2(a, b, masks) for a, b in pairs])) if pairs else math.nan,
    )


def is_statistic(path: str) -> bool:
    """Return whether a variable is a running moment of a normalisation, named moving_mean or moving_variance."""
    return path.rsplit("/", 1)[-1] in STATISTICS


def is_floating(dtype: Any) -> bool:
    """Return whether a dtype is floating, including those of ``ml_dtypes``."""
    return "float" in np.dtype(dtype).name


def weights_of(value: Network) -> dict[str, np.ndarray]:
    """Return the weights of a snapshot, of a ticket with 0 where it is pruned, or of a mapping from path to array."""
    if isinstance(value, Ticket):
        return _masked(dict(value.snapshot.weights), value.masks)
    if isinstance(value, Snapshot):
        return dict(value.weights)
    if isinstance(value, Mapping):
        return {path: np.asarray(array) for path, array in value.items()}
    raise TypeError(f"Pass a Snapshot, a Ticket or a mapping from path to array, not {type(value).__name__}.")


def both(
    a: Network, b: Network, masks: Mapping[str, np.ndarray] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the weights of two networks of one architecture under the paths of the first, 0 where they are pruned.

    Raises ``ValueError`` that lists differences in paths, shapes or dtypes; and for two tickets with different masks
    unless ``masks`` says which weights count.
    """
    if masks is None:
        _check_masks(a, b)
        first, second = weights_of(a), weights_of(b)
    else:
        first, second = (weights_of(each.snapshot if isinstance(each, Ticket) else each) for each in (a, b))
    shapes = {path: array.shape for path, array in first.items()}
    aligned = align(second, shapes, what="weights of the second network")
    missing = [path for path in first if path not in aligned]
    if missing:
        raise ValueError(f"The second network has no {', '.join(missing)}.")
    for path, array in first.items():
        if array.dtype != aligned[path].dtype:
            raise ValueError(f"{path} is {array.dtype} in the first network and {aligned[path].dtype} in the second.")
    return (first, aligned) if masks is None else (_masked(first, masks), _masked(aligned, masks))


def _masked(weights: dict[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    fitting = align(masks, {path: array.shape for path, array in weights.items()}, what="masks")
    return weights | {
        path: np.where(mask, weights[path], np.zeros((), weights[path].dtype)) for path, mask in fitting.items()
    }


def _check_masks(a: Network, b: Network) -> None:
    """Two tickets with different masks: the weights that count are either those of both or those of any."""
    if not (isinstance(a, Ticket) and isinstance(b, Ticket)):
        return
    mine = a.masks
    yours = Masks(align(b.masks, {path: mask.shape for path, mask in mine.items()}, what="masks of the second ticket"))
    if mine == yours:
        return
    none = {path: np.zeros(mask.shape, bool) for path, mask in mine.items()}
    theirs = none | dict(yours)
    layers = [path for path in mine if (mine[path] != theirs[path]).any()]
    only = [sum(int((x[path] & ~y[path]).sum()) for path in layers) for x, y in ((mine, theirs), (theirs, mine))]
    raise ValueError(
        f"The masks of the tickets differ in {', '.join(layers)}: {only[0]} weights remain only in the first, "
        f"{only[1]} only in the second. Pass masks=a.masks & b.masks for the weights that remain in both, or "
        "masks=a.masks | b.masks for those that remain in one of them."
    )


def _pairs(a: Any, b: Any, masks: Mapping[str, np.ndarray] | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    first, second = both(a, b, masks)
    for path, array in first.items():
        if is_floating(array.dtype) and not is_statistic(path):
            yield array.astype(np.float64), second[path].astype(np.float64)
