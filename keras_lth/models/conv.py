"""Conv-2, Conv-4, Conv-6, Conv-8 and narrow ones: plain convolutional networks for CIFAR-10, without normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_lth.arguments import is_whole
from keras_lth.models.parts import Parts

_WIDTH = 64
_MOST = 4


def conv_2(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build Conv-2: two 3×3 convolutions of 64 channels, a max-pool, dense 256 and 256, a dense layer; logits.

    With 32×32×3 images and ten classes it has 4 301 642 parameters.

    J. Frankle and M. Carbin, "The lottery ticket hypothesis", ICLR 2019, figure 2: a scaled-down VGG. All layers but
    the last have ReLU and a bias; kernels are Glorot normal. Layers are named "conv1", "pool1", "fc1", …, "output".

    Raises:
        ValueError: an argument is out of range; names it.
    """
    return _conv("conv_2", 1, _WIDTH, input_shape, classes, seed, options)


def conv_4(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build Conv-4: `conv_2` with a second pair of convolutions, of 128 channels, and a pool; 2 425 930 parameters."""
    return _conv("conv_4", 2, _WIDTH, input_shape, classes, seed, options)


def conv_6(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build Conv-6: `conv_4` with a third pair of convolutions, of 256 channels, and a pool; 2 262 602 parameters."""
    return _conv("conv_6", 3, _WIDTH, input_shape, classes, seed, options)


def conv_8(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build Conv-8: `conv_6` with a fourth pair of convolutions, of 512 channels, and a pool; 5 278 282 parameters.

    The thesis uses Conv-8 (3.3.1) and does not describe it, and the first paper has none. This is a choice: the pattern
    continued, which is also the Conv8 of V. Ramanujan et al., "What's hidden in a randomly weighted neural network?",
    CVPR 2020.
    """
    return _conv("conv_8", 4, _WIDTH, input_shape, classes, seed, options)


def conv_n(
    input_shape: Sequence[int], classes: int = 10, *, seed: int, pairs: int, width: int = _WIDTH, **options: Any
) -> keras.Model:
    """Build a network of the family of `conv_2`, of any width: Conv-4 of width 16 costs a sixteenth of Conv-4.

    Args:
        input_shape: shape of one image: (height, width, channels).
        classes: width of the output layer, at least 1.
        seed: ≥ 0. Each layer's seed is a SHA-256 of (seed, layer name).
        pairs: of convolutions, 1 to 4; pair n has width · 2ⁿ⁻¹ channels, and a pool.
        width: channels of the first pair; the dense layers have four times as many units.
        options: of `keras_lth.models.parts`.

    Raises:
        ValueError: an argument is out of range; names it.
    """
    if not is_whole(pairs, 1) or pairs > _MOST:
        raise ValueError(f"conv_n: pairs must be an integer from 1 to {_MOST}, got {pairs!r}")
    if not is_whole(width, 1):
        raise ValueError(f"conv_n: width must be an integer of at least 1, got {width!r}")
    return _conv("conv_n", pairs, width, input_shape, classes, seed, options)


def _conv(
    name: str, pairs: int, width: int, input_shape: Sequence[int], classes: int, seed: int, options: Any
) -> keras.Model:
    parts = Parts(name, input_shape, classes, seed, options, least=2**pairs, initializer="glorot_normal")
    x = parts.inputs()
    for pair in range(1, pairs + 1):
        for number in (2 * pair - 1, 2 * pair):
            x = parts.conv(x, f"conv{number}", width * 2 ** (pair - 1), 3, activation="relu")
        x = parts.max_pool(x, f"pool{pair}")
    x = keras.layers.Flatten(name="flatten")(x)
    for layer in ("fc1", "fc2"):
        x = parts.dense(x, layer, 4 * width, "relu")
    return parts.model(parts.dense(x, "output", parts.classes))
