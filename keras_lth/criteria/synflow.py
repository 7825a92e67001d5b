"""SynFlow: how much of the flow from the inputs to the outputs runs through a weight, without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.criteria.scorer import Repeatable, Scorer
from keras_lth.surgery.apart import activations, apart, ones_for, output_layers, undrawn
from keras_lth.surgery.kinds import is_float
from keras_lth.surgery.paths import Entry, entries

# Layers that scale the data, whose place in the papers' code is before the input of ones.
_PREPROCESSING = (keras.layers.Rescaling, keras.layers.Normalization)
# A sum of scores of a layer that is so much less than the sum of the outputs is rounding.
_ROUNDING = 1e-9


class SynFlow(Repeatable):
    """Scores |∂R/∂w ⊙ w|: R is the sum of the outputs for an input of ones, with all parameters made positive.

    H. Tanaka et al., 2020 (Frankle's thesis, 5.5.1), with 100 iterations of `keras_lth.prune_iteratively`. As in the
    released code, biases, γ, β and the statistics of normalisations are taken by their absolute values too, and
    normalisations run as in inference. A softmax or sigmoid at the output is left out. The input of ones enters after
    layers that scale the data (Rescaling, Normalization).

    Args:
        input_shape: the shape of one example, or a list of one for each input; None for that of the model.
        dtype: what everything is computed in; float32 overflows in deep networks (thesis, 5.5.2).
        include, exclude, also: which weights, as in `keras_lth.prunable`; None for all that are prunable by default.
    """

    def __init__(
        self,
        input_shape: Sequence[Any] | None = None,
        dtype: str = "float64",
        include: Any = None,
        exclude: Any = None,
        also: Any = None,
    ) -> None:
        super().__init__(include, exclude, also)
        self.input_shape, self.dtype = input_shape, dtype

    def __call__(self, model: Any) -> dict[str, np.ndarray]:
        """Scores of a built model, {weight path: float64 array of the weight's shape}.

        Raises ``ValueError`` if the dtype overflows, with the layer; if the outputs sum to a constant, or do not depend
        differentiably on a weight; if the shape of the input is not known.
        """
        return self.scores(model)

    def scorer(self, model: Any, weights: Mapping[str, Any], x: Any = None, y: Any = None) -> Scorer:
        """Return the scores as a function of masks; all are 0 where masks after the first sever all paths."""
        flow, flowed = Flow(model, weights, self.input_shape, self.dtype), False

        def scores(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            nonlocal flowed
            total, found = flow(masks)
            if not flowed and max(float(one.sum()) for one in found.values()) <= _ROUNDING * total:
                raise ValueError(
                    f"SynFlow has nothing to score: the outputs of model {model.name!r} sum to {total:.6g} whatever "
                    "the weights. Pass a model that returns logits, without softmax, and whose remaining weights "
                    "connect inputs and outputs"
                )
            flowed = True
            return found

        return scores


class Flow:
    """The sum of the outputs of a model for ones, as a function of masks, and the share of each weight, traced once.

    Args:
        model: a built model, whole.
        weights: path → variable: those that are scored.
        input_shape, dtype: as in `SynFlow`.
        power: of the absolute values; with one other than 1, normalisations only scale, by (γ / σ)^power and |β|^power,
            and the sum is that of a path norm.
    """

    def __init__(
        self,
        model: keras.Model,
        weights: Mapping[str, keras.Variable],
        input_shape: Sequence[Any] | None = None,
        dtype: str = "float64",
        power: float = 1.0,
    ) -> None:
        self.model, self.weights, self.dtype, self.power = model, dict(weights), dtype, power
        self._ones = ones_for(model, input_shape)
        self._outputs = output_layers(model)
        known = {id(variable) for variable in self.weights.values()}
        self._others = [one for one in entries(model) if is_float(one.variable) and id(one.variable) not in known]
        self._traced = tf.function(self._differentiate, autograph=False)

    def __call__(self, masks: Mapping[str, Any]) -> tuple[float, dict[str, np.ndarray]]:
        """Return the sum, and {path: |∂ sum/∂w ⊙ w|}.

        Raises ``ValueError`` as in `SynFlow`.
        """
        kept = [tf.convert_to_tensor(masks[path]) for path in self.weights]
        with undrawn(self.model):
            # Not the function itself: TensorFlow warns of many functions of one name, as IMP makes in its rounds.
            total, found = self._traced.get_concrete_function(kept)(kept)
        scores = {path: np.asarray(one) for path, one in zip(self.weights, found, strict=True)}
        if not np.isfinite(total.numpy()):
            self._find_overflow(kept)
        for path, one in scores.items():
            if not np.isfinite(one.sum()):
                raise ValueError(f"{self.dtype} overflows in the scores of {path!r}: {self._remedy()}")
        return float(total), scores

    def _positive(self, variable: keras.Variable) -> Any:
        value = tf.abs(tf.cast(tf.convert_to_tensor(variable.value), self.dtype))
        return value if self.power == 1 else value**self.power

    def _other(self, entry: Entry) -> Any:
        """A parameter that is not scored, or a statistic."""
        if self.power == 1 or not entry.name.startswith("moving_"):
            return self._positive(entry.variable)
        if entry.name == "moving_mean":
            return tf.zeros(entry.variable.shape, self.dtype)
        # The root of it, plus ε, is σ^power.
        variance = tf.abs(tf.cast(tf.convert_to_tensor(entry.variable.value), self.dtype))
        epsilon = float(entry.layer.epsilon)
        return (variance + epsilon) ** self.power - epsilon

    def _values(self, masks: Sequence[Any]) -> list[Any]:
        zero = tf.zeros([], self.dtype)
        return [tf.where(mask, self._positive(v), zero) for mask, v in zip(masks, self.weights.values(), strict=True)]

    def _sum(self, values: Sequence[Any], watch: Any = None) -> Any:
        def wrap(path: str, layer: Any, call: Any) -> Any:
            if isinstance(layer, _PREPROCESSING) or (
                isinstance(layer, keras.layers.Softmax) and layer in self._outputs
            ):
                return lambda inputs, *args, **kwargs: tf.cast(inputs, self.dtype)
            return None if watch is None else watch(path, call)

        others = [(one.variable, self._other(one)) for one in self._others]
        new = [*zip(self.weights.values(), values, strict=True), *others]
        with apart(self.model, new, wrap=wrap, dtype=self.dtype), activations(self._outputs, keras.activations.linear):
            outputs = self.model(self._ones, training=False)
            return tf.add_n([tf.reduce_sum(tf.cast(one, self.dtype)) for one in keras.tree.flatten(outputs)])

    def _differentiate(self, masks: Sequence[Any]) -> tuple[Any, list[Any]]:
        values = self._values(masks)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            total = self._sum(values)
        gradients = tape.gradient(total, values)
        for path, one in zip(self.weights, gradients, strict=True):
            if one is None:
                raise ValueError(
                    f"the outputs of model {self.model.name!r} do not depend on {path!r} by operations with a "
                    "gradient: exclude weights that the outputs do not use"
                )
        return total, [tf.abs(tf.convert_to_tensor(g) * value) for g, value in zip(gradients, values, strict=True)]

    def _find_overflow(self, masks: Sequence[Any]) -> None:
        """Raise an error that names the first layer whose outputs are not finite."""

        found: list[str] = []

        def watch(path: str, call: Any) -> Any:
            def called(*args: Any, **kwargs: Any) -> Any:
                outputs = call(*args, **kwargs)
                floats = [one for one in keras.tree.flatten(outputs) if tf.is_tensor(one) and one.dtype.is_floating]
                if not all(np.isfinite(one.numpy()).all() for one in floats):
                    found.append(path)
                return outputs

            return called

        self._sum(self._values(masks), watch)
        where = f"layer {found[0]!r}" if found and found[0] else "the sum of the outputs"
        raise ValueError(f"{self.dtype} overflows in {where}: {self._remedy()}")

    def _remedy(self) -> str:
        if self.dtype == "float64":
            return "lower the scale of the initial values, or score a shallower network"
        return f'use dtype="float64" instead of {self.dtype!r}'
