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


# How much faster sparse products must be by their line. Beside it stand what the line does not know: under XLA the
# indices are checked in every call, and XLA's dense products are faster than TensorFlow's. LeNet-300-100 at a third of
# its weights, 1.4 times as fast by its line, trained 1.3 times as long; at a quarter, 1.7 by its line, 0.92 times.
MARGIN = 1.5


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
        """Return the density below which the sparse products are faster by the `MARGIN`, in [0, 1]."""
        dense, none = self.times(shape, 0.0, blocks, positions)
        _, all_stored = self.times(shape, 1.0, blocks, positions)
        return min(1.0, max(0.0, (dense / MARGIN - none) / (all_stored - none)))


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
    Line(dense=3.0e-11, sparse=5.4e-11, blocks=2.0e-11, packed=4.0e-10, call=2e-5),
    Line(dense=1.9e-11, sparse=3.3e-11, blocks=2.0e-11, packed=4e-11, call=1.8e-4),
)


@functools.cache
def measured() -> Costs:
    """Return the costs on this machine: from a file in the user's cache folder, else measured in about a second.

    What was measured while other work held the processors up is used once, and not kept.
    """
    path = _file()
    key = "; ".join([platform.processor() or platform.machine(), ops.isa(), f"{_threads()} threads", tf.__version__])
    known = _read(path)
    if key in known:
        return Costs(**{name: Line(**line) for name, line in known[key].items()})
    costs, steady = _measure()
    if steady:
        _write(path, known | {key: asdict(costs)})
    return costs


def _file() -> Path:
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user whom the system does not know, as in many containers, has no home
        folder = Path(os.devnull)
    return folder / "keras_lth" / "costs.json"


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


def _measure() -> tuple[Costs, bool]:
    """The costs, and whether the two halves of the measurement agree."""
    rng = np.random.default_rng(0)
    matrix, convolution = (512, 512), (3, 3, 64, 64)
    rows = rng.normal(size=(128, 512)).astype(np.float32)
    images = rng.normal(size=(16, 16, 16, 64)).astype(np.float32)

    def convolved(x: Any, values: Any, structure: SparseStructure) -> Any:
        return sparse_conv2d(x, values, structure, padding="same")

    jobs: list[tuple[Callable[[], Any], int]] = []
    for shape, x, dense, sparse in (
        (matrix, rows, tf.matmul, sparse_matmul),
        (convolution, images, lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"), convolved),
    ):
        one = np.zeros(shape, bool)
        one.flat[0] = True
        tiles = rng.random((*shape[:-2], shape[-2] // 16, shape[-1] // 16)) < 0.2
        blocks = np.kron(tiles, np.ones((16, 16), bool))
        # What a step takes that computes next to nothing: no product is charged with it.
        jobs.append((_step(dense, x[:1, ..., :16], np.ones((*shape[:-2], 16, 16), np.float32)), 0))
        jobs.append((_step(dense, x, np.ones(shape, np.float32)), 0))
        many, few = (rng.random(shape) < density for density in (0.2, 0.02))
        for mask, block, given in ((many, None, x), (few, None, x), (blocks, 16, x), (one, None, x[:16])):
            structure = SparseStructure.from_mask(mask, block)
            product = functools.partial(sparse, structure=structure)
            values = np.ones((structure.room, *structure.block), np.float32)
            jobs.append((_step(product, given, values), values.size))
    # All in turn, so that other work on the machine holds up none more than the others.
    best = np.full((2, len(jobs)), np.inf)
    for turn in range(2 * _TURNS):
        for number, (job, _) in enumerate(jobs):
            begin = time.perf_counter()
            job()
            best[turn % 2, number] = min(best[turn % 2, number], time.perf_counter() - begin)
    seconds, sizes = best.min(axis=0).reshape(2, -1), np.array([size for _, size in jobs]).reshape(2, -1)
    steady = bool((best.max(axis=0) < 1.25 * best.min(axis=0)).all())
    lines = [
        _line(shape, positions, of, size)
        for shape, positions, of, size in zip((matrix, convolution), (128, 16 * 16 * 16), seconds, sizes, strict=True)
    ]
    return Costs(*lines), steady


_TURNS = 30


def _line(shape: tuple[int, ...], positions: int, seconds: Any, sizes: Any) -> Line:
    """From seconds of dense, two densities, blocks and one weight, less those of an empty step."""
    dense, many, few, blocks, call = (max(float(one) - float(seconds[0]), 1e-6) for one in seconds[1:])
    rate = max(many - few, 0.2 * many) / (float(sizes[2] - sizes[3]) * positions)
    rest = max(few - rate * float(sizes[3]) * positions, call)
    packed = (rest - call) / (positions * (shape[-2] + shape[-1]))
    of_blocks = max(blocks - rest, 0.2 * blocks) / (float(sizes[4]) * positions)
    return Line(dense / (float(np.prod(shape)) * positions), rate, of_blocks, packed, call)


def _step(product: Callable[..., Any], x: Any, weights: Any) -> Callable[[], Any]:
    """A product and both of its gradients, compiled."""

    @tf.function
    def step(x: Any, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, weights])
            y = product(x, weights)
        return tape.gradient(y, [x, weights])

    with tf.device("/CPU:0"):
        given = tf.constant(x), tf.constant(weights)
        # Functions that are called count as one that is traced again and again, of which TensorFlow warns.
        traced = step.get_concrete_function(*given)

    def run() -> Any:
        with tf.device("/CPU:0"):
            return traced(*given)

    run()
    return run
