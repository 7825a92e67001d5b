"""Permutations of hidden units: those that leave a network's function unchanged, and matching two networks by them.

S. Ainsworth et al., "Git Re-Basin: merging models modulo permutation symmetries", ICLR 2023, section 3.2 (weight
matching); R. Entezari et al., "The role of permutation invariance in linear mode connectivity", ICLR 2022. The axes
that a permutation moves together follow from the graph of the model: channels that layers such as normalisations and
pools pass on, that residual connections add, and that others concatenate or flatten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from keras_lth.analysis.distances import Network, both, is_floating, is_statistic, weights_of
from keras_lth.masks import Masks

# A part of an axis: its group, and its size. Groups below 0 cannot be permuted: inputs and outputs of the network.
Part = tuple[int, int]
Axis = tuple[Part, ...]
Permutation = Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Symmetries:
    """Which axes of which weights are permuted together.

    Attributes:
        axes: weight path → the parts of each axis; an axis without parts is not permuted.
        sizes: group → number of units, in the order from input to output.
    """

    axes: Mapping[str, tuple[Axis, ...]]
    sizes: Mapping[int, int]

    def random(self, seed: int) -> dict[int, np.ndarray]:
        """Return a random permutation of each group."""
        draw = np.random.default_rng(seed)
        return {group: draw.permutation(size) for group, size in self.sizes.items()}

    def permuted(self, network: Network, permutation: Permutation) -> dict[str, np.ndarray]:
        """Return the weights of a network with unit ``permutation[group][i]`` of each group at place i.

        The network computes the same function as before. Weights may be masks, and only some of the weights.

        Raises ``ValueError`` for weights of another architecture.
        """
        given = dict(network) if isinstance(network, Masks) else weights_of(network)
        return {path: self._moved(path, array, permutation) for path, array in self._aligned(given).items()}

    def match(
        self, a: Network, b: Network, *, seed: int = 0, sweeps: int = 100, masks: Mapping[str, Any] | None = None
    ) -> dict[int, np.ndarray]:
        """Return the permutation of the units of ``b`` that brings its weights near to those of ``a``.

        It maximises the sum of products of the weights, one group at a time: a linear assignment for each. The first
        pass goes from input to output and looks only at weights whose other axes are matched already, so that a
        permuted copy is recovered exactly. Further passes, in an order drawn from ``seed``, repeat until nothing
        changes. Normalisation statistics do not take part.

        Args:
            a, b: networks of one architecture.
            seed: of the order of the groups.
            sweeps: the greatest number of passes.
            masks: as for `distances.both`.
        """
        pair = [self._aligned(each) for each in both(a, b, masks)]
        first, second = ({path: array.astype(float) for path, array in each.items() if _counts(path, array)}
                         for each in pair)  # fmt: skip
        found: dict[int, np.ndarray] = {}
        for group in self.sizes:
            found[group] = self._assigned(group, first, second, found)
        draw = np.random.default_rng(seed)
        for _ in range(sweeps):
            before = {group: order.copy() for group, order in found.items()}
            for group in draw.permutation(list(self.sizes)):
                found[int(group)] = self._assigned(int(group), first, second, found)
            if all(np.array_equal(before[group], found[group]) for group in found):
                break
        return found

    def aligned(self, a: Network, b: Network, **how: Any) -> dict[str, np.ndarray]:
        """Return the weights of ``b`` after `match` with ``a``, whose other arguments are ``how``."""
        return self.permuted(both(a, b, how.get("masks"))[1], self.match(a, b, **how))

    def _aligned(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if unknown := [path for path in weights if path not in self.axes]:
            raise ValueError(f"The network has {', '.join(unknown)}, which the model does not: use one architecture.")
        for path, array in weights.items():
            shape = tuple(sum(size for _, size in axis) or array.shape[at] for at, axis in enumerate(self.axes[path]))
            if shape != array.shape:
                raise ValueError(f"{path} has the shape {array.shape}, but the model needs {shape}.")
        return dict(weights)

    def _moved(self, path: str, array: np.ndarray, permutation: Permutation, skipped: int = -1) -> np.ndarray:
        for at, axis in enumerate(self.axes[path]):
            if at != skipped and any(group in permutation for group, _ in axis):
                array = np.take(array, _places(axis, permutation), axis=at)
        return array

    def _assigned(
        self, group: int, a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], found: Permutation
    ) -> np.ndarray:
        """The assignment of one group, given those of the groups that are found."""
        size = self.sizes[group]
        sure, unsure = np.zeros((2, size, size))
        for path in a:
            axes = self.axes[path]
            for at, axis in enumerate(axes):
                if all(part != group for part, _ in axis):
                    continue
                others = {part for place, other in enumerate(axes) if place != at for part, _ in other}
                known = all(part < 0 or part in found for part in others)
                mine = _rows(a[path], at)
                # The group itself on another axis keeps its present order.
                yours = _rows(self._moved(path, b[path], found, skipped=at), at)
                start = 0
                for part, count in axis:
                    if part == group:
                        (sure if known else unsure)[...] += mine[start : start + count] @ yours[start : start + count].T
                    start += count
        _, order = linear_sum_assignment(sure if sure.any() else sure + unsure, maximize=True)
        return np.asarray(order)


def symmetries(model: Any) -> Symmetries:
    """Return the permutation symmetries of a functional or sequential Keras model.

    Raises ``ValueError`` for a layer that is not known here; names it.
    """
    from keras_lth.analysis.channels import Channels

    return Symmetries(*Channels(model).found())


def _places(axis: Sequence[Part], permutation: Permutation) -> np.ndarray:
    """The old place of each unit of an axis."""
    parts, start = [], 0
    for group, size in axis:
        parts.append(start + np.asarray(permutation.get(group, np.arange(size))))
        start += size
    return np.concatenate(parts)


def _rows(array: np.ndarray, at: int) -> np.ndarray:
    return np.moveaxis(array, at, 0).reshape(array.shape[at], -1)


def _counts(path: str, array: np.ndarray) -> bool:
    return is_floating(array.dtype) and not is_statistic(path)
