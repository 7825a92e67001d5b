"""VGGs for images of CIFAR's size: normalised, with one dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_lth.models.parts import Parts

_CHANNELS = (64, 128, 256, 512, 512)
# Depth: convolutions of each stage.
_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg_11(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build VGG-11 as `vgg_16`; 9 231 114 trained parameters."""
    return _vgg(11, input_shape, classes, seed, options)


def vgg_13(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build VGG-13 as `vgg_16`; 9 416 010 trained parameters."""
    return _vgg(13, input_shape, classes, seed, options)


def vgg_16(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build VGG-16: thirteen 3×3 convolutions in five stages with max-pools between them, mean pooling, a dense layer.

    It returns logits. With three channels and ten classes 14 728 266 parameters are trained (thesis, table 4.1:
    14.7 M). Layers are named "stage1_conv1", "stage1_norm1", "stage1_relu1", "stage1_pool", …, "output".

    K. Simonyan and A. Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, in
    the form for CIFAR-10 of the thesis' code open_lth: each convolution has a bias and is normalised, and one dense
    layer follows the mean over the image. (Its code takes the mean of 2×2 windows, which is the whole of what five
    stages leave of 32×32.) Kernels are He normal by fan-in, scales γ uniform in [0, 1) (thesis, 5.5.4).

    Args:
        input_shape: shape of one image: (height, width, channels), at least 16×16.
        classes: width of the output layer, at least 1.
        seed: ≥ 0. Each layer's seed is a SHA-256 of (seed, layer name).
        options: of `keras_lth.models.parts`.

    Raises:
        ValueError: an argument is out of range; names it.
    """
    return _vgg(16, input_shape, classes, seed, options)


def vgg_19(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build VGG-19 as `vgg_16`; 20 040 522 trained parameters."""
    return _vgg(19, input_shape, classes, seed, options)


def _vgg(depth: int, input_shape: Sequence[int], classes: int, seed: int, options: Any) -> keras.Model:
    parts = Parts(f"vgg_{depth}", input_shape, classes, seed, options, least=16)
    x = parts.inputs()
    for stage, (channels, count) in enumerate(zip(_CHANNELS, _STAGES[depth], strict=True), 1):
        if stage > 1:
            x = parts.max_pool(x, f"stage{stage - 1}_pool")
        for number in range(1, count + 1):
            x = parts.conv_norm(x, f"stage{stage}_", channels, 3, number=str(number), bias=True)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return parts.model(parts.dense(x, "output", parts.classes))
