"""The matrices of the benchmark, and our side of it: the compiled functions on existing arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_lth import _core
from keras_lth.ops.structure import SparseStructure

Call = Callable[[], object]


def block_mask(shape: tuple[int, ...], block: tuple[int, int], sparsity: float, seed: int = 0) -> np.ndarray:
    """A mask of whole blocks in the last two axes, round((1 - sparsity) × blocks) of them, uniformly at random."""
    *taps, rows, cols = shape
    blocks = np.zeros((*taps, rows // block[0], cols // block[1]), bool)
    kept = np.random.default_rng(seed).choice(blocks.size, round((1 - sparsity) * blocks.size), replace=False)
    blocks.reshape(-1)[kept] = True
    return blocks.repeat(block[0], axis=-2).repeat(block[1], axis=-1)


def name_of(block: tuple[int, int]) -> str:
    return "unstructured" if block == (1, 1) else f"{block[0]}×{block[1]}"


class Product:
    """X [m, inputs] times a sparse W [inputs, outputs], dX and dW, with every output allocated."""

    def __init__(self, m: int, inputs: int, outputs: int, block: tuple[int, int], sparsity: float) -> None:
        random = np.random.default_rng(1)
        self.m, self.block, self.sparsity = m, block, sparsity
        mask = block_mask((inputs, outputs), block, sparsity)
        self.dense = random.standard_normal((inputs, outputs), np.float32) * mask
        self.structure = SparseStructure.from_mask(mask, block)
        self.values = self.structure.values(self.dense)
        self.x = random.standard_normal((m, inputs), np.float32)
        self.dy = random.standard_normal((m, outputs), np.float32)
        self.y, self.dx = np.zeros_like(self.dy), np.zeros_like(self.x)
        self.dvalues = np.zeros_like(self.values)

    @property
    def name(self) -> str:
        return f"{name_of(self.block)} {100 * self.sparsity:g} %"

    @property
    def flops(self) -> float:
        """Multiplications and additions that count: two for every input row and stored weight."""
        return 2.0 * self.m * self.values.size

    @property
    def bytes(self) -> int:
        """Values and indices that the product reads, once."""
        return self.values.nbytes + self.structure.starts.nbytes + self.structure.others.nbytes

    def forward(self, threads: int) -> Call:
        return lambda: _core.multiply(self.structure, self.values, self.x, None, False, self.y, threads=threads)

    def input_gradient(self, threads: int) -> Call:
        return lambda: _core.multiply_transposed(self.structure, self.values, self.dy, self.dx, threads=threads)

    def weight_gradient(self, threads: int) -> Call:
        return lambda: _core.sample_product(self.structure, self.x, self.dy, self.dvalues, threads=threads)

    def check(self) -> None:
        """Raise unless the three results agree with NumPy's, so that no wrong result is timed."""
        for call in (self.forward(0), self.input_gradient(0), self.weight_gradient(0)):
            call()
        close(f"{self.name} forward", self.y, self.x @ self.dense)
        close(f"{self.name} dX", self.dx, self.dy @ self.dense.T)
        close(f"{self.name} dW", self.dvalues, self.structure.values(self.x.T @ self.dy))


class Convolution:
    """A 3×3 convolution, stride 1, same padding, NHWC, with a sparse kernel; both gradients."""

    def __init__(self, batch: int, side: int, channels: int, block: tuple[int, int], sparsity: float) -> None:
        random = np.random.default_rng(2)
        shape = (3, 3, channels, channels)
        self.block, self.sparsity = block, sparsity
        mask = block_mask(shape, block, sparsity)
        self.dense = random.standard_normal(shape, np.float32) * mask
        self.structure = SparseStructure.from_mask(mask, block)
        self.values = self.structure.values(self.dense)
        self.x = random.standard_normal((batch, side, side, channels), np.float32)
        self.dy = random.standard_normal(self.x.shape, np.float32)
        self.y, self.dx = np.zeros_like(self.dy), np.zeros_like(self.x)
        self.dvalues = np.zeros_like(self.values)
        self.shape = (self.x.shape[:3], (3, 3), (1, 1), True)

    @property
    def name(self) -> str:
        return f"{name_of(self.block)} {100 * self.sparsity:g} %"

    def forward(self, threads: int) -> Call:
        fixed = (*self.shape, None, False, self.y)
        return lambda: _core.convolve(self.structure, self.values, self.x, *fixed, threads=threads)

    def input_gradient(self, threads: int) -> Call:
        fixed = (*self.shape, self.dx)
        return lambda: _core.convolve_transposed(self.structure, self.values, self.dy, *fixed, threads=threads)

    def weight_gradient(self, threads: int) -> Call:
        fixed = (*self.shape, self.dvalues)
        return lambda: _core.sample_convolution(self.structure, self.x, self.dy, *fixed, threads=threads)


def both(first: Call, second: Call) -> Call:
    def call() -> None:
        first()
        second()

    return call


def close(what: str, got: np.ndarray, expected: np.ndarray) -> None:
    """Raise unless the greatest difference is below 1e-4 of the greatest value: float32 sums in any order."""
    scale = float(np.abs(expected).max(initial=0.0))
    error = float(np.abs(got - expected).max(initial=0.0))
    if not error <= 1e-4 * max(scale, 1e-30):
        raise RuntimeError(f"{what}: differs by {error:.3g} at values up to {scale:.3g}")
