"""Batch normalisation in one operation on a CPU: what Keras spells out as a dozen passes over the activations.

In training a sum and a ReLU that follow are part of it: the normalised tensor, and a sum of it, bear a mark of how they
are made, and a ReLU makes its result from that. In a graph nobody computes what is then not used. So a ReLU behind a
stored kernel becomes part of its product, too.

The gradient of max pooling is one pass over the activations, too. TensorFlow's own searches the windows again, one
number after the other.

Dropout under XLA can take longer than the products of a sparse layer, because of the generator that XLA has for it. It
draws from a faster one there.

A fused layer becomes of a subclass of its own class, with another `call`, as a masked variable does. It says that it
is of the class that it was, so it is saved, cloned and pickled as that.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_lth.ops.tensorflow import columns, normalize
from keras_lth.ops.tensorflow.xla import in_xla
from keras_lth.surgery.entry import check_built, check_model
from keras_lth.surgery.holders import trace_again
from keras_lth.surgery.paths import layers
from keras_lth.surgery.stored import kernels_of
from keras_lth.tables import html_table, text_table

__all__ = ["Fused", "become", "fuse", "mark", "plain_relu"]

_Norm: Any = keras.layers.BatchNormalization
_MARK = "_keras_lth_made"  # of a tensor: how it is made


@dataclass(frozen=True)
class Fused:
    """What `fuse` did; ``str()`` is a line for each BatchNormalization of the model, and a summary.

    Attributes:
        model: the model's name.
        layers: path of each layer → why it runs as Keras has it; "" where it is fused.
        note: what is to be known about the model's own steps; "" if nothing.
        dropouts: Dropout layers that draw from a faster generator in steps compiled by XLA.
        pools: MaxPooling2D layers whose gradient is an operation of the package, on images that their windows fill.
    """

    model: str
    layers: Mapping[str, str]
    note: str = ""
    dropouts: int = 0
    pools: int = 0

    @property
    def summary(self) -> str:
        """One line: how many layers are fused."""
        fused = sum(not reason for reason in self.layers.values())
        note = f"; {self.note}" if self.note and (fused or self.pools) else ""
        said = f"{fused} of {len(self.layers)} BatchNormalization layers of {self.model!r} are fused{note}"
        if self.pools:
            said += f"; {self.pools} MaxPooling2D layers have a faster gradient"
        return f"{said}; {self.dropouts} Dropout layers draw faster under XLA" if self.dropouts else said

    def __str__(self) -> str:
        return "\n".join([text_table(self._cells(), left=(0, 1)), self.summary])

    def _repr_html_(self) -> str:
        return html_table(self._cells(), note=self.summary)

    def _cells(self) -> list[tuple[str, ...]]:
        rows = [(path, f"Keras' own: {reason}" if reason else "fused") for path, reason in self.layers.items()]
        return [("layer", "runs"), *rows]


def fuse(model: keras.Model) -> Fused:
    """Let the BatchNormalization layers of ``model`` run by fused operations on CPUs, in place.

    In training and inference, equal to rounding, second derivatives and moving statistics included; an activation of
    3 axes or more, channels last, is normalised two to four times as fast. In training in float32 an addition of two
    tensors (Add) and a ReLU (ReLU, Activation) behind it are part of the operation. A MaxPooling2D whose windows lie
    side by side takes a gradient of the package, in float32 with the same bits. Weights, names, optimizer, masks and
    files stay as they are, and a saved or cloned model is a plain one: call ``fuse`` on it again. Functions that were
    traced before are traced again. Steps compiled by XLA (``compile``'s default) keep Keras' computation, which is as
    fast there: XLA takes the variance as a difference of large numbers. So compile with ``jit_compile=False``; the loop
    of `keras_lth.training` does so itself where a model has convolutions. In steps compiled by XLA, Dropout draws from
    ThreeFry instead, a faster generator with other random numbers.

    Args:
        model: a built model; a layer that other models share is fused there too. A second call changes nothing.

    Returns:
        Which layers are fused, which not and why: all of them are left where TensorFlow has a GPU or TPU.

    Raises:
        TypeError: an object that is not a Keras 3 model on TensorFlow.
        ValueError: a model that is not built.
    """
    check_model(model)
    check_built(model)
    found, changed = _fuse(model)
    if changed:
        # A layer without variables is in traces that hold others of the model.
        trace_again(variable for layer in changed for variable in layer.variables or model.variables)
    held = [layer for _, layer in layers(model)]
    dropouts, pools = (sum(isinstance(layer, cls) for layer in held) for cls in (_FusedDropout, _FusedMaxPool))
    xla = "steps that XLA compiles run as before: compile(jit_compile=False) lets them gain"
    return Fused(model.name, found, xla if getattr(model, "jit_compile", False) else "", dropouts, pools)


@contextlib.contextmanager
def fusing(model: keras.Model) -> Iterator[None]:
    """Let what is traced inside run as after `fuse`; the model and what was traced before stay as they are."""
    was = [(layer, type(layer)) for _, layer in layers(model)]
    try:
        _fuse(model)
        yield
    finally:
        for layer, cls in was:
            if type(layer) is not cls:
                # Not through the class itself, which answers with the one that it had.
                object.__dict__["__class__"].__set__(layer, cls)


def _fuse(model: keras.Model) -> tuple[dict[str, str], list[Any]]:
    """Fuse the layers of a model; return why each normalisation is not, and those that were changed."""
    found: dict[str, str] = {}
    changed = []
    for path, layer in layers(model):
        alone = _alone(layer)
        if alone is not None and not _accelerator():
            become(layer, alone)
            changed.append(layer)
        if isinstance(layer, _Norm):
            found[str(path)] = reason = _why_not(layer)
            if not reason and not isinstance(layer, _FusedNorm):
                become(layer, _FusedNorm)
                changed.append(layer)
    if not all(found.values()) or any(kernels_of(layer) for _, layer in layers(model)):
        for _, layer in layers(model):
            follower = _follower(layer)
            if follower is not None:
                become(layer, follower)
    return found, changed


class _FusedNorm(keras.layers.BatchNormalization):
    """What a fused layer does otherwise than its class."""

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """The class's own computation, or the fused one where it is the same and faster."""
        if mask is not None or tf.is_tensor(training) or not _fits(self, inputs):
            return super().call(inputs, training=training, mask=mask)
        trains = bool(training and self.trainable)
        if trains and not tf.executing_eagerly() and inputs.dtype != tf.bfloat16 and normalize.available():
            return self._train(inputs)
        # Half types are normalised in float32. The operation does so itself, in float16 slowly; and it returns its
        # input's type, which may be less than the layer's.
        native = inputs.dtype == tf.bfloat16 and self.compute_dtype == "bfloat16"
        x = inputs if native else tf.cast(inputs, tf.float32)
        if len(inputs.shape) != 4:
            x = tf.reshape(x, [-1, 1, 1, self.moving_mean.shape[0]])
        mean, variance = tf.cast(self.moving_mean, tf.float32), tf.cast(self.moving_variance, tf.float32)
        y, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self._gamma(),
            offset=self._beta(),
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=trains,
        )
        if trains:
            # The operation returns the estimate with n - 1, Keras keeps the one with n.
            n = tf.cast(tf.size(x, tf.int64) // mean.shape[0], tf.float32)
            self._move(batch_mean, batch_variance * ((n - 1.0) / n))
        return tf.cast(y if len(inputs.shape) == 4 else tf.reshape(y, tf.shape(inputs)), self.compute_dtype)

    def _train(self, inputs: Any) -> Any:
        """Normalise a batch in a graph, so that a sum and a ReLU behind it can be part of it."""
        x = tf.cast(inputs, tf.float32)
        mean, variance = normalize.moments(x)
        self._move(mean, variance)
        made = normalize.Normalized(x, mean, tf.math.rsqrt(variance + self.epsilon), self._gamma(), self._beta())
        y = tf.cast(made.result(), self.compute_dtype)
        if y.dtype == tf.float32:
            mark(y, functools.partial(made.result, relu=True), adds=True)
        return y

    def _gamma(self) -> Any:
        return tf.cast(self.gamma, tf.float32) if self.scale else tf.ones([self.moving_mean.shape[0]])

    def _beta(self) -> Any:
        return tf.cast(self.beta, tf.float32) if self.center else tf.zeros([self.moving_mean.shape[0]])

    def _move(self, *batch: Any) -> None:
        """Move the statistics towards the mean and the variance of a batch."""
        for kept, one in zip((self.moving_mean, self.moving_variance), batch, strict=True):
            kept.assign(tf.cast(kept, tf.float32) * self.momentum + one * (1.0 - self.momentum))


@dataclass(frozen=True)
class _Made:
    """How a tensor is made: ``with_relu()`` makes it with ReLU behind; ``adds``: it takes what to add before that."""

    with_relu: Callable[..., Any]
    adds: bool


def mark(y: Any, with_relu: Callable[..., Any], adds: bool = False, xla: bool = False) -> Any:
    """Let a ReLU behind ``y`` be part of what makes it, in a graph; return ``y``.

    Args:
        y: a tensor.
        with_relu: makes ``relu(y)``.
        adds: whether it takes a tensor to be added before.
        xla: whether also where XLA compiles the graph.
    """
    if isinstance(y, tf.Tensor) and not tf.executing_eagerly() and (xla or not in_xla()):
        setattr(y, _MARK, _Made(with_relu, adds))
    return y


class _FusedAdd(keras.layers.Add):
    """What an addition does otherwise than its class: its result says that it is one of a normalised tensor."""

    def call(self, inputs: Any) -> Any:
        """The sum, marked."""
        y = super().call(inputs)
        if isinstance(inputs, (list, tuple)) and len(inputs) == 2:
            # The second branch of a block rather than its shortcut, which may be normalised too.
            for one, other in (inputs[::-1], inputs):
                made = getattr(one, _MARK, None)
                if made is not None and made.adds and _alike(one, other):
                    mark(y, functools.partial(made.with_relu, other))
                    break
        return y


def _alike(one: Any, other: Any) -> bool:
    shape = one.shape.as_list()
    return other.dtype == tf.float32 and other.shape.rank is not None and other.shape.as_list() == shape


def _relu(inputs: Any, otherwise: Any) -> Any:
    made = getattr(inputs, _MARK, None)
    return otherwise(inputs) if made is None else made.with_relu()


class _FusedReLU(keras.layers.ReLU):
    """What a ReLU does otherwise than its class: it is part of the normalisation before it."""

    def call(self, inputs: Any) -> Any:
        """The class's own computation, or that of the normalisation too."""
        return _relu(inputs, super().call)


class _FusedActivation(keras.layers.Activation):
    """The same for a layer Activation that is a ReLU."""

    def call(self, inputs: Any) -> Any:
        """The class's own computation, or that of the normalisation too."""
        return _relu(inputs, super().call)


class _FusedDropout(keras.layers.Dropout):
    """What a Dropout does otherwise than its class: under XLA it draws from ThreeFry."""

    def call(self, inputs: Any, training: Any = False) -> Any:
        """The class's own computation, or one with other random numbers."""
        drops = isinstance(training, bool) and training and 0 < self.rate < 1
        if not drops or self.noise_shape is not None or not isinstance(inputs, tf.Tensor) or not in_xla():
            return super().call(inputs, training=training)
        seed = tf.cast(self.seed_generator.next(), tf.int32)

        def dropped(x: Any) -> Any:
            kept = tf.random.stateless_uniform(tf.shape(x), seed, alg="threefry") >= self.rate
            return tf.where(kept, x * tf.cast(1 / (1 - self.rate), x.dtype), tf.zeros([], x.dtype))

        return columns.through(inputs, dropped)


class _FusedMaxPool(keras.layers.MaxPooling2D):
    """What a max pooling does otherwise than its class: its gradient is one pass."""

    def call(self, inputs: Any) -> Any:
        """The class's own computation, or one with a gradient of the package."""
        return normalize.max_pool(inputs, self.pool_size) if self._fits(inputs) else super().call(inputs)

    def _fits(self, inputs: Any) -> bool:
        """Whether windows fill the image, and the operation can run here."""
        if not isinstance(inputs, tf.Tensor) or inputs.dtype != tf.float32 or inputs.shape.rank != 4 or in_xla():
            return False
        sides = zip(inputs.shape.as_list()[1:3], self.pool_size, strict=True)
        return all(size and size % window == 0 for size, window in sides) and normalize.available()


def _alone(layer: Any) -> Any:
    """What a layer becomes whatever stands before it; None where it stays."""
    if type(layer) is keras.layers.Dropout:
        return _FusedDropout
    if type(layer) is not keras.layers.MaxPooling2D or layer.compute_dtype != "float32":
        return None
    side_by_side = tuple(layer.strides) == tuple(layer.pool_size) and layer.data_format == "channels_last"
    return _FusedMaxPool if side_by_side else None


def _follower(layer: Any) -> Any:
    """What a layer behind a normalisation becomes; None where it stays."""
    if type(layer) is keras.layers.Add:
        return _FusedAdd
    if type(layer) not in (keras.layers.ReLU, keras.layers.Activation) or not plain_relu(layer):
        return None
    return _FusedReLU if type(layer) is keras.layers.ReLU else _FusedActivation


def plain_relu(layer: Any) -> bool:
    """Whether a layer is Keras' ReLU or Activation, and computes max(x, 0)."""
    if layer.__class__ is keras.layers.ReLU:
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return layer.__class__ is keras.layers.Activation and layer.activation is keras.activations.relu


def become(layer: Any, base: Any) -> None:
    """Let a layer compute what ``base`` does; whoever asks it for its class hears of the one that it had."""
    cls: Any = type(layer)
    object.__setattr__(layer, "__class__", _fused_class(cls, base))


@functools.cache
def _fused_class(cls: Any, fused: Any) -> Any:
    # Whoever asks the layer itself for its class, to save or to clone it, hears of the one that it had.
    asked = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__class__": property(lambda _: cls)}
    return type(cls.__name__, (fused, cls), asked)


def _accelerator() -> str:
    """The kind of an accelerator that TensorFlow has; "" where it has none."""
    return next((kind for kind in ("GPU", "TPU") if tf.config.list_logical_devices(kind)), "")


def _why_not(layer: Any) -> str:
    """Why ``layer`` cannot be fused, whatever its input; "" if it can."""
    cls = type(layer)
    spec = layer.input_spec if layer.built else None
    accelerator = _accelerator()
    if accelerator:
        return f"there is a {accelerator}"
    if not isinstance(layer, _FusedNorm) and (cls.call, cls._moments) != (_Norm.call, _Norm._moments):
        return f"{cls.__name__} computes something else"
    if layer.synchronized:
        return "synchronized"
    if getattr(layer, "renorm", False):
        return "renorm"
    if layer.compute_dtype not in ("float32", "bfloat16", "float16"):
        return layer.compute_dtype
    if spec is not None and layer.axis not in (-1, spec.ndim - 1):
        return f"channels are axis {layer.axis} of {spec.ndim}, not the last"
    if spec is not None and spec.ndim < 3:
        return f"as fast on {spec.ndim} axes"
    return ""


def _fits(layer: Any, inputs: Any) -> bool:
    """Whether this input, here, is one that the fused operation takes, and is faster on."""
    return (
        isinstance(inputs, tf.Tensor)
        and inputs.dtype in (tf.float32, tf.bfloat16, tf.float16)
        and inputs.shape.rank is not None
        and inputs.shape.rank >= 3
        and layer.axis in (-1, inputs.shape.rank - 1)
        and not in_xla()
    )
