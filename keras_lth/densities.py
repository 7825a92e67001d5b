"""Densities of layers: how many weights each layer keeps of an exact total. Needs neither Keras nor TensorFlow.

``select(scores, density=ERK(0.1))`` keeps the highest scores within each layer; with scores of `criteria.Random` it is
random pruning with these densities.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_lth.arguments import real, round_half_up
from keras_lth.masks import Masks, align
from keras_lth.names import assigned

__all__ = ["ERK", "ByName", "Densities", "ErdosRenyi", "Like", "SmartRatio", "Uniform"]

Shapes = Mapping[str, Sequence[int]]


class Densities(ABC):
    """A rule that gives each layer a density."""

    @abstractmethod
    def of(self, shapes: Shapes, sizes: Mapping[str, int] | None = None) -> dict[str, float]:
        """Return the density of each layer, in [0, 1]; arguments as in `counts`, layers from input to output."""

    def counts(self, shapes: Shapes, sizes: Mapping[str, int] | None = None) -> dict[str, int]:
        """Return how many weights each layer keeps; the total is round-half-up(Σ density × size), exactly.

        Each layer gets the whole part of its share; what is missing to the total goes to the largest remainders, ties
        to the first layer.

        Args:
            shapes: weight path → shape.
            sizes: the units of each layer (blocks, neurons), if these are counted instead of weights.

        Raises:
            ValueError: a density that cannot work, such as a mean outside (0, 1]; the message gives the layer.
        """
        numbers = _sizes(shapes, sizes)
        shares = {path: share * numbers[path] for path, share in self.of(shapes, numbers).items()}
        total = self._total(numbers, shares)
        found = {path: min(numbers[path], math.floor(share)) for path, share in shares.items()}
        rest = sorted(shares, key=lambda path: found[path] - shares[path])
        while (missing := total - sum(found.values())) > 0:
            open_ = [path for path in rest if found[path] < numbers[path]]
            for path in open_[:missing]:
                found[path] += 1
        return found

    def _total(self, sizes: Mapping[str, int], shares: Mapping[str, float]) -> int:
        # Rounded first: 0.1 + 0.2 weights are no more than 0.3.
        return math.floor(round(sum(shares.values()), 6) + 0.5)


@dataclass(frozen=True)
class _Mean(Densities):
    """A rule with a mean density: the share of all weights that remains, in (0, 1]."""

    density: float

    def __post_init__(self) -> None:
        share = real(self.density, "density")
        if not 0 < share <= 1:
            raise ValueError(f"density must lie in (0, 1], not {self.density!r}")
        object.__setattr__(self, "density", share)

    def _total(self, sizes: Mapping[str, int], shares: Mapping[str, float]) -> int:
        return round_half_up(self.density, sum(sizes.values()))

    def _scaled(self, weights: Mapping[str, float], sizes: Mapping[str, int], total: float) -> dict[str, float]:
        """Densities in proportion to ``weights`` that keep ``total``; a layer that would exceed 1 is whole, and the
        others share the rest.
        """
        whole: set[str] = set()
        while True:
            left = total - sum(sizes[path] for path in whole)
            norm = sum(weights[path] * sizes[path] for path in weights if path not in whole)
            scale = left / norm if norm else 0.0
            above = {path for path in weights if path not in whole and weights[path] * scale > 1}
            if not above:
                return {path: 1.0 if path in whole else max(0.0, weights[path] * scale) for path in weights}
            whole |= above


def _sizes(shapes: Shapes, sizes: Mapping[str, int] | None) -> dict[str, int]:
    return {path: math.prod(shape) if sizes is None else sizes[path] for path, shape in shapes.items()}


@dataclass(frozen=True)
class Uniform(_Mean):
    """The same density in each layer.

    Args:
        density: the share that remains, in (0, 1].
    """

    def of(self, shapes: Shapes, sizes: Mapping[str, int] | None = None) -> dict[str, float]:
        """Return the density of each layer."""
        return dict.fromkeys(shapes, self.density)


@dataclass(frozen=True)
class ErdosRenyi(_Mean):
    """Densities in proportion to (inputs + outputs) / (inputs × outputs): D. Mocanu et al., 2018 (SET).

    Inputs and outputs are the last two axes of a kernel. A layer that would exceed 1 is whole, and the others share the
    rest, as in the released code of RigL.

    Args:
        density: the share of all weights that remains, in (0, 1].
    """

    def of(self, shapes: Shapes, sizes: Mapping[str, int] | None = None) -> dict[str, float]:
        """Return the density of each layer."""
        numbers = _sizes(shapes, sizes)
        weights = {path: self._weight(shape) for path, shape in shapes.items()}
        return self._scaled(weights, numbers, self.density * sum(numbers.values()))

    def _weight(self, shape: Sequence[int]) -> float:
        ends = tuple(shape)[-2:]
        return sum(ends) / math.prod(ends)


@dataclass(frozen=True)
class ERK(ErdosRenyi):
    """As `ErdosRenyi`, but of all axes of a kernel: (height + width + inputs + outputs) / their product.

    U. Evci et al., "Rigging the lottery", ICML 2020.
    """

    def _weight(self, shape: Sequence[int]) -> float:
        return sum(shape) / math.prod(shape)


@dataclass(frozen=True)
class SmartRatio(_Mean):
    """Densities in proportion to (L − l + 1)² + (L − l + 1) in layer l of L, and 0.3 in the last layer.

    J. Su et al., "Sanity-checking pruning methods", NeurIPS 2020, and their code, where only the last layer is no
    convolution. A layer that would exceed 1 is whole, and the others share the rest.

    Args:
        density: the share of all weights that remains, in (0, 1].
        last: the density of the last layer, in (0, 1].
        steep: divide by l², as the code does for VGGs.
    """

    last: float = 0.3
    steep: bool = False

    def of(self, shapes: Shapes, sizes: Mapping[str, int] | None = None) -> dict[str, float]:
        """Return the density of each layer; ``shapes`` are in order, from input to output."""
        if not 0 < real(self.last, "last") <= 1:
            raise ValueError(f"last must lie in (0, 1], not {self.last!r}")
        numbers, paths = _sizes(shapes, sizes), list(shapes)
        left = self.density * sum(numbers.values()) - self.last * numbers[paths[-1]]
        others = sum(numbers[path] for path in paths[:-1])
        if not 0 <= left <= others:
            raise ValueError(
                f"density={self.density} leaves {left:,.0f} of {others:,} weights for the layers before "
                f"{paths[-1]!r}, which keeps last={self.last} of its own: choose another last"
            )
        weights = {}
        for layer, path in enumerate(paths[:-1], 1):
            k = len(paths) - layer + 1
            weights[path] = (k * k + k) / (layer * layer if self.steep else 1)
        return {**self._scaled(weights, numbers, left), paths[-1]: self.last}


@dataclass(frozen=True)
class ByName(Densities):
    """The densities that are given for names or regular expressions; the first that matches a layer counts.

    Args:
        given: pattern → density in [0, 1], as in `keras_lth.select`; ``".*"`` at the end stands for the other layers.
    """

    given: Mapping[str, float]

    def of(self, shapes: Shapes, sizes: Mapping[str, int] | None = None) -> dict[str, float]:
        """Return the density of each layer."""
        found = assigned(self.given, shapes, "density", among=shapes)
        shares = {path: real(value, "density") for path, value in found.items()}
        for path, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"the density of {path!r} must lie in [0, 1], not {found[path]!r}")
        return shares


@dataclass(frozen=True)
class Like(Densities):
    """As many weights in each layer as other masks keep: random pruning in the proportions of a method (thesis, 3.1.4).

    Args:
        masks: of the same architecture, matched by path or by order.
    """

    masks: Masks

    def of(self, shapes: Shapes, sizes: Mapping[str, int] | None = None) -> dict[str, float]:
        """Return the density of each layer."""
        found = align(self.masks, {path: tuple(shape) for path, shape in shapes.items()}, what="masks")
        missing = [path for path in shapes if path not in found]
        if missing:
            raise ValueError(f"the masks to be like have no {missing[0]!r}: exclude it, or give masks of all layers")
        return {path: int(np.count_nonzero(found[path])) / max(1, found[path].size) for path in shapes}
