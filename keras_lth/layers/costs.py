"""What a training step of one kernel costs, dense and sparse: measured once on a machine, then computed.

Both are straight lines. The dense products of a step take time in proportion to multiply-adds. The sparse ones take
time in proportion to the multiply-adds of what is stored, and to the activations, which are packed.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_lth import ops
from keras_lth.ops import SparseStructure
from keras_lth.ops.tensorflow import sparse_conv2d, sparse_matmul

__all__ = ["DEFAULT", "Costs", "Line", "measured"]


@dataclass(frozen=True)
class Line:
    """Seconds of a step: ``dense · all + sparse · stored + packed · activations + call``.

    Attributes:
        dense, sparse, blocks: per multiply-add of a forward product; ``blocks`` is of stored blocks.
        packed: per activation, of inputs and outputs.
        call: of the three sparse products beside the dense ones.
    """

    dense: float
    sparse: float
    blocks: float
    packed: float
    call: float

    def times(self, shape: tuple[int, ...], density: float, blocks: bool, positions: int) -> tuple[float, float]:
        """Return the seconds of the dense and of the sparse products of a step.

        Args:
            shape: of the kernel in the product, ``[..., inputs, outputs]``.
            density: share of the weights that is stored.
            blocks: whether they are stored in blocks.
            positions: rows of the product: examples, times tokens or pixels of the output.
        """
        whole = float(np.prod(shape)) * positions
        packed = self.packed * positions * (shape[-2] + shape[-1])
        return self.dense * whole, (self.blocks if blocks else self.sparse) * density * whole + packed + self.call

    def pays_below(self, shape: tuple[int, ...], blocks: bool, positions: int) -> float:
        """Return the density below which the sparse products are faster, in [0, 1]."""
        dense, none = self.times(shape, 0.0, blocks, positions)
        _, all_stored = self.times(shape, 1.0, blocks, positions)
        return min(1.0, max(0.0, (dense - none) / (all_stored - none)))


@dataclass(frozen=True)
class Costs:
    """The lines of matrices and of convolutions."""

    matrix: Line
    convolution: Line

    def line(self, shape: tuple[int, ...]) -> Line:
        """The line for a kernel of this shape."""
        return self.matrix if len(shape) == 2 else self.convolution


# Two Zen 4 cores with AVX-512.
DEFAULT = Costs(
    Line(dense=3.4e-11, sparse=5.2e-11, blocks=3.2e-11, packed=4e-10, call=2e-5),
    Line(dense=2.4e-11, sparse=4.4e-11, blocks=4.0e-11, packed=1.2e-9, call=4e-5),
)


@functools.cache
def measured() -> Costs:
    """Return the costs on this machine: from a file in the user's cache folder, else measured in about a second."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keras_lth" / "costs.json"
    key = "; ".join([platform.processor() or platform.machine(), ops.isa(), f"{_threads()} threads", tf.__version__])
    known = _read(path)
    if key not in known:
        known[key] = asdict(_measure())
        _write(path, known)
    return Costs(**{name: Line(**line) for name, line in known[key].items()})


def _threads() -> int:
    return tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, known: dict[str, Any]) -> None:
    # A cache: where it cannot be written, the next process measures again.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(known, indent=1))
        part.replace(path)
    except OSError:
        return


def _measure() -> Costs:
    rng = np.random.default_rng(0)

    def line(shape: tuple[int, ...], x: Any, dense: Callable[..., Any], sparse: Callable[..., Any]) -> Line:
        positions = int(np.prod(dense(x, np.zeros(shape, np.float32)).shape[:-1]))
        whole = float(np.prod(shape)) * positions
        packed = positions * (shape[-2] + shape[-1])

        def seconds(mask: Any, block: int | None) -> tuple[float, float]:
            structure = SparseStructure.from_mask(mask, block)
            values = np.ones((structure.room, *structure.block), np.float32)
            return _seconds(lambda x, v: sparse(x, v, structure), x, values), positions * float(values.size)

        (many, of_many), (few, of_few) = (seconds(rng.random(shape) < density, None) for density in (0.2, 0.02))
        rate = (many - few) / (of_many - of_few)
        tiles = np.kron(rng.random((*shape[:-2], shape[-2] // 16, shape[-1] // 16)) < 0.2, np.ones((16, 16), bool))
        in_blocks, of_blocks = seconds(tiles, 16)
        one = np.zeros(shape, bool)
        one.flat[0] = True
        call, _ = seconds(one, None)
        rest = max(few - rate * of_few, 0.0)
        small = (
            _seconds(lambda x, v: sparse(x, v, tiny), x[:1], np.ones((1, 1, 1), np.float32))
            if (tiny := SparseStructure.from_mask(one))
            else call
        )
        return Line(
            dense=_seconds(dense, x, np.ones(shape, np.float32)) / whole,
            sparse=max(rate, 1e-13),
            blocks=max((in_blocks - rest) / of_blocks, 1e-13),
            packed=max(rest - small, 0.0) / packed,
            call=small,
        )

    matrix = line((512, 512), rng.normal(size=(128, 512)).astype(np.float32), tf.matmul, sparse_matmul)
    convolution = line(
        (3, 3, 64, 64),
        rng.normal(size=(16, 16, 16, 64)).astype(np.float32),
        lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"),
        lambda x, v, structure: sparse_conv2d(x, v, structure, padding="same"),
    )
    return Costs(matrix, convolution)


def _seconds(product: Callable[..., Any], x: Any, weights: Any) -> float:
    """Seconds of a product and both of its gradients: the least of some."""

    @tf.function
    def step(x: Any, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, weights])
            y = product(x, weights)
        return tape.gradient(y, [x, weights])

    with tf.device("/CPU:0"):
        given = tf.constant(x), tf.constant(weights)
        step(*given)
        best, until = float("inf"), time.perf_counter() + 0.05
        while time.perf_counter() < until:
            begin = time.perf_counter()
            step(*given)
            best = min(best, time.perf_counter() - begin)
    return best
