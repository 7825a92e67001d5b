"""Networks averaged in weight space: the middle of a stable path, SWA, and soups (thesis 6.2.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_lth.analysis.connectivity import Arrays, Weights
from keras_lth.analysis.distances import Network, both, is_floating


class Soup(NamedTuple):
    """An average of some networks: its weights, its error, and the numbers of the networks that it contains."""

    weights: Arrays
    error: float
    members: tuple[int, ...]


def average(networks: Sequence[Network], *, masks: Mapping[str, Any] | None = None) -> Arrays:
    """Return the mean of the weights of networks of one architecture, statistics too, in the original dtypes.

    Two ends of a stable path give its middle; states of the late steps of a training give stochastic weight averaging
    (P. Izmailov et al., UAI 2018), whose batch-norm statistics are then re-estimated
    (``Evaluator(…, train_data=…)``). The mean is taken in double precision, so equal networks give their own weights,
    and what is pruned in all stays 0. Variables that are not floating are those of the first. ``masks`` as for
    `distances.both`.

    Raises ``ValueError`` for no networks, or networks that cannot be compared.
    """
    if not networks:
        raise ValueError("average needs at least one network, not an empty sequence.")
    first, rest = networks[0], networks[1:]
    mine = both(first, first, masks)[0]
    others = [both(first, each, masks)[1] for each in rest]
    return {path: _mean([array, *(other[path] for other in others)]) for path, array in mine.items()}


def soup(
    networks: Sequence[Network],
    evaluate: Callable[[Weights], float],
    *,
    greedy: bool = True,
    masks: Mapping[str, Any] | None = None,
) -> Soup:
    """Average networks, all of them or greedily (M. Wortsman et al., "Model soups", ICML 2022, recipe 1).

    Greedily, networks are added from the least error to the greatest, each only if the average does not become worse.
    Choose on other examples than those on which the soup is judged: ``evaluate``, a function from weights to an error,
    should measure on a hold-out. ``masks`` as for `distances.both`. Raises ``ValueError`` as `average` does.
    """
    every = tuple(range(len(networks)))
    if not greedy or not networks:
        found = average(networks, masks=masks)
        return Soup(found, float(evaluate(found)), every)
    errors = [float(evaluate(average([each], masks=masks))) for each in networks]
    order = sorted(every, key=lambda number: (math.isnan(errors[number]), errors[number], number))
    best = Soup(average([networks[order[0]]], masks=masks), errors[order[0]], (order[0],))
    for number in order[1:]:
        members = (*best.members, number)
        tried = average([networks[member] for member in members], masks=masks)
        error = float(evaluate(tried))
        if error <= best.error:
            best = Soup(tried, error, members)
    return best


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    first = arrays[0]
    if not is_floating(first.dtype):
        return np.array(first)
    found = np.mean([array.astype(np.float64) for array in arrays], axis=0)
    same = np.logical_and.reduce([array == first for array in arrays])
    return np.where(same, first, found.astype(first.dtype))
