"""Residual networks: those for images of CIFAR's size, wide ones among them, and those for ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_lth.models.parts import Parts

# Depth: blocks of each stage; from 50 layers on blocks are bottlenecks.
_IMAGENET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def resnet_20(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build ResNet-20: a convolution, nine blocks in stages of 16, 32 and 64 channels, mean pooling, a dense layer.

    It returns logits. With three channels and ten classes it has 274 042 parameters (thesis, table 4.1: 274 K): 272 474
    are trained, of which the 270 896 weights of the kernels are prunable, and 1 568 are statistics of the
    normalisations. `resnet_cifar` says what it is made of.

    Args:
        input_shape: shape of one image: (height, width, channels).
        classes: width of the output layer, at least 1.
        seed: ≥ 0. Each layer's seed is a SHA-256 of (seed, layer name).
        options: of `keras_lth.models.parts`, such as mean, std and weight_decay.

    Raises:
        ValueError: an argument is out of range; names it.
    """
    return _cifar("resnet_20", 20, 16, input_shape, classes, seed, options)


def resnet_32(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build `resnet_cifar` with 32 layers; 466 906 trained parameters."""
    return _cifar("resnet_32", 32, 16, input_shape, classes, seed, options)


def resnet_56(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build `resnet_cifar` with 56 layers; 855 770 trained parameters."""
    return _cifar("resnet_56", 56, 16, input_shape, classes, seed, options)


def resnet_110(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build `resnet_cifar` with 110 layers; 1 730 714 trained parameters."""
    return _cifar("resnet_110", 110, 16, input_shape, classes, seed, options)


def wrn_14_8(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build WRN-14-8: `resnet_cifar` with 14 layers, 8 times as wide; 11 093 130 trained parameters.

    The thesis counts the layers of a wide network as those of a ResNet (5.3.3): its WRN-14-8, WRN-14-10 and WRN-20-8
    are the WRN-16-8, WRN-16-10 and WRN-22-8 of N. Lee et al., "SNIP", ICLR 2019, who count both shortcuts. They are not
    the networks of S. Zagoruyko and N. Komodakis, "Wide residual networks", 2016, which normalise before they convolve.
    """
    return _cifar("wrn_14_8", 14, 8 * 16, input_shape, classes, seed, options)


def wrn_14_10(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build WRN-14-10, as `wrn_14_8`; 17 327 530 trained parameters."""
    return _cifar("wrn_14_10", 14, 10 * 16, input_shape, classes, seed, options)


def wrn_20_8(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build WRN-20-8, as `wrn_14_8`; 17 289 866 trained parameters."""
    return _cifar("wrn_20_8", 20, 8 * 16, input_shape, classes, seed, options)


def wrn_32_2(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build WRN-32-2, as `wrn_14_8`: ResNet-32 of twice the width; 1 860 522 trained parameters.

    C. Wang et al., "Picking winning tickets before training by preserving gradient flow", ICLR 2020, call it ResNet-32
    (thesis, 5.4.3).
    """
    return _cifar("wrn_32_2", 32, 2 * 16, input_shape, classes, seed, options)


def resnet_cifar(
    input_shape: Sequence[int], classes: int = 10, *, seed: int, depth: int, width: int = 16, **options: Any
) -> keras.Model:
    """Build a residual network for images of CIFAR's size: a convolution, three stages of blocks, a dense layer.

    It returns logits. The source is K. He et al., "Deep residual learning for image recognition", CVPR 2016, section
    4.2, in the thesis' variant, as in its code open_lth: at the start of a stage the shortcut is a 1×1 convolution with
    normalisation (thesis, 5.9), not a padding with zeros; kernels are He normal by fan-in, the scales γ of
    normalisations uniform in [0, 1) (thesis, 5.5.4); statistics move by 0.1 per step, ε is 1e-5. Strided convolutions
    pad both sides equally. Biases are 0.

    Layers are named "conv", "stage2_block1_conv1", "stage2_block1_shortcut_conv", …, "output".

    Args:
        input_shape: shape of one image: (height, width, channels).
        classes: width of the output layer, at least 1.
        seed: ≥ 0. Each layer's seed is a SHA-256 of (seed, layer name).
        depth: 6n + 2 layers: n blocks of two convolutions in each stage; shortcuts are not counted.
        width: channels of the first convolution and stage; the other stages have two and four times as many.
        options: of `keras_lth.models.parts`.

    Raises:
        ValueError: an argument is out of range; names it.
    """
    return _cifar("resnet_cifar", depth, width, input_shape, classes, seed, options)


def resnet_18(input_shape: Sequence[int], classes: int = 1000, *, seed: int, **options: Any) -> keras.Model:
    """Build `resnet_imagenet` with 18 layers; 11 689 512 trained parameters."""
    return _imagenet("resnet_18", 18, input_shape, classes, seed, options)


def resnet_34(input_shape: Sequence[int], classes: int = 1000, *, seed: int, **options: Any) -> keras.Model:
    """Build `resnet_imagenet` with 34 layers; 21 797 672 trained parameters."""
    return _imagenet("resnet_34", 34, input_shape, classes, seed, options)


def resnet_50(input_shape: Sequence[int], classes: int = 1000, *, seed: int, **options: Any) -> keras.Model:
    """Build `resnet_imagenet` with 50 layers; 25 557 032 trained parameters (thesis, table 4.1: 25.5 M)."""
    return _imagenet("resnet_50", 50, input_shape, classes, seed, options)


def resnet_101(input_shape: Sequence[int], classes: int = 1000, *, seed: int, **options: Any) -> keras.Model:
    """Build `resnet_imagenet` with 101 layers; 44 549 160 trained parameters."""
    return _imagenet("resnet_101", 101, input_shape, classes, seed, options)


def resnet_152(input_shape: Sequence[int], classes: int = 1000, *, seed: int, **options: Any) -> keras.Model:
    """Build `resnet_imagenet` with 152 layers; 60 192 808 trained parameters."""
    return _imagenet("resnet_152", 152, input_shape, classes, seed, options)


def wrn_50_2(input_shape: Sequence[int], classes: int = 1000, *, seed: int, **options: Any) -> keras.Model:
    """Build WRN-50-2: `resnet_50` whose blocks have twice the channels inside; 68 883 240 trained parameters.

    S. Zagoruyko and N. Komodakis, "Wide residual networks", 2016, table 9; torchvision's wide_resnet50_2.
    """
    return _imagenet("wrn_50_2", 50, input_shape, classes, seed, options, inside=2)


def resnet_18_modified(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build `resnet_18` for small images: the first convolution is 3×3 without stride, and no max-pool follows.

    Of 10 classes 11 173 962 parameters are trained, of 200 classes 11 271 432.

    It is the ResNet-18 (Modified) of the thesis (5.5.3) for CIFAR-10 and TinyImageNet, after H. Tanaka et al.,
    "Pruning neural networks without any data by iteratively conserving synaptic flow", NeurIPS 2020. Their code takes
    kernels by fan-out and scales of 1: `initializer="he_normal_fan_out", gamma="ones"`.
    """
    return _imagenet("resnet_18_modified", 18, input_shape, classes, seed, options, small=True)


def resnet_34_modified(input_shape: Sequence[int], classes: int = 10, *, seed: int, **options: Any) -> keras.Model:
    """Build `resnet_34` for small images, as `resnet_18_modified`; 21 282 122 trained parameters."""
    return _imagenet("resnet_34_modified", 34, input_shape, classes, seed, options, small=True)


def resnet_imagenet(
    input_shape: Sequence[int],
    classes: int = 1000,
    *,
    seed: int,
    depth: int,
    width: int = 64,
    inside: int = 1,
    small: bool = False,
    **options: Any,
) -> keras.Model:
    """Build a residual network for ImageNet: a convolution, a max-pool, four stages of blocks, a dense layer.

    It returns logits. The source is K. He et al., "Deep residual learning for image recognition", CVPR 2016, table 1,
    as torchvision has it: a stage strides in the 3×3 convolution of its first block, and shortcuts that change the
    shape are 1×1 convolutions with normalisation. Initial values are those of the thesis (5.5.4) and its code open_lth:
    He normal by fan-in, scales γ uniform in [0, 1). torchvision's are `initializer="he_normal_fan_out", gamma="ones"`.

    Layers are named "conv", "pool", "stage1_block1_conv1", "stage1_block1_shortcut_conv", …, "output".

    Args:
        input_shape: shape of one image: (height, width, channels).
        classes: width of the output layer, at least 1.
        seed: ≥ 0. Each layer's seed is a SHA-256 of (seed, layer name).
        depth: 18, 34, 50, 101 or 152 layers; shortcuts are not counted.
        width: channels of the first convolution and stage; later stages have two, four and eight times as many.
        inside: how many times as many channels the inner convolutions of bottlenecks have; depth 50 and above.
        small: whether the first convolution is 3×3 without stride, and no max-pool follows.
        options: of `keras_lth.models.parts`.

    Raises:
        ValueError: an argument is out of range; names it.
    """
    return _imagenet("resnet_imagenet", depth, input_shape, classes, seed, options, width, inside, small)


def _cifar(
    network: str, depth: int, width: int, input_shape: Sequence[int], classes: int, seed: int, options: Any
) -> keras.Model:
    parts = Parts(network, input_shape, classes, seed, options)
    blocks, rest = divmod(parts.whole("depth", depth, 8) - 2, 6)
    if rest:
        near = ", ".join(str(6 * n + 2) for n in (blocks, blocks + 1))
        raise ValueError(f"{network}: depth must be 6n + 2, such as {near}, got {depth}")
    width = parts.whole("width", width)
    return _staged(parts, parts.conv_norm(parts.inputs(), "", width, 3), width, (blocks,) * 3)


def _imagenet(
    network: str,
    depth: int,
    input_shape: Sequence[int],
    classes: int,
    seed: int,
    options: Any,
    width: int = 64,
    inside: int = 1,
    small: bool = False,
) -> keras.Model:
    parts = Parts(network, input_shape, classes, seed, options)
    if depth not in _IMAGENET:
        raise ValueError(f"{network}: depth must be one of {', '.join(map(str, _IMAGENET))}, got {depth!r}")
    width, inside = parts.whole("width", width), parts.whole("inside", inside)
    if inside > 1 and depth < 50:
        raise ValueError(f"{network}: inside must be 1 below depth 50, where blocks are not bottlenecks, got {inside}")
    x = parts.conv_norm(parts.inputs(), "", width, *((3,) if small else (7, 2)))
    x = x if small else parts.max_pool(x, "pool", 3, pad=1)
    return _staged(parts, x, width, _IMAGENET[depth], inside if depth >= 50 else 0)


def _staged(parts: Parts, x: Any, width: int, stages: Sequence[int], inside: int = 0) -> keras.Model:
    """Add stages of so many blocks, each stage of twice the channels, and the last layers; `inside`: of bottlenecks."""
    for stage, blocks in enumerate(stages):
        channels, inner = width * 2**stage, width * 2**stage * inside
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            convolutions = [(channels, 3, stride), (channels, 3, 1)]
            if inside:
                convolutions = [(inner, 1, 1), (inner, 3, stride), (4 * channels, 1, 1)]
            x = _block(parts, x, f"stage{stage + 1}_block{block + 1}_", convolutions, stride)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return parts.model(parts.dense(x, "output", parts.classes))


def _block(parts: Parts, x: Any, name: str, convolutions: Sequence[tuple[int, int, int]], stride: int) -> Any:
    """Add a block of (channels, size, stride) to its input, or to a convolution of it where it changes the shape."""
    y, last, channels = x, len(convolutions), convolutions[-1][0]
    for number, convolution in enumerate(convolutions, 1):
        y = parts.conv_norm(y, name, *convolution, number=str(number), relu=number < last)
    if stride > 1 or x.shape[-1] != channels:
        x = parts.conv_norm(x, f"{name}shortcut_", channels, 1, stride, relu=False)
    return keras.layers.ReLU(name=f"{name}relu{last}")(keras.layers.Add(name=f"{name}add")([x, y]))
