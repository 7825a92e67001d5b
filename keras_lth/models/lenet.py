"""Networks for digits: fully connected ones, among them LeNet-300-100, and LeNet-5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_lth.models.parts import Parts, glorot_normal, he_normal, layer_seed

__all__ = ["glorot_normal", "he_normal", "layer_seed", "lenet_5", "lenet_300_100", "mlp"]


def lenet_300_100(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build Flatten, dense 300 and 100 with ReLU, dense `classes` (logits); layers "fc1", "fc2", "output".

    On 28×28 images it has 266 610 parameters, of which the 266 200 weights of the kernels are prunable (thesis, table
    4.1: 266 K).

    Kernels are Glorot normal, biases zero: J. Frankle and M. Carbin, "The lottery ticket hypothesis", ICLR 2019, and
    their TensorFlow code (xavier_initializer, not uniform). The thesis names no initialisation for LeNet: it adapts the
    setting from chapter 3, the first paper's (table 4.1), and states He initialisation for chapter 5 only (5.5.4).
    open_lth uses He normal here too: `initializer="he_normal"`.

    Args:
        input_shape: shape of one example, without the batch: (28, 28, 1), (8, 8, 1), (784,), …
        classes: width of the output layer, at least 1.
        seed: ≥ 0. Each kernel's seed is a SHA-256 of (seed, layer name): the network is the same on every machine, and
            differs for another seed.
        options: of `keras_lth.models.parts`.

    Raises:
        ValueError: if a size of input_shape, classes or seed is out of range.
    """
    return _mlp("lenet_300_100", (300, 100), input_shape, classes, seed, options)


def mlp(
    input_shape: Sequence[int], classes: int = 10, *, seed: int, widths: Sequence[int], **options: Any
) -> keras.Model:
    """Build Flatten, a dense layer with ReLU for each of `widths`, dense `classes` (logits).

    It is open_lth's mnist_lenet_N1_N2_…, with Glorot normal kernels as `lenet_300_100`, which is
    `mlp(widths=(300, 100))`. Layers are named "fc1", "fc2", …, "output".

    Raises:
        ValueError: an argument is out of range; names it.
    """
    return _mlp("mlp", widths, input_shape, classes, seed, options)


def lenet_5(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build LeNet-5: 5×5 convolutions to 20 and 50 channels, each with a max-pool, dense 500 with ReLU, a dense layer.

    It returns logits. On 28×28×1 images it has 431 080 parameters.

    It is the network that N. Lee et al., "SNIP", ICLR 2019, prune on MNIST (thesis, 5.3.3), as in their code and in
    Caffe's example. The network of Y. LeCun et al., 1998, is smaller. Convolutions do not pad and have no ReLU. Kernels
    are normal with variance 1/fan-in, truncated, as in SNIP's code.

    Raises:
        ValueError: an argument is out of range; names it.
    """
    parts = Parts("lenet_5", input_shape, classes, seed, options, least=16, initializer="lecun_normal")
    x = parts.inputs()
    for number, channels in enumerate((20, 50), 1):
        x = parts.max_pool(parts.conv(x, f"conv{number}", channels, 5, pad=0), f"pool{number}")
    x = keras.layers.Flatten(name="flatten")(x)
    return parts.model(parts.dense(parts.dense(x, "fc1", 500, "relu"), "output", parts.classes))


def _mlp(
    network: str, widths: Sequence[int], input_shape: Sequence[int], classes: int, seed: int, options: Any
) -> keras.Model:
    parts = Parts(network, input_shape, classes, seed, options, image=False, initializer="glorot_normal")
    x = keras.layers.Flatten(name="flatten")(parts.inputs())
    for number, width in enumerate(widths, 1):
        x = parts.dense(x, f"fc{number}", parts.whole("each of widths", width), "relu")
    return parts.model(parts.dense(x, "output", parts.classes))
