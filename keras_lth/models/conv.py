"""Conv-2, Conv-4, Conv-6 and Conv-8: plain convolutional networks for CIFAR-10, without normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_lth.models.parts import Parts

# Of each pair of convolutions.
_CHANNELS = (64, 128, 256, 512)


def conv_2(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build Conv-2: two 3×3 convolutions of 64 channels, a max-pool, dense 256 and 256, a dense layer; logits.

    With 32×32×3 images and ten classes it has 4 301 642 parameters.

    J. Frankle and M. Carbin, "The lottery ticket hypothesis", ICLR 2019, figure 2: a scaled-down VGG. All layers but
    the last have ReLU and a bias; kernels are Glorot normal. Layers are named "conv1", "pool1", "fc1", …, "output".

    Raises:
        ValueError: an argument is out of range; names it.
    """
    return _conv(1, input_shape, classes, seed, options)


def conv_4(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build Conv-4: `conv_2` with a second pair of convolutions, of 128 channels, and a pool; 2 425 930 parameters."""
    return _conv(2, input_shape, classes, seed, options)


def conv_6(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build Conv-6: `conv_4` with a third pair of convolutions, of 256 channels, and a pool; 2 262 602 parameters."""
    return _conv(3, input_shape, classes, seed, options)


def conv_8(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build Conv-8: `conv_6` with a fourth pair of convolutions, of 512 channels, and a pool; 5 278 282 parameters.

    The thesis uses Conv-8 (3.3.1) and does not describe it, and the first paper has none. This is a choice: the pattern
    continued, which is also the Conv8 of V. Ramanujan et al., "What's hidden in a randomly weighted neural network?",
    CVPR 2020.
    """
    return _conv(4, input_shape, classes, seed, options)


def _conv(pairs: int, input_shape: Sequence[int], classes: int, seed: int, options: Any) -> keras.Model:
    parts = Parts(f"conv_{2 * pairs}", input_shape, classes, seed, options, least=2**pairs, initializer="glorot_normal")
    x = parts.inputs()
    for pair, channels in enumerate(_CHANNELS[:pairs], 1):
        for number in (2 * pair - 1, 2 * pair):
            x = parts.conv(x, f"conv{number}", channels, 3, activation="relu")
        x = parts.max_pool(x, f"pool{pair}")
    x = keras.layers.Flatten(name="flatten")(x)
    for name in ("fc1", "fc2"):
        x = parts.dense(x, name, 256, "relu")
    return parts.model(parts.dense(x, "output", parts.classes))
