"""Sparse products of other libraries, each in its fastest form, and checked before it is timed.

All except TensorFlow's dense product need W transposed and X feature-major. They get this layout, so nothing is
transposed in the timed part. PyTorch and sparseprop (`pip install torch sparseprop`) are measured if installed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from types import ModuleType

import numpy as np
import scipy.sparse
import tensorflow as tf
from cases import Call, Convolution, Product, close

DENSE = "TensorFlow, dense"
MKL_BSR, MKL_CSR = "MKL BSR (PyTorch)", "MKL CSR (PyTorch)"
SAMPLED = "PyTorch sampled_addmm"
SCIPY_BSR, SCIPY_CSR = "SciPy BSR", "SciPy CSR"
TF_SPARSE = "tf.sparse"
SPARSEPROP = "sparseprop"


def optional(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


torch = optional("torch")
# Its functions on arrays, without the transpositions of its PyTorch modules.
sparseprop = getattr(optional("sparseprop"), "backend", None) if torch is not None else None


def set_threads(threads: int) -> dict[str, str]:
    """Gives every peer as many threads as ours, and says which versions there are. SciPy has one thread."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    found = {"SciPy": scipy.__version__}
    if torch is not None:
        torch.set_num_threads(threads)
        warnings.filterwarnings("ignore", message="Sparse")  # support is in beta, invariants are not checked
        found["PyTorch"] = torch.__version__
    if sparseprop is not None:
        found["sparseprop"] = importlib.metadata.version("sparseprop")
    return found


class Dense:
    """TensorFlow's dense product and its gradients, inside `tf.function`; one for all sparsities of a shape."""

    def __init__(self, m: int, inputs: int, outputs: int) -> None:
        x, w, dy = (
            tf.random.stateless_normal(shape, (0, seed))
            for seed, shape in enumerate([(m, inputs), (inputs, outputs), (m, outputs)])
        )
        forward = tf.function(tf.matmul)
        input_gradient = tf.function(lambda dy, w: tf.matmul(dy, w, transpose_b=True))
        weight_gradient = tf.function(lambda x, dy: tf.matmul(x, dy, transpose_a=True))
        self.forward: Call = lambda: forward(x, w)
        self.input_gradient: Call = lambda: input_gradient(dy, w)
        self.weight_gradient: Call = lambda: weight_gradient(x, dy)
        self.flops = 2.0 * m * inputs * outputs


class DenseConvolution:
    """TensorFlow's convolution and its gradients for the shapes of `case`."""

    def __init__(self, case: Convolution) -> None:
        x, w, dy = map(tf.constant, (case.x, case.dense, case.dy))
        options = {"strides": [1, 1, 1, 1], "padding": "SAME"}
        forward = tf.function(lambda x, w: tf.nn.conv2d(x, w, **options))
        input_gradient = tf.function(
            lambda w, dy: tf.raw_ops.Conv2DBackpropInput(input_sizes=x.shape, filter=w, out_backprop=dy, **options)
        )
        weight_gradient = tf.function(
            lambda x, dy: tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=w.shape, out_backprop=dy, **options)
        )
        self.forward: Call = lambda: forward(x, w)
        self.input_gradient: Call = lambda: input_gradient(w, dy)
        self.weight_gradient: Call = lambda: weight_gradient(x, dy)

    def check(self, case: Convolution) -> None:
        """Raises unless our three results are TensorFlow's."""
        for call in (case.forward(0), case.input_gradient(0), case.weight_gradient(0)):
            call()
        close("convolution", case.y, self.forward().numpy())
        close("convolution, dX", case.dx, self.input_gradient().numpy())
        close("convolution, dW", case.dvalues, case.structure.values(self.weight_gradient().numpy()))


def _transposed(case: Product) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(case.dense.T)


def _torch_csr(matrix: scipy.sparse.csr_array) -> object:
    indices = (torch.from_numpy(matrix.indptr.astype(np.int32)), torch.from_numpy(matrix.indices.astype(np.int32)))
    return torch.sparse_csr_tensor(*indices, torch.from_numpy(matrix.data), matrix.shape)


def _torch_bsr(matrix: scipy.sparse.csr_array, side: int) -> object:
    blocks = matrix.tobsr((side, side))
    indices = (torch.from_numpy(blocks.indptr.astype(np.int32)), torch.from_numpy(blocks.indices.astype(np.int32)))
    return torch.sparse_bsr_tensor(*indices, torch.from_numpy(np.ascontiguousarray(blocks.data)), matrix.shape)


def _times(
    case: Product, weights: scipy.sparse.csr_array, block: tuple[int, int], given: np.ndarray, wanted: np.ndarray
) -> dict[str, Call]:
    """The peers' ``weights @ given`` for `weights` in blocks of `block`, checked against `wanted`."""
    calls: dict[str, Call] = {}
    if torch is not None:
        right = torch.from_numpy(given)
        csr = _torch_csr(weights)
        calls[MKL_CSR] = lambda: torch.mm(csr, right)
        if block[0] == block[1] > 1:  # MKL supports no others
            bsr = _torch_bsr(weights, block[0])
            calls[MKL_BSR] = lambda: torch.mm(bsr, right)
    calls[SCIPY_CSR] = lambda: weights @ given
    if block != (1, 1):
        blocks = weights.tobsr(block)
        calls[SCIPY_BSR] = lambda: blocks @ given
    coordinates = weights.tocoo()
    places = np.stack(coordinates.coords, axis=1).astype(np.int64)
    sparse = tf.sparse.SparseTensor(places, coordinates.data, weights.shape)
    dense = tf.constant(given)
    product = tf.function(tf.sparse.sparse_dense_matmul)
    calls[TF_SPARSE] = lambda: product(sparse, dense)
    for name, call in calls.items():
        close(f"{case.name}, {name}", np.asarray(call()), wanted)
    return calls


def forward(case: Product) -> dict[str, Call]:
    """The peers' forward product."""
    weights, x = _transposed(case), np.ascontiguousarray(case.x.T)
    wanted = (case.x @ case.dense).T
    calls = _times(case, weights, case.block[::-1], x, wanted)
    if sparseprop is not None and case.block == (1, 1):
        y = np.zeros(wanted.shape, np.float32)
        fixed = (weights.indptr.astype(np.int32), weights.indices.astype(np.int32), weights.data, y)
        sparseprop.sparse_linear_vectorized_forward(x, *fixed)
        close(f"{case.name}, {SPARSEPROP}", y, wanted)
        # It adds to the output's values; that only saves it the zeroing.
        calls[SPARSEPROP] = lambda: sparseprop.sparse_linear_vectorized_forward(x, *fixed)
    return calls


def input_gradient(case: Product) -> dict[str, Call]:
    """The peers' dX."""
    wanted = (case.dy @ case.dense.T).T
    return _times(case, scipy.sparse.csr_array(case.dense), case.block, np.ascontiguousarray(case.dy.T), wanted)


def weight_gradient(case: Product) -> dict[str, Call]:
    """PyTorch's dW where a weight is stored; the others have none."""
    if torch is None:
        return {}
    pattern = _torch_csr(_transposed(case))
    dy, x = torch.from_numpy(np.ascontiguousarray(case.dy.T)), torch.from_numpy(case.x)

    def call() -> object:
        return torch.sparse.sampled_addmm(pattern, dy, x, beta=0.0)

    got = call().to_dense().numpy()
    close(f"{case.name}, {SAMPLED}", got, (case.x.T @ case.dy).T * (case.dense.T != 0))
    return {SAMPLED: call}


def both_gradients(case: Product) -> dict[str, Call]:
    """Peers that compute dX and dW in one go: sparseprop's."""
    if sparseprop is None or case.block != (1, 1):
        return {}
    weights = _transposed(case)
    x, dy = np.ascontiguousarray(case.x.T), np.ascontiguousarray(case.dy.T)
    dx, dw = np.zeros_like(x), np.zeros_like(weights.data)
    fixed = (weights.indptr.astype(np.int32), weights.indices.astype(np.int32), weights.data, dy, dx, dw)

    def call() -> None:
        sparseprop.sparse_linear_vectorized_backward(x, *fixed)

    call()
    close(f"{case.name}, {SPARSEPROP} dX", dx, (case.dy @ case.dense.T).T)
    close(f"{case.name}, {SPARSEPROP} dW", dw, (case.x.T @ case.dy).T[case.dense.T != 0])
    return {SPARSEPROP: call}


def convolution(case: Convolution) -> dict[str, dict[str, Call]]:
    """sparseprop's convolution, forward and backward, with the batch as the last axis: its faster form here."""
    if sparseprop is None or case.block != (1, 1):
        return {}
    pack = importlib.import_module("sparseprop.modules.utils").to_sparse_format_conv2d
    kernel = torch.from_numpy(np.ascontiguousarray(case.dense.transpose(3, 2, 0, 1)))
    values, indices = pack(kernel)
    fixed = (*(index.numpy() for index in indices), values.numpy())
    x, dy = (np.ascontiguousarray(array.transpose(3, 1, 2, 0)) for array in (case.x, case.dy))
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(values.numpy())

    def forward() -> None:
        sparseprop.sparse_conv2d_vectorized_forward_stride_1(x, *fixed, y, 3, 1)

    def backward() -> None:
        sparseprop.sparse_conv2d_vectorized_backward_stride_1(x, *fixed, dy, dx, dw, 3, 1)

    dense = DenseConvolution(case)
    forward()
    backward()
    close("sparseprop's convolution", y.transpose(3, 1, 2, 0), dense.forward().numpy())
    close("sparseprop's convolution, dX", dx.transpose(3, 1, 2, 0), dense.input_gradient().numpy())
    return {"forward": {SPARSEPROP: forward}, "backward (dX and dW)": {SPARSEPROP: backward}}
