"""Nodes that others can take over: a scale and shift goes into a kernel beside it, a ReLU into what it follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from keras_lth.export.graph import Array, Graph, Node

__all__ = ["fold"]

_KERNELS = ("dense", "conv")


def fold(graph: Graph) -> None:
    """Fold every scale and every plain ReLU of a graph, in place, as far as the result stays the same to rounding.

    A pruned weight stays 0: a scale multiplies it.
    """
    for number in list(graph.nodes):
        if graph.nodes[number].kind == "scale":
            _into_source(graph, number)
    for number in list(graph.nodes):
        if number in graph.nodes and graph.nodes[number].kind == "scale":
            _into_reader(graph, number)
    for number in list(graph.nodes):
        _relu_into_source(graph, number)


def _into_source(graph: Graph, number: int) -> None:
    """W x + b, then s and t: (s W) x + (s b + t)."""
    node = graph.nodes[number]
    (at,) = node.inputs
    source = graph.nodes[at]
    if source.kind not in (*_KERNELS, "scale") or graph.uses()[at] != 1:
        return
    scale, shift = node.arrays["scale"], node.arrays["shift"]
    if source.kind == "scale":
        arrays = {"scale": source.arrays["scale"] * scale, "shift": source.arrays["shift"] * scale + shift}
    else:
        arrays = {"kernel": source.arrays["kernel"] * scale, "bias": _bias(source) * scale + shift}
    graph.nodes[at] = replace(source, arrays=arrays, name=f"{source.name} + {node.name}")
    graph.drop(number, at)


def _into_reader(graph: Graph, number: int) -> None:
    """W (s x + t) + b: (W s) x + (b + W t). Not where a convolution pads: the padding is 0, not t."""
    node = graph.nodes[number]
    readers = [at for at, other in graph.nodes.items() if number in other.inputs]
    if len(readers) != 1 or graph.uses()[number] != 1:
        return
    reader = graph.nodes[readers[0]]
    if reader.kind not in _KERNELS or reader.options.get("padding", "valid") != "valid":
        return
    kernel = reader.arrays["kernel"]
    shifted = (node.arrays["shift"] @ kernel).reshape(-1, kernel.shape[-1]).sum(axis=0)
    arrays = {"kernel": kernel * node.arrays["scale"][:, None], "bias": _bias(reader) + shifted}
    graph.nodes[readers[0]] = replace(reader, arrays=arrays, name=f"{node.name} + {reader.name}")
    graph.drop(number, node.inputs[0])


def _relu_into_source(graph: Graph, number: int) -> None:
    node = graph.nodes[number]
    if node.kind != "activation" or node.options != {"function": "relu"}:
        return
    (at,) = node.inputs
    source = graph.nodes[at]
    if source.kind not in (*_KERNELS, "merge") or source.options.get("relu") or graph.uses()[at] != 1:
        return
    graph.nodes[at] = replace(source, options={**source.options, "relu": True}, name=f"{source.name} + {node.name}")
    graph.drop(number, at)


def _bias(node: Node) -> Array:
    kernel = node.arrays["kernel"]
    return node.arrays.get("bias", np.zeros(kernel.shape[-1], np.float32))
