"""What layers read: the inputs of the layers that own weights, batch by batch, in inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.surgery import batches
from keras_lth.surgery.apart import apart, undrawn
from keras_lth.surgery.paths import entries

__all__ = ["inputs_of", "unfolded"]

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


def inputs_of(
    model: keras.Model, weights: Mapping[str, keras.Variable], x: Any, batch_size: int | None
) -> Iterator[tuple[str, Any, tf.Tensor]]:
    """Return (weight path, its layer, the input of the layer) for each batch and each call of the layer.

    Raises:
        ValueError: a weight that is not a kernel of a Dense layer or of a convolution (channels last, without groups).
    """
    owners = {id(entry.variable): entry.layer for entry in entries(model)}
    by_layer: dict[int, str] = {}
    for path, variable in weights.items():
        layer = owners[id(variable)]
        plain = isinstance(layer, keras.layers.Dense) or (
            isinstance(layer, _CONVOLUTIONS) and layer.data_format == "channels_last" and layer.groups == 1
        )
        if not plain:
            raise ValueError(
                f"{path!r} belongs to a layer of {type(layer).__name__}: this criterion knows Dense layers and "
                "convolutions with the channels last and without groups; exclude it"
            )
        by_layer[id(layer)] = path
    for batch in batches(x, batch_size=batch_size):
        found: list[tuple[str, Any, tf.Tensor]] = []

        def record(path: str, layer: Any, call: Any, found: list[tuple[str, Any, tf.Tensor]] = found) -> Any:
            if id(layer) not in by_layer:
                return None

            def called(inputs: Any, *args: Any, **kwargs: Any) -> Any:
                found.append((by_layer[id(layer)], layer, inputs))
                return call(inputs, *args, **kwargs)

            return called

        with undrawn(model), apart(model, wrap=record):
            model(batch[0], training=False)
        yield from found


def unfolded(layer: Any, inputs: Any) -> np.ndarray:
    """Return what each output of a layer is a product of, float64 of shape [rows, kernel's inputs].

    Raises:
        ValueError: a convolution over other than two axes.
    """
    x = tf.cast(inputs, tf.float64)
    if isinstance(layer, _CONVOLUTIONS):
        if not isinstance(layer, keras.layers.Conv2D):
            raise ValueError(
                f"layer {layer.name!r} is a {type(layer).__name__}: only 2-D convolutions are known; exclude it"
            )
        x = tf.image.extract_patches(
            x,
            sizes=[1, *layer.kernel_size, 1],
            strides=[1, *layer.strides, 1],
            rates=[1, *layer.dilation_rate, 1],
            padding=layer.padding.upper(),
        )
    return np.asarray(tf.reshape(x, [-1, x.shape[-1]]))
