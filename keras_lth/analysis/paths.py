"""Paths from inputs to outputs: which weights lie on one, and their norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.criteria.synflow import Flow
from keras_lth.masks import Masks
from keras_lth.surgery import check_built, check_model, masks_of, prunable, whole
from keras_lth.surgery.apart import apart, ones_for, undrawn
from keras_lth.surgery.kinds import DENSE, PRUNED, UNKNOWN, classified
from keras_lth.surgery.masking import resolve

__all__ = ["Effective", "effective", "path_norm"]

_layers = keras.layers
# What passes each value on.
_IDENTITY: tuple[Any, ...] = (
    _layers.BatchNormalization, _layers.LayerNormalization, _layers.GroupNormalization, _layers.UnitNormalization,
    _layers.Activation, _layers.ReLU, _layers.LeakyReLU, _layers.PReLU, _layers.ELU, _layers.Softmax,
    _layers.Dropout, _layers.SpatialDropout1D, _layers.SpatialDropout2D, _layers.SpatialDropout3D,
    _layers.AlphaDropout, _layers.GaussianDropout, _layers.GaussianNoise, _layers.ActivityRegularization,
    _layers.Rescaling, _layers.Normalization,
    *(getattr(_layers, name) for name in ("RMSNormalization",) if hasattr(_layers, name)),
)  # fmt: skip
# What sums with weights ≥ 0, moves or copies values.
_LINEAR: tuple[Any, ...] = (
    _layers.Dense, _layers.EinsumDense, _layers.Conv1D, _layers.Conv2D, _layers.Conv3D, _layers.Conv1DTranspose,
    _layers.Conv2DTranspose, _layers.Conv3DTranspose, _layers.DepthwiseConv1D, _layers.DepthwiseConv2D,
    _layers.SeparableConv1D, _layers.SeparableConv2D, _layers.Add, _layers.Average, _layers.Concatenate,
    _layers.Multiply, _layers.Dot, _layers.Flatten, _layers.Reshape, _layers.Permute, _layers.RepeatVector,
    _layers.ZeroPadding1D, _layers.ZeroPadding2D, _layers.ZeroPadding3D, _layers.Cropping1D, _layers.Cropping2D,
    _layers.Cropping3D, _layers.UpSampling1D, _layers.UpSampling2D, _layers.UpSampling3D, _layers.AveragePooling1D,
    _layers.AveragePooling2D, _layers.AveragePooling3D, _layers.GlobalAveragePooling1D,
    _layers.GlobalAveragePooling2D, _layers.GlobalAveragePooling3D, _layers.InputLayer, _layers.Identity,
)  # fmt: skip
_WINDOWS: tuple[Any, ...] = (_layers.MaxPooling1D, _layers.MaxPooling2D, _layers.MaxPooling3D)
_WHOLE: tuple[Any, ...] = (_layers.GlobalMaxPooling1D, _layers.GlobalMaxPooling2D, _layers.GlobalMaxPooling3D)
_OPAQUE: tuple[Any, ...] = (_layers.RNN, _layers.MultiHeadAttention, _layers.Attention, _layers.Wrapper)


@dataclass(frozen=True)
class Effective:
    """What `effective` returns.

    Attributes:
        masks: the masks that were asked about.
        on_paths: those of the remaining weights that lie on a path from an input to an output.
        outputs: how many outputs a path reaches, and how many there are.
    """

    masks: Masks
    on_paths: Masks
    outputs: tuple[int, int]

    @property
    def density(self) -> float:
        """Return the effective density: weights on paths over all weights."""
        return self.on_paths.density

    @property
    def connected(self) -> bool:
        """Return whether a path leads from an input to an output, be it through shortcuts without weights."""
        return self.outputs[0] > 0

    @property
    def severed(self) -> tuple[str, ...]:
        """Return the layers of which weights remain, but none on a path."""
        return tuple(path for path in self.on_paths.empty if self.masks[path].any())

    def __str__(self) -> str:
        lost = self.masks.remaining - self.on_paths.remaining
        severed = f"; severed: {', '.join(self.severed)}" if self.severed else ""
        return (
            f"density {self.masks.density:.3%}, effective {self.density:.3%}: {lost:,} of {self.masks.remaining:,} "
            f"remaining weights lie on no path; {self.outputs[0]} of {self.outputs[1]} outputs are reached{severed}"
        )


def effective(
    model: keras.Model, masks: Mapping[str, Any] | None = None, *, input_shape: Sequence[Any] | None = None
) -> Effective:
    """Find the remaining weights on a path from an input to an output: the others compute nothing (effective density).

    Paths are followed through the model itself, position by position: shortcuts, concatenations, pooling, padding,
    strides, flattening. Normalisations, activations and dropout pass values on; biases are not inputs. Weights outside
    of ``masks`` count as there.

    Args:
        model: a built model of layers that are not recurrent and without attention. It does not change.
        masks: path → boolean array; None for those of the model.
        input_shape: the shape of one example, or a list of one for each input; None for that of the model.

    Raises:
        ValueError: a layer through which paths are not known; names it. No masks, other paths or shapes.
    """
    check_model(model)
    check_built(model)
    with whole(model, run=True):
        given = masks_of(model) if masks is None else Masks(resolve(model, masks))
        if not given:
            given = Masks.ones({path: tuple(v.shape) for path, v in prunable(model).items()})
        kinds = classified(model)
        values, watched = [], {}
        for entry, kind in kinds:
            if kind in (*PRUNED, *DENSE, UNKNOWN):
                mask = given.get(entry.path)
                value = tf.ones(entry.variable.shape) if mask is None else tf.constant(mask, tf.float32)
                values.append((entry.variable, value))
                if mask is not None:
                    watched[entry.path] = value
            elif kind == "bias":
                values.append((entry.variable, tf.zeros(entry.variable.shape)))
        inputs = ones_for(model, input_shape)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(watched.values()))
            with undrawn(model), apart(model, values, wrap=_reaching, dtype="float32"):
                found = [_reach(tf.cast(one, tf.float32)) for one in keras.tree.flatten(model(inputs, training=False))]
            total = tf.add_n([tf.reduce_sum(one) for one in found])
        gradients = tape.gradient(total, watched, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    on_paths = {
        path: np.asarray(tf.convert_to_tensor(gradients[path])) > 0 if path in gradients else mask
        for path, mask in given.items()
    }
    return Effective(
        given,
        Masks({path: on_paths[path] & mask for path, mask in given.items()}),
        (int(total), sum(int(tf.size(one)) for one in found)),
    )


def path_norm(
    model: keras.Model,
    masks: Mapping[str, Any] | None = None,
    p: float = 2.0,
    *,
    input_shape: Sequence[Any] | None = None,
) -> float:
    """Return (Σ over paths Π |w|^p)^(1/p), over all paths from inputs and biases to outputs.

    B. Neyshabur et al., "Norm-based capacity control in neural networks", 2015. It is computed in float64, as SynFlow's
    sum with weights |w|^p: ``p=1`` without normalisation is that sum. Normalisations scale by |γ| / σ, σ from their
    statistics, without the shift by the mean.

    Args:
        model: a built model. It does not change.
        masks: which weights remain; None for the model's masks.
        p: at least 1.
        input_shape: as in `effective`.

    Raises:
        ValueError: a p below 1; as in `criteria.SynFlow`.
    """
    if not p >= 1:
        raise ValueError(f"p must be at least 1, not {p!r}")
    check_model(model)
    with whole(model, run=True):
        weights = prunable(model)
        ones = Masks.ones({path: tuple(v.shape) for path, v in weights.items()})
        given = masks_of(model) if masks is None else Masks(resolve(model, masks))
        total, _ = Flow(model, weights, input_shape, power=p)({path: given.get(path, ones[path]) for path in weights})
    return total ** (1 / p)


@tf.custom_gradient
def _reach(x: Any) -> tuple[Any, Callable[[Any], Any]]:
    """1 where a path leads to, else 0; backwards 1 where it also leads on to an output."""
    on = tf.cast(x > 0, x.dtype)
    return on, lambda upstream: on * tf.cast(upstream > 0, x.dtype)


def _reaching(path: str, layer: Any, call: Callable[..., Any]) -> Callable[..., Any] | None:
    """What a layer does with 0 and 1."""
    if isinstance(layer, _IDENTITY):
        return lambda inputs, *args, **kwargs: inputs
    if isinstance(layer, _WINDOWS):
        options = (layer.pool_size, layer.strides, layer.padding, layer.data_format)
        return lambda inputs, *args, **kwargs: _reach(keras.ops.average_pool(inputs, *options))
    if isinstance(layer, _WHOLE):
        last = layer.data_format == "channels_last"
        keep = layer.keepdims

        def over(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            axes = tuple(range(1, inputs.shape.rank - 1)) if last else tuple(range(2, inputs.shape.rank))
            return _reach(tf.reduce_mean(inputs, axes, keepdims=keep))

        return over
    if isinstance(layer, (_layers.Maximum, _layers.Minimum)):
        joined = tf.add_n if isinstance(layer, _layers.Maximum) else lambda parts: math.prod(parts[1:], start=parts[0])
        return lambda inputs, *args, **kwargs: _reach(joined(list(inputs)))
    if isinstance(layer, _layers.Embedding):
        # Any row may be read.
        return lambda inputs, *args, **kwargs: _reach(
            tf.ones([*inputs.shape, 1]) * tf.reduce_sum(tf.convert_to_tensor(layer.embeddings), 0)
        )
    if isinstance(layer, _LINEAR):
        return lambda *args, **kwargs: _linear(layer, call, *args, **kwargs)
    inner = bool(layer._layers) and not isinstance(layer, _OPAQUE)
    if not isinstance(layer, keras.Model) and not inner:
        raise ValueError(
            f"how paths run through layer {path!r} ({type(layer).__name__}) is not known: effective density takes "
            "dense layers, convolutions, pooling, normalisation, activations and merges"
        )
    return None


def _linear(layer: Any, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    held = vars(layer)
    before = held.get("activation")
    if "activation" in held:
        held["activation"] = None
    try:
        return keras.tree.map_structure(_reach, call(*args, **kwargs))
    finally:
        if "activation" in held:
            held["activation"] = before
