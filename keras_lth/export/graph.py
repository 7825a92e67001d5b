"""A network as a list of nodes: what is computed, of which nodes, with which arrays. Knows no Keras."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Graph", "Node"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
      kind: "input", "dense", "conv", "scale", "activation", "pool", "global_pool", "pad", "reshape", "merge", "norm".
      name: of the Keras layer.
      inputs: numbers of the nodes it reads.
      shape: of its result, without the batch.
      options: what JSON can hold.
      arrays: float32 weights, by name.
    """

    kind: str
    name: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Values of one example's result."""
        return int(np.prod(self.shape, dtype=np.int64))


class Graph:
    """Nodes by number, in an order in which they can be computed; node 0 is the input, `output` the result."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.nodes: dict[int, Node] = {0: Node("input", "input", (), tuple(shape))}
        self.output = 0
        self._next = 1

    def add(self, node: Node) -> int:
        """Append a node; returns its number."""
        number, self._next = self._next, self._next + 1
        self.nodes[number] = node
        return number

    def uses(self) -> Counter[int]:
        """How often each node is read; the output once more."""
        counts = Counter(source for node in self.nodes.values() for source in node.inputs)
        counts[self.output] += 1
        return counts

    def drop(self, number: int, instead: int) -> None:
        """Remove a node; whoever reads it reads `instead`."""
        del self.nodes[number]
        for other, node in self.nodes.items():
            if number in node.inputs:
                inputs = tuple(instead if source == number else source for source in node.inputs)
                self.nodes[other] = replace(node, inputs=inputs)
        if self.output == number:
            self.output = instead

    def numbered(self) -> Iterator[Node]:
        """The nodes that lead to the output, in order, numbered 0, 1, …; the last one is the output."""
        needed = {self.output, 0}
        for number in reversed(self.nodes):
            if number in needed:
                needed.update(self.nodes[number].inputs)
        place: dict[int, int] = {}
        for number, node in self.nodes.items():
            if number in needed:
                place[number] = len(place)
                yield replace(node, inputs=tuple(place[source] for source in node.inputs))
