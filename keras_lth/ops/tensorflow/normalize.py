"""Batch normalisation in training, with a residual and ReLU behind it, as two ops on the CPU, and their gradients; and
the gradient of a max pooling.

The statistics are taken apart from the normalisation, so that whoever comes later, the ReLU behind a sum, can still say
how the result is made. The gradient is that of both: statistics are functions of x, not arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_lth.ops.tensorflow import library

__all__ = ["Normalized", "available", "max_pool", "moments"]


def available() -> bool:
    """Return whether the library of ops is there, and CPUs alone."""
    cpus = all(device.device_type == "CPU" for device in tf.config.list_logical_devices())
    return cpus and library.load() is not None


def moments(x: Any) -> tuple[Any, Any]:
    """Mean and variance, [channels], of float32 x [..., channels]; the variance is that of the samples, by n."""
    library.set_threads()
    mean, variance = _ops().keras_lth_moments(x=tf.stop_gradient(x))
    return mean, variance


@dataclass(frozen=True)
class Normalized:
    """What makes a normalised tensor: ``γ · (x − mean) · inverse + β``.

    Attributes:
      x: float32 [..., channels].
      mean, inverse: [channels], of x: its mean and 1 / its standard deviation. Their gradients are part of that of x.
      gamma, beta: [channels].
    """

    x: Any
    mean: Any
    inverse: Any
    gamma: Any
    beta: Any

    def result(self, residual: Any = None, relu: bool = False) -> Any:
        """Compute ``relu(normalised + residual)``, of the shape of x; differentiable twice for x, γ, β, residual."""
        return _ops().keras_lth_normalize(
            x=self.x,
            mean=self.mean,
            inverse=self.inverse,
            gamma=self.gamma,
            beta=self.beta,
            residual=[] if residual is None else [residual],
            relu=relu,
        )


def max_pool(x: Any, size: tuple[int, int]) -> Any:
    """Take the largest number of each window of ``size`` pixels, side by side; differentiable twice.

    Args:
      x: float32 [batch, height, width, channels]; height and width are multiples of ``size``.
      size: height and width of a window.

    Returns:
      float32 [batch, height / size[0], width / size[1], channels]. The gradient goes to the pixel that TensorFlow
      chooses too: the first one of several that are largest, or that is NaN at the head of its window.
    """
    library.set_threads()

    @tf.custom_gradient
    def run(x: Any) -> Any:
        given = tf.stop_gradient(x)
        return tf.nn.max_pool2d(x, size, size, "VALID"), lambda dy: _ops().keras_lth_max_pool_grad(x=given, dy=dy)

    return run(x)


@tf.RegisterGradient("KerasLthMaxPoolGrad")
def _of_max_pool_gradient(op: Any, g: Any) -> list[Any]:
    x, dy = op.inputs
    # 1 at the pixel of each window that takes its gradient: there the window's part of g lies.
    one = _ops().keras_lth_max_pool_grad(x=x, dy=tf.ones_like(dy))
    batch, rows, columns, channels = tf.unstack(tf.shape(dy))
    height, width = tf.shape(x)[1] // rows, tf.shape(x)[2] // columns
    windows = tf.reshape(g * tf.stop_gradient(one), [batch, rows, height, columns, width, channels])
    return [None, tf.reduce_sum(windows, [2, 4])]


def _ops() -> Any:
    loaded = library.load()
    assert loaded is not None, "a normalisation by a library that is not loaded"
    return loaded.ops


tf.no_gradient("KerasLthMoments")


@tf.RegisterGradient("KerasLthNormalize")
def _of_normalize(op: Any, dy: Any) -> list[Any]:
    relu = op.get_attr("relu")
    given, added = op.inputs[:5], len(op.inputs) > 5
    if not added:
        dx, dgamma, dbeta = _ops().keras_lth_normalize_grad(dy, *given, relu=relu)
        return [dx, None, None, dgamma, dbeta]
    dx, dgamma, dbeta, dresidual = _ops().keras_lth_normalize_add_grad(dy, *given, op.outputs[0], relu=relu)
    return [dx, None, None, dgamma, dbeta, dresidual]


@tf.RegisterGradient("KerasLthNormalizeGrad")
@tf.RegisterGradient("KerasLthNormalizeAddGrad")
def _of_gradient(op: Any, *gradients: Any) -> list[Any]:
    dy, x, _, inverse, gamma, beta, *y = op.inputs
    wanted = [dy, x, gamma]
    with tf.GradientTape() as tape:
        tape.watch(wanted)
        made = _gradients(dy, x, inverse, gamma, beta, y[0] if y else None, op.get_attr("relu"))[: len(op.outputs)]
    ddy, dx, dgamma = tape.gradient(made, wanted, output_gradients=list(gradients))
    return [ddy, dx, None, None, dgamma, None, *[None] * len(y)]


def _gradients(dy: Any, x: Any, inverse: Any, gamma: Any, beta: Any, y: Any, relu: bool) -> tuple[Any, ...]:
    """The gradients for x, γ, β and the residual in TensorFlow's ops; of these the statistics are functions of x."""
    axes = list(range(x.shape.rank - 1))
    mean, variance = tf.nn.moments(x, axes)
    epsilon = tf.stop_gradient(1.0 / tf.square(inverse) - variance)
    inverse = tf.math.rsqrt(variance + epsilon)
    normal = (x - mean) * inverse
    result = gamma * normal + beta if y is None else y
    g = tf.where(result > 0, dy, tf.zeros_like(dy)) if relu else dy
    dbeta, dgamma = tf.reduce_sum(g, axes), tf.reduce_sum(g * normal, axes)
    count = tf.cast(tf.size(x, tf.int64), tf.float32) / tf.cast(tf.size(gamma), tf.float32)
    return gamma * inverse * (g - (dbeta + normal * dgamma) / count), dgamma, dbeta, g
