"""AlexNet, in its form for one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_lth.models.parts import Parts

# Channels, size, stride, zeros on each side, whether a max-pool follows.
_CONVOLUTIONS = (
    (64, 11, 4, 2, True),
    (192, 5, 1, None, True),
    (384, 3, 1, None, False),
    (256, 3, 1, None, False),
    (256, 3, 1, None, True),
)


def alexnet(input_shape: Sequence[int], classes: int = 1000, *, seed: int, **options: Any) -> keras.Model:
    """Build AlexNet: five convolutions, three of them with a max-pool, dense 4096 and 4096, a dense layer; logits.

    With 224×224×3 images and 1000 classes it has 61 100 840 parameters. Another size of image changes the first dense
    layer. Layers are named "conv1", "pool1", …, "fc1", "fc2", "output".

    A. Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", NeurIPS 2012, in the form
    of A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, as torchvision has it: no
    groups and no normalisation, and dropout before both hidden dense layers. Kernels are He normal by fan-in, biases 0.

    Args:
        input_shape: shape of one image: (height, width, channels), at least 63×63.
        classes: width of the output layer, at least 1.
        seed: ≥ 0. Each layer's seed is a SHA-256 of (seed, layer name).
        options: of `keras_lth.models.parts`.

    Raises:
        ValueError: an argument is out of range; names it.
    """
    parts = Parts("alexnet", input_shape, classes, seed, options, least=63)
    x = parts.inputs()
    for number, (channels, size, stride, pad, pools) in enumerate(_CONVOLUTIONS, 1):
        x = parts.conv(x, f"conv{number}", channels, size, stride, pad=pad, activation="relu")
        x = parts.max_pool(x, f"pool{number}", 3) if pools else x
    x = keras.layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = parts.dense(parts.dropped(x, f"dropout{number}"), f"fc{number}", 4096, "relu")
    return parts.model(parts.dense(x, "output", parts.classes))
