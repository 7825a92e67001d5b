"""ResNet-20, the residual network for images of CIFAR's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_lth.arguments import is_whole
from keras_lth.models.lenet import he_normal, layer_seed

_STAGES = {"stage1": 16, "stage2": 32, "stage3": 64}
_BLOCKS = 3


def resnet_20(
    input_shape: Sequence[int],
    classes: int = 10,
    *,
    seed: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    weight_decay: float = 0.0,
) -> keras.Model:
    """Build a convolution, nine blocks of two in stages of 16, 32 and 64 channels, mean pooling, a dense layer.

    It returns logits. With three channels and ten classes it has 274 042 parameters (thesis, table 4.1: 274 K): 272 474
    are trained, of which the 270 896 weights of the kernels are prunable, and 1 568 are statistics of the
    normalisations. Layers are named "conv", "stage2_block1_conv1", "stage2_block1_shortcut_conv", …, "output".

    K. He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2, in the thesis' variant, as in
    its code open_lth: at the start of a stage the shortcut is a 1×1 convolution with normalisation (thesis, 5.9), not a
    padding with zeros; kernels are He normal by fan-in, the scales γ of normalisations uniform in [0, 1) (thesis,
    5.5.4); statistics move by 0.1 per step, ε is 1e-5. Strided convolutions pad both sides equally. Biases are 0.

    Args:
        input_shape: shape of one image: (height, width, channels).
        classes: width of the output layer, at least 1.
        seed: ≥ 0. Each layer's seed is a SHA-256 of (seed, layer name).
        mean: mean of each channel; with `std`, the model itself computes (x − mean)/std, so a crop pads with black.
        std: deviation of each channel, above 0.
        weight_decay: λ ≥ 0; adds λ/2·‖w‖² of every trained variable to the loss, so λ·w to its gradient, as open_lth's
            SGD does. (Keras' optimisers decay outside the gradient.)

    Raises:
        ValueError: an argument is out of range; names it.
    """
    shape = tuple(input_shape)
    if len(shape) != 3 or any(not is_whole(size, 1) for size in shape):
        raise ValueError(f"resnet_20: input_shape must be (height, width, channels), all at least 1, got {shape}")
    if not is_whole(classes, 1):
        raise ValueError(f"resnet_20: classes must be an integer of at least 1, got {classes!r}")
    if not is_whole(seed, 0):
        raise ValueError(f"resnet_20: seed must be an integer of at least 0, got {seed!r}")
    shape, classes, seed = tuple(int(size) for size in shape), int(classes), int(seed)
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"resnet_20: weight_decay must be at least 0, got {weight_decay!r}")
    parts = _Parts(seed, weight_decay)

    inputs = keras.Input(shape)
    x = inputs if mean is None and std is None else _normalized(inputs, mean, std)
    x = keras.layers.ReLU(name="relu")(parts.conv_norm(x, "", 16, 3, 1))
    for stage, channels in _STAGES.items():
        for block in range(1, _BLOCKS + 1):
            begins = stage != "stage1" and block == 1
            x = parts.block(x, f"{stage}_block{block}_", channels, begins)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, parts.dense(x, "output", classes), name="resnet_20")


class _Parts:
    """Layers by name; the random numbers of a layer are a function of the seed and its name."""

    def __init__(self, seed: int, weight_decay: float) -> None:
        self.seed = seed
        self.decay = weight_decay

    def block(self, x: Any, name: str, channels: int, begins: bool) -> Any:
        stride = 2 if begins else 1
        y = keras.layers.ReLU(name=f"{name}relu1")(self.conv_norm(x, name, channels, 3, stride, "1"))
        y = self.conv_norm(y, name, channels, 3, 1, "2")
        if begins:
            x = self.conv_norm(x, f"{name}shortcut_", channels, 1, stride)
        return keras.layers.ReLU(name=f"{name}relu2")(keras.layers.Add(name=f"{name}add")([x, y]))

    def conv_norm(self, x: Any, name: str, channels: int, size: int, stride: int, number: str = "") -> Any:
        """A convolution without bias, then normalisation over the batch."""
        conv, norm = f"{name}conv{number}", f"{name}norm{number}"
        if size > 1 and stride > 1:
            # Keras' own "same" would pad an even image only at the lower right.
            x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}pad{number}")(x)
        padding = "same" if stride == 1 else "valid"
        x = keras.layers.Conv2D(
            channels, size, stride, padding, use_bias=False, kernel_initializer=he_normal(layer_seed(self.seed, conv)),
            kernel_regularizer=self._regularizer(), name=conv,
        )(x)  # fmt: skip
        return keras.layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5,
            gamma_initializer=keras.initializers.RandomUniform(0.0, 1.0, layer_seed(self.seed, norm)),
            gamma_regularizer=self._regularizer(), beta_regularizer=self._regularizer(), name=norm,
        )(x)  # fmt: skip

    def dense(self, x: Any, name: str, width: int) -> Any:
        return keras.layers.Dense(
            width, kernel_initializer=he_normal(layer_seed(self.seed, name)), kernel_regularizer=self._regularizer(),
            bias_regularizer=self._regularizer(), name=name,
        )(x)  # fmt: skip

    def _regularizer(self) -> Any:
        return keras.regularizers.L2(self.decay / 2) if self.decay else None


def _normalized(inputs: Any, mean: Sequence[float] | None, std: Sequence[float] | None) -> Any:
    channels = inputs.shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        if values is None or len(values) != channels or (name == "std" and min(values) <= 0):
            raise ValueError(
                f"resnet_20: {name} must have a number for each of {channels} channels{' above 0' * (name == 'std')}, "
                f"got {values!r}"
            )
    assert mean is not None and std is not None
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    return keras.layers.Rescaling([1 / s for s in std], offset, name="normalized")(inputs)
