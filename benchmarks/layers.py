"""Work of whole layers: one input row, a convolution, a training step through the TensorFlow ops."""

from __future__ import annotations

from collections.abc import Callable

import keras
import peers
import rows
import tensorflow as tf
from cases import Call, Convolution, Product, both, close
from turns import Effort, in_turns

from keras_lth import ops

DENSE = "TensorFlow's convolution"
Log = Callable[[str], None]
STEP_FLOOR = 6.0
CONV_FORWARD, CONV_BACKWARD = 4.0, 3.0
BYTES_SHARE = 0.8
# More than any cache holds, so that weights come from memory as those of a deep network do.
COLD_BYTES = 256 * 2**20


def one_row(side: int, threads: int, effort: Effort, log: Log) -> list[rows.Row]:
    """M = 1, bound by the bytes of W: the ratio of times beside the ratio of bytes."""
    log("M = 1")
    case = Product(1, side, side, (16, 16), 0.9)
    case.check()
    dense = peers.Dense(1, side, side)
    copies = min(64, max(1, COLD_BYTES // case.values.nbytes))
    layers = [case.forward(threads)]
    for _ in range(copies - 1):
        copy = Product.__new__(Product)
        copy.__dict__ = {**case.__dict__, "values": case.values.copy()}
        layers.append(copy.forward(threads))

    def deep() -> None:
        for layer in layers:
            layer()

    ms = in_turns({"ours": layers[0], "deep": deep, "dense": dense.forward}, effort)
    of_bytes = 4 * side * side / case.bytes
    note = f"bytes: {rows.number(of_bytes)} × fewer"
    return [
        rows.faster(f"M = 1, {case.name}", ours, peers.DENSE, ms["dense"], BYTES_SHARE * of_bytes, f"{note}; {how}")
        for how, ours in (
            ("one layer again and again", ms["ours"]),
            (f"{copies} layers in turn", ms["deep"] / copies),
        )
    ]


def through_the_op(m: int, side: int, threads: int, effort: Effort, log: Log) -> list[rows.Row]:
    """The product as a TensorFlow op in `tf.function`, beside the compiled function alone and the dense op."""
    log("through the TensorFlow op")
    case = Product(m, side, side, (16, 16), 0.9)
    dense = peers.Dense(m, side, side)
    x, values = tf.constant(case.x), tf.constant(case.values)
    product = tf.function(lambda x, values: ops.sparse_matmul(x, values, case.structure))
    close("sparse_matmul", product(x, values).numpy(), case.x @ case.dense)
    ms = in_turns(
        {"op": lambda: product(x, values), "core": case.forward(threads), "dense": dense.forward},
        effort,
    )
    work = f"{case.name}, forward, as a TensorFlow op"
    return [
        rows.faster(work, ms["op"], peers.DENSE, ms["dense"]),
        rows.faster(work, ms["op"], "our compiled function", ms["core"]),
    ]


class SparseDense(keras.layers.Layer):
    """`Dense` on the stored blocks of a kernel."""

    def __init__(self, case: Product) -> None:
        super().__init__()
        self.structure = case.structure
        constant = keras.initializers.Constant(case.values)
        self.stored = self.add_weight(shape=case.values.shape, initializer=constant, name="values")
        self.bias = self.add_weight(shape=(case.structure.cols,), initializer="zeros", name="bias")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return ops.sparse_matmul(x, self.stored, self.structure, bias=self.bias)


def step_of(layer: keras.layers.Layer, optimizer: keras.optimizers.Optimizer, x: tf.Tensor, target: tf.Tensor) -> Call:
    """Forward, the gradients of input, weights and bias, and the optimizer's update, as one `tf.function`."""
    optimizer.build(layer.trainable_variables)

    @tf.function
    def step(x: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(tf.square(layer(x) - target))
        variables = [variable.value for variable in layer.trainable_variables]
        dx, *gradients = tape.gradient(loss, [x, *variables])
        optimizer.apply(gradients, layer.trainable_variables)
        return loss, dx

    return lambda: step(x, target)


def training_step(m: int, side: int, effort: Effort, log: Log) -> list[rows.Row]:
    """A training step of `Dense(side)` by 16×16 blocks at 90 %, beside Keras' dense layer with the same weights."""
    case = Product(m, side, side, (16, 16), 0.9)
    x, target = tf.constant(case.x), tf.constant(case.dy)
    effort = effort._replace(slow_ms=1000.0)  # the dense layer is the slow one, and the peer
    result = []
    for name in ("SGD", "Adam"):
        log(f"training step, {name}")
        plain, sparse = keras.layers.Dense(side), SparseDense(case)
        plain.build(case.x.shape)
        plain.kernel.assign(case.dense)
        close("the layers' outputs", sparse(x).numpy(), plain(x).numpy())
        # A rate of 0 keeps the weights normal numbers however many steps are timed; the update's work is the same.
        optimizers = [getattr(keras.optimizers, name)(learning_rate=0.0) for _ in range(2)]
        steps = [step_of(layer, each, x, target) for layer, each in zip((sparse, plain), optimizers, strict=True)]
        (ours_loss, ours_dx), (loss, dx) = (step() for step in steps)
        close("the steps' losses", ours_loss.numpy(), loss.numpy())
        close("the steps' input gradients", ours_dx.numpy(), dx.numpy())
        ms = in_turns({"ours": steps[0], "dense": steps[1]}, effort)
        work = f"training step of Dense({side}), {case.name}, {name}, TensorFlow ops"
        result.append(rows.faster(work, ms["ours"], "keras.layers.Dense", ms["dense"], STEP_FLOOR))
    return result


def convolution(batch: int, side: int, channels: int, threads: int, effort: Effort, log: Log) -> list[rows.Row]:
    """3×3, stride 1, same padding, NHWC: single weights with their floors, and blocks of channels."""
    effort = effort._replace(slow_ms=1000.0)
    result = []
    for block, sparsity, floors in (((1, 1), 0.95, True), ((16, 16), 0.9, False)):
        case = Convolution(batch, side, channels, block, sparsity)
        dense = peers.DenseConvolution(case)
        dense.check(case)
        log(f"convolution, {case.name}")
        others = peers.convolution(case)
        for name, ours, theirs, floor in (
            ("forward", case.forward(threads), dense.forward, CONV_FORWARD),
            (
                "backward (dX and dW)",
                both(case.input_gradient(threads), case.weight_gradient(threads)),
                both(dense.input_gradient, dense.weight_gradient),
                CONV_BACKWARD,
            ),
            ("dX", case.input_gradient(threads), dense.input_gradient, None),
            ("dW", case.weight_gradient(threads), dense.weight_gradient, None),
        ):
            ms = in_turns({"ours": ours, DENSE: theirs, **others.get(name, {})}, effort)
            work = f"convolution 3×3, {channels} → {channels}, {side}×{side}, batch {batch}, {case.name}, {name}"
            result.append(rows.faster(work, ms["ours"], DENSE, ms[DENSE], floor if floors else None))
            result += [rows.faster(work, ms["ours"], other, ms[other], 1.0) for other in others.get(name, {})]
    return result
