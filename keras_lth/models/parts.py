"""The parts of which the networks are made: named layers, and initial values that are a function of the seed alone.

Each network takes those of the options below that have an effect in it (`docs/models.md`) and refuses the others.

- initializer: of the kernels. A name of `INITIALIZERS`, or a function of a seed that returns a Keras initialiser.
- bias: "zeros", as in TensorFlow, or "uniform": U(−1/√fan-in, 1/√fan-in), PyTorch's, which open_lth leaves as it is.
- gamma: the scales of normalisations. "uniform" is U(0, 1): thesis, 5.5.4, and open_lth. "ones" is usual elsewhere.
- momentum: the share of the moving statistics that a step keeps; 0.9 is PyTorch's 0.1.
- epsilon: added to the variance in normalisations.
- padding: "symmetric" adds as many zeros on each side, as PyTorch does. "same" is Keras' own: where a stride makes the
  number odd, the bottom and right get the additional zero, and means of windows leave the zeros out.
- dropout: the share of inputs of the last dense layers that a training step drops.
- mean, std: one number for each channel. The model itself computes (x − mean)/std, so a crop pads with black.
- weight_decay: λ. Adds λ/2·‖w‖² of every trained variable to the loss, so λ·w to its gradient, as open_lth's SGD does.
  (Keras' optimizers decay outside the gradient.)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_lth.arguments import is_whole

DEFAULTS: Mapping[str, Any] = {
    "initializer": "he_normal",
    "bias": "zeros",
    "gamma": "uniform",
    "momentum": 0.9,
    "epsilon": 1e-5,
    "padding": "symmetric",
    "dropout": 0.5,
    "mean": None,
    "std": None,
    "weight_decay": 0.0,
}
# What the options that are words may be.
_WORDS: Mapping[str, tuple[str, ...]] = {
    "bias": ("zeros", "uniform"),
    "gamma": ("uniform", "ones"),
    "padding": ("symmetric", "same"),
}


def he_normal(seed: int) -> Any:
    """Return a normal, not truncated, of variance 2/fan in: K. He et al., ICCV 2015; open_lth's kaiming_normal."""
    return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal", seed)


def he_normal_fan_out(seed: int) -> Any:
    """Return a normal, not truncated, of variance 2/fan out: torchvision's for ResNets, and SynFlow's."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", seed)


def he_uniform(seed: int) -> Any:
    """Return a uniform distribution of variance 2/fan in: open_lth's kaiming_uniform."""
    return keras.initializers.HeUniform(seed)


def glorot_normal(seed: int) -> Any:
    """Return a truncated normal of variance 2/(fan in + fan out): X. Glorot and Y. Bengio, AISTATS 2010."""
    return keras.initializers.GlorotNormal(seed)


def glorot_uniform(seed: int) -> Any:
    """Return a uniform distribution of variance 2/(fan in + fan out): Keras' own default."""
    return keras.initializers.GlorotUniform(seed)


def lecun_normal(seed: int) -> Any:
    """Return a truncated normal of variance 1/fan in: TensorFlow's variance_scaling_initializer, SNIP's."""
    return keras.initializers.LecunNormal(seed)


INITIALIZERS: Mapping[str, Callable[[int], Any]] = {
    function.__name__: function
    for function in (he_normal, he_normal_fan_out, he_uniform, glorot_normal, glorot_uniform, lecun_normal)
}


def layer_seed(seed: int, name: str) -> int:
    """Return 31 bits of SHA-256 of "seed/name": stable between processes and machines, unlike `hash`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


class Parts:
    """The layers of one network by name; the random numbers of a layer are a function of the seed and its name."""

    def __init__(
        self,
        network: str,
        input_shape: Sequence[int],
        classes: int,
        seed: int,
        options: Mapping[str, Any],
        *,
        least: int = 1,
        image: bool = True,
        **defaults: Any,
    ) -> None:
        """Check the arguments of a network.

        Args:
            network: the name of the model, with which messages begin.
            input_shape: shape of one example, without the batch.
            classes: width of the output layer, at least 1.
            seed: at least 0.
            options: what the caller gave of the module's list; None is the default.
            least: the least height and width.
            image: whether the shape must be (height, width, channels).
            defaults: where the network differs from `DEFAULTS`.

        Raises:
            ValueError: an argument is out of range; names it.
            TypeError: there is no such option.
        """
        self.network = network
        shape = tuple(input_shape)
        form = "(height, width, channels)" if image else "the sizes of one example"
        if not shape or (image and len(shape) != 3) or any(not is_whole(size, 1) for size in shape):
            raise self._error(f"input_shape must be {form}, all at least 1, got {shape}")
        if image and min(shape[:2]) < least:
            raise self._error(f"input_shape must have a height and width of at least {least}, got {shape}")
        self.classes, self.seed = self.whole("classes", classes), self.whole("seed", seed, 0)
        if unknown := options.keys() - DEFAULTS.keys():
            raise TypeError(f"{network} has no option {', '.join(sorted(unknown))}; options are {', '.join(DEFAULTS)}")
        self._given = {name for name, value in options.items() if value is not None}
        self._used: set[str] = set()
        self._options = {**DEFAULTS, **defaults, **{name: options[name] for name in self._given}}
        self._check()
        self._inputs = keras.Input(tuple(int(size) for size in shape), name="inputs")

    def whole(self, name: str, value: Any, least: int = 1) -> int:
        """Return an integer argument as an int; a ValueError names it."""
        if not is_whole(value, least):
            raise self._error(f"{name} must be an integer of at least {least}, got {value!r}")
        return int(value)

    def inputs(self) -> Any:
        """Return the examples, normalised if `mean` and `std` are given."""
        mean, std, channels = self._option("mean"), self._option("std"), self._inputs.shape[-1]
        if mean is None and std is None:
            return self._inputs
        for name, values in (("mean", mean), ("std", std)):
            if values is None or len(values) != channels or (name == "std" and min(values) <= 0):
                above = " above 0" if name == "std" else ""
                raise self._error(f"{name} must have a number for each of {channels} channels{above}, got {values!r}")
        offset = [-m / s for m, s in zip(mean, std, strict=True)]
        return keras.layers.Rescaling([1 / s for s in std], offset, name="normalized")(self._inputs)

    def conv(
        self,
        x: Any,
        name: str,
        channels: int,
        size: int | tuple[int, int],
        stride: int = 1,
        *,
        pad: int | None = None,
        bias: bool = True,
        activation: str | None = None,
    ) -> Any:
        """Convolve with `pad` zeros on each side; by default half the size, which at stride 1 keeps the image's."""
        height, width = (size, size) if isinstance(size, int) else size
        if stride == 1 and pad is None:
            padding = "same"
        else:
            x, padding = self._padded(x, "pad".join(name.rsplit("conv", 1)), height // 2 if pad is None else pad)
        return keras.layers.Conv2D(
            channels, size, stride, padding, activation=activation, use_bias=bias, name=name,
            **self._kernel(name, height * width * x.shape[-1], bias),
        )(x)  # fmt: skip

    def norm(self, x: Any, name: str) -> Any:
        """Normalise over the batch."""
        seed, decay = layer_seed(self.seed, name), self._decay()
        uniform = self._option("gamma") == "uniform"
        return keras.layers.BatchNormalization(
            momentum=self._option("momentum"), epsilon=self._option("epsilon"),
            gamma_initializer=keras.initializers.RandomUniform(0.0, 1.0, seed) if uniform else "ones",
            gamma_regularizer=decay, beta_regularizer=decay, name=name,
        )(x)  # fmt: skip

    def conv_norm(self, x: Any, name: str, *shape: Any, number: str = "", relu: bool = True, **options: Any) -> Any:
        """Convolve, by default without bias, then normalise, then ReLU: layers conv, norm and relu with `number`."""
        x = self.conv(x, f"{name}conv{number}", *shape, **{"bias": False, **options})
        x = self.norm(x, f"{name}norm{number}")
        return keras.layers.ReLU(name=f"{name}relu{number}")(x) if relu else x

    def dense(self, x: Any, name: str, width: int, activation: str | None = None) -> Any:
        """Apply a dense layer."""
        return keras.layers.Dense(width, activation, name=name, **self._kernel(name, x.shape[-1]))(x)

    def max_pool(self, x: Any, name: str, size: int = 2, stride: int = 2, pad: int = 0) -> Any:
        """Take the maxima of windows; padding with zeros is exact after ReLU."""
        x, padding = self._padded(x, f"{name}_pad", pad)
        return keras.layers.MaxPooling2D(size, stride, padding, name=name)(x)

    def average_pool(self, x: Any, name: str, size: int, stride: int = 1, pad: int = 0) -> Any:
        """Take the means of windows; those that go beyond the image count its zeros as PyTorch does, or do not."""
        x, padding = self._padded(x, f"{name}_pad", pad)
        return keras.layers.AveragePooling2D(size, stride, padding, name=name)(x)

    def dropped(self, x: Any, name: str) -> Any:
        """Drop values at random in training."""
        return keras.layers.Dropout(self._option("dropout"), seed=layer_seed(self.seed, name), name=name)(x)

    def model(self, outputs: Any) -> keras.Model:
        """Return the model.

        Raises:
            TypeError: an option was given that none of its layers has used.
        """
        if idle := self._given - self._used:
            raise TypeError(
                f"{self.network}: {', '.join(sorted(idle))} would have no effect; leave it out. The options of this "
                f"network are {', '.join(name for name in DEFAULTS if name in self._used)}"
            )
        return keras.Model(self._inputs, outputs, name=self.network)

    def _option(self, name: str) -> Any:
        self._used.add(name)
        return self._options[name]

    def _decay(self) -> Any:
        decay = self._option("weight_decay")
        return keras.regularizers.L2(decay / 2) if decay else None

    def _kernel(self, name: str, fan_in: int, bias: bool = True) -> dict[str, Any]:
        """The initialisers and regularizers of a layer's kernel and bias."""
        sample = self._option("initializer")
        sample = sample if callable(sample) else INITIALIZERS[sample]
        found = {"kernel_initializer": sample(layer_seed(self.seed, name)), "kernel_regularizer": self._decay()}
        if not bias:
            return found
        bound, seed = 1 / math.sqrt(fan_in), layer_seed(self.seed, f"{name}/bias")
        uniform = self._option("bias") == "uniform"
        zeros_or_uniform = keras.initializers.RandomUniform(-bound, bound, seed) if uniform else "zeros"
        return {**found, "bias_initializer": zeros_or_uniform, "bias_regularizer": self._decay()}

    def _padded(self, x: Any, name: str, pad: int) -> tuple[Any, str]:
        if not pad:
            return x, "valid"
        if self._option("padding") == "same":
            return x, "same"
        return keras.layers.ZeroPadding2D(pad, name=name)(x), "valid"

    def _check(self) -> None:
        options = self._options
        words = dict(_WORDS)
        if not callable(options["initializer"]):
            words["initializer"] = tuple(INITIALIZERS)
        for name, allowed in words.items():
            if options[name] not in allowed:
                raise self._error(f"{name} must be one of {', '.join(allowed)}, got {options[name]!r}")
        for name, below in (("momentum", 1), ("dropout", 1), ("epsilon", math.inf), ("weight_decay", math.inf)):
            if not 0 <= options[name] < below:
                bound = "" if below == math.inf else f" and below {below}"
                raise self._error(f"{name} must be at least 0{bound}, got {options[name]!r}")

    def _error(self, message: str) -> ValueError:
        return ValueError(f"{self.network}: {message}")
