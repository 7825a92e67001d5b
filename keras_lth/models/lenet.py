"""LeNet-300-100, the fully connected network of the first lottery ticket experiments."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_lth.arguments import is_whole

_WIDTHS = {"fc1": 300, "fc2": 100}


def lenet_300_100(
    input_shape: Sequence[int],
    classes: int = 10,
    *,
    seed: int,
    initializer: Callable[[int], Any] | None = None,
) -> keras.Model:
    """Build Flatten, dense 300 and 100 with ReLU, dense `classes` (logits); layers "fc1", "fc2", "output".

    On 28×28 images it has 266 610 parameters, of which the 266 200 weights of the kernels are prunable (thesis, table
    4.1: 266 K).

    Kernels are Glorot normal, biases zero: J. Frankle and M. Carbin, "The lottery ticket hypothesis", ICLR 2019, and
    their TensorFlow code (xavier_initializer, not uniform). The thesis names no initialisation for LeNet: it adapts the
    setting from chapter 3, the first paper's (table 4.1), and states He initialisation for chapter 5 only (5.5.4).
    open_lth uses He normal here too: `initializer=he_normal`.

    Args:
        input_shape: shape of one example, without the batch: (28, 28, 1), (8, 8, 1), (784,), …
        classes: width of the output layer, at least 1.
        seed: ≥ 0. Each kernel's seed is a SHA-256 of (seed, layer name): the network is the same on every machine, and
            differs for another seed.
        initializer: seed → Keras initialiser for the kernels; None for `glorot_normal`.

    Raises:
        ValueError: if a size of input_shape, classes or seed is out of range.
    """
    shape = tuple(input_shape)
    if not shape or any(not is_whole(size, 1) for size in shape):
        raise ValueError(f"lenet_300_100: input_shape must be the sizes of one example, all at least 1, got {shape}")
    if not is_whole(classes, 1):
        raise ValueError(f"lenet_300_100: classes must be an integer of at least 1, got {classes!r}")
    if not is_whole(seed, 0):
        raise ValueError(f"lenet_300_100: seed must be an integer of at least 0, got {seed!r}")
    shape, classes, seed = tuple(int(size) for size in shape), int(classes), int(seed)
    sample = glorot_normal if initializer is None else initializer

    inputs = keras.Input(shape)
    x = keras.layers.Flatten(name="flatten")(inputs)
    for name, width in _WIDTHS.items():
        x = keras.layers.Dense(width, "relu", kernel_initializer=sample(layer_seed(seed, name)), name=name)(x)
    outputs = keras.layers.Dense(classes, kernel_initializer=sample(layer_seed(seed, "output")), name="output")(x)
    return keras.Model(inputs, outputs, name="lenet_300_100")


def glorot_normal(seed: int) -> Any:
    """Return a truncated normal of variance 2/(fan in + fan out): X. Glorot and Y. Bengio, AISTATS 2010."""
    return keras.initializers.GlorotNormal(seed)


def he_normal(seed: int) -> Any:
    """Return a normal, not truncated, of variance 2/fan in: K. He et al., ICCV 2015; open_lth's kaiming_normal."""
    return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal", seed)


def layer_seed(seed: int, name: str) -> int:
    """Return 31 bits of SHA-256 of "seed/name": stable between processes and machines, unlike `hash`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
