"""A compiled network: its steps, the arrays they share at each batch size, its file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_lth.arguments import whole
from keras_lth.export.graph import Array, Graph, Node
from keras_lth.export.kernels import Kernel, choose
from keras_lth.export.steps import IN_PLACE, Step, bind
from keras_lth.files import read_arrays, write_arrays
from keras_lth.files.stores import AnyPath
from keras_lth.ops.structure import SparseStructure
from keras_lth.tables import html_table, text_table

__all__ = ["Compiled", "load"]

_KIND = "compiled network"
_BATCH = 128
_PLANS = 4  # batch sizes whose arrays are kept


class Compiled:
    """A network as products that skip its zeros; made by `compile` or `load`. Threads may call one at the same time.

    Attributes:
      input_shape, output_shape: of one example.
      batch_size: most examples that run at once; more are cut.
    """

    def __init__(self, steps: Sequence[Step], batch_size: int | None = None) -> None:
        self.batch_size = _BATCH if batch_size is None else whole(batch_size, "batch_size", 1)
        self.input_shape, self.output_shape = steps[0].node.shape, steps[-1].node.shape
        self._steps = list(steps)
        self._plans: OrderedDict[int, list[_Plan]] = OrderedDict()

    @classmethod
    def of(cls, graph: Graph, batch_size: int | None = None) -> Compiled:
        """Choose how the kernels of a graph are stored."""
        return cls([_step(node) for node in graph.numbered()], batch_size)

    def __call__(self, x: ArrayLike) -> NDArray[np.float32]:
        """Compute the network's result.

        Args:
          x: [batch, *input_shape] of numbers, any batch.

        Returns:
          float32 [batch, *output_shape], a new array. The same bits for any number of threads.

        Raises:
          ValueError: x has another shape.
        """
        given = np.asarray(x)
        if given.shape[1:] != self.input_shape or given.ndim != len(self.input_shape) + 1:
            raise ValueError(f"x has shape {given.shape}; the network needs [batch, {_sizes(self.input_shape)}]")
        result = np.empty((len(given), *self.output_shape), np.float32)
        for begin in range(0, len(given), self.batch_size):
            part = given[begin : begin + self.batch_size]
            plans = self._kept(len(part))
            # Taken out while it runs: another thread makes one of its own.
            plan = plans.pop() if plans else _Plan(self._steps, len(part))
            plan.run(part, result[begin : begin + self.batch_size])
            plans.append(plan)
        return result

    def save(self, path: AnyPath) -> None:
        """Write the network as one file, whole or not at all.

        Raises:
          OSError: naming `path`.
        """
        arrays: dict[str, Array] = {}
        nodes = []
        for number, (node, kernel) in enumerate(self._steps):
            entry: dict[str, Any] = {"kind": node.kind, "name": node.name, "inputs": node.inputs, "shape": node.shape}
            entry |= {"options": dict(node.options), "arrays": list(node.arrays)}
            arrays |= {f"{number}/{name}": array for name, array in node.arrays.items()}
            if kernel is not None:
                arrays[f"{number}/values"] = kernel.values
            if kernel is not None and kernel.structure is not None:
                entry |= {"kernel": kernel.structure.shape, "block": kernel.structure.block}
                arrays[f"{number}/blocks"] = kernel.blocks()
            nodes.append(entry)
        write_arrays(path, arrays, kind=_KIND, meta={"batch_size": self.batch_size, "nodes": nodes})

    def __str__(self) -> str:
        return text_table(self._cells(), left=(0, 1, 2, 3))

    def _repr_html_(self) -> str:
        return html_table(self._cells())

    def _cells(self) -> list[list[str]]:
        """A row a step, and the sum of bytes."""
        rows, total = [["step", "layer", "shape", "stored as", "density", "bytes"]], 0
        for node, kernel in self._steps:
            stored = sum(array.nbytes for array in node.arrays.values()) + (0 if kernel is None else kernel.bytes)
            total += stored
            what = node.options.get("mode") or node.options.get("function") or node.kind
            what = f"{what} pool".replace("average", "mean") if "pool" in node.kind else what
            rows.append([
                f"{what} + relu" if node.options.get("relu") else what, node.name, _sizes(node.shape),
                "" if kernel is None else str(kernel), "" if kernel is None else f"{kernel.density:.2%}",
                f"{stored:,}" if stored else "",
            ])  # fmt: skip
        return [*rows, ["all", "", "", "", "", f"{total:,}"]]

    def _kept(self, batch: int) -> list[_Plan]:
        plans = self._plans.setdefault(batch, [])
        self._plans.move_to_end(batch)
        while len(self._plans) > _PLANS:
            self._plans.popitem(last=False)
        return plans


def load(path: AnyPath) -> Compiled:
    """Read what `Compiled.save` wrote; neither Keras nor TensorFlow is needed.

    Raises:
      FileNotFoundError: no such file.
      ValueError: "<path> is not a keras_lth compiled network: <reason>".
    """
    arrays, meta = read_arrays(path, kind=_KIND)
    return Compiled([_read(number, entry, arrays) for number, entry in enumerate(meta["nodes"])], meta["batch_size"])


class _Plan:
    """The steps bound to arrays for one batch size. An array is used again when nobody reads it any more."""

    def __init__(self, steps: Sequence[Step], batch: int) -> None:
        left = [0] * len(steps)
        for step in steps:
            for source in step.node.inputs:
                left[source] += 1
        left[-1] += 1
        owner = list(range(len(steps)))  # the node whose array a node's result lies in
        views: list[Array] = []
        arrays: dict[int, Array] = {}
        free: list[Array] = []
        bound: list[tuple[Step, list[Array], Array]] = []
        for number, step in enumerate(steps):
            node = step.node
            shape = (batch, *node.shape)
            inputs = [views[source] for source in node.inputs]
            first = owner[node.inputs[0]] if node.inputs else number
            reused = node.kind == "reshape" or (
                node.kind in IN_PLACE
                and left[first] == 1
                and inputs[0].shape == shape
                and node.options.get("mode") != "concatenate"
            )
            if reused:
                owner[number], out = first, inputs[0].reshape(shape)
                left[first] += left[number]
            else:
                arrays[number] = _take(free, batch * node.size)
                out = arrays[number][: batch * node.size].reshape(shape)
            views.append(out)
            if node.kind not in ("input", "reshape"):
                bound.append((step, inputs, out))
            for source in node.inputs:
                left[owner[source]] -= 1
                if left[owner[source]] == 0:
                    free.append(arrays[owner[source]])
        self.input, self.output, self.calls = views[0], views[-1], bind(bound)

    def run(self, x: Array, result: Array) -> None:
        np.copyto(self.input, x, casting="unsafe")
        for call in self.calls:
            call()
        np.copyto(result, self.output)


def _take(free: list[Array], size: int) -> Array:
    """The smallest array that is large enough, else a new one; it begins at a line of the cache."""
    fits = [i for i, array in enumerate(free) if array.size >= size]
    if fits:
        return free.pop(min(fits, key=lambda i: free[i].size))
    raw = np.empty(size + 16, np.float32)
    skip = (-raw.ctypes.data % 64) // raw.itemsize
    return raw[skip : skip + size]


def _step(node: Node) -> Step:
    if "kernel" not in node.arrays:
        return Step(node, None)
    arrays = {name: array for name, array in node.arrays.items() if name != "kernel"}
    return Step(replace(node, arrays=arrays), choose(node.arrays["kernel"]))


def _read(number: int, entry: dict[str, Any], arrays: dict[str, Array]) -> Step:
    named = {name: arrays[f"{number}/{name}"] for name in entry["arrays"]}
    node = Node(entry["kind"], entry["name"], tuple(entry["inputs"]), tuple(entry["shape"]), entry["options"], named)
    values = arrays.get(f"{number}/values")
    if values is None:
        return Step(node, None)
    if "block" not in entry:
        return Step(node, Kernel(None, values))
    rows, cols = entry["block"]
    structure = SparseStructure(tuple(entry["kernel"]), (rows, cols), arrays[f"{number}/blocks"])
    return Step(node, Kernel(structure, values))


def _sizes(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
