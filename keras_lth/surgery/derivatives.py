"""The loss of a batch as a function of the weights: its gradient, pruned weights included, and Hessian products."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.arguments import whole as whole_number
from keras_lth.surgery.apart import activations, apart, output_layers, undrawn, without_noise
from keras_lth.surgery.roles import Filter, prunable
from keras_lth.surgery.stored import whole

__all__ = ["Batch", "Loss", "batches", "dense_gradients"]

# Inputs, targets, weights of the examples.
Batch = tuple[Any, Any, Any]
# Last activations that losses and temperatures see through.
_PROBABILITIES = (keras.activations.softmax, keras.activations.sigmoid)


def dense_gradients(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    loss: Any = None,
    include: Filter = None,
    exclude: Filter = None,
    also: Filter = None,
) -> dict[str, np.ndarray]:
    """Return the gradient of the mean loss with respect to every prunable weight, pruned ones too, and leave no trace.

    The model runs as in training, with normalisation by the batch, but without dropout and without the penalties of
    weight regularizers. Its statistics, seeds, metrics and slots stay as they are. A sparse model (`sparsify`) is
    expanded for the call. To compute gradients repeatedly with one trace, use `keras_lth.surgery.Loss`.

    Args:
        model: a built model, masked or not.
        x, y, sample_weight: one batch, or a finite ``tf.data.Dataset`` of batches in ``x``.
        batch_size: accumulate over batches of so many examples; None takes the examples as one batch.
        loss: of (y, outputs), or its name; by default that of ``compile``.
        include, exclude, also: which weights, as in `prunable`.

    Returns:
        {weight path: array of the weight's shape and dtype}.

    Raises:
        ValueError: no loss, labels that it cannot take, a loss that is not finite, a weight on which the loss does not
            depend differentiably.
    """
    with whole(model, run=True):
        of = Loss(model, prunable(model, include, exclude, also), loss=loss)
        return of.gradient(batches(x, y, sample_weight, batch_size))


def batches(x: Any, y: Any = None, sample_weight: Any = None, batch_size: int | None = None) -> list[Batch]:
    """Divide examples into batches of tensors.

    Raises:
        ValueError: no examples, a batch_size below 1, or arrays of different lengths.
    """
    if isinstance(x, tf.data.Dataset):
        if int(x.cardinality()) == tf.data.INFINITE_CARDINALITY:
            raise ValueError("x is an endless dataset: limit it, for example with dataset.take(steps)")
        found = [keras.utils.unpack_x_y_sample_weight(batch) for batch in x]
        if not found:
            raise ValueError("x is a dataset without batches: scores need examples")
        return found
    if x is None:
        raise ValueError("this needs examples: pass x and y, such as ten examples of each class")
    data = keras.tree.map_structure(_tensor, (x, y, sample_weight))
    lengths = {int(leaf.shape[0]) for leaf in keras.tree.flatten(data) if leaf is not None}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"x and y need the same number of examples, at least 1, not {sorted(lengths)}")
    (n,) = lengths
    size = n if batch_size is None else whole_number(batch_size, "batch_size", 1)

    def rows(begin: int) -> Batch:
        found: Batch = keras.tree.map_structure(lambda leaf: None if leaf is None else leaf[begin : begin + size], data)
        return found

    return [rows(begin) for begin in range(0, n, size)]


class Loss:
    """The loss of a model, traced once, without a trace in the model.

    Args:
        model: a built model, whole.
        weights: path → variable: with respect to what it is differentiated.
        loss: as in `dense_gradients`.
        training: whether the model runs as in training; dropout is off in any case.
        temperature: what logits are divided by before the loss (GraSP).

    Raises:
        ValueError: no loss; a temperature for outputs that are not logits.
    """

    def __init__(
        self,
        model: keras.Model,
        weights: Mapping[str, keras.Variable],
        *,
        loss: Any = None,
        training: bool = True,
        temperature: float = 1.0,
    ) -> None:
        if loss is None and not getattr(model, "compiled", False):
            raise ValueError(
                f"model {model.name!r} has no loss: call model.compile(loss=…) first, or pass loss=…, such as "
                'loss="sparse_categorical_crossentropy"'
            )
        if loss is not None and len(getattr(model, "outputs", None) or [0]) > 1:
            raise ValueError(
                f"model {model.name!r} has {len(model.outputs)} outputs: call model.compile(loss=[…]) with a loss for "
                "each, and leave out loss="
            )
        self.model, self.weights = model, dict(weights)
        self.training, self.temperature = training, float(temperature)
        self._loss = None if loss is None else keras.losses.get(loss)
        self._compiled = _unbuilt(model) if loss is None else None
        self._wrap = without_noise(model, why="scores")
        if self.temperature != 1.0:
            self._check_logits()
        self._gradient = tf.function(self._differentiate, autograph=False, reduce_retracing=True)
        self._product = tf.function(self._differentiate_again, autograph=False, reduce_retracing=True)

    def gradient(self, data: Iterable[Batch], masks: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Return the gradient of the mean loss of ``data`` at the weights that ``masks`` keep, all others 0.

        It is that of all weights: of a pruned one too.
        """
        return self._mean(self._gradient, data, masks)

    def product(
        self, data: Iterable[Batch], vector: Mapping[str, Any], masks: Mapping[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the product of the Hessian of the mean loss of ``data`` with a vector over the weights."""
        return self._mean(self._product, data, masks, [tf.convert_to_tensor(vector[path]) for path in self.weights])

    def _mean(
        self, function: Any, data: Iterable[Batch], masks: Mapping[str, Any] | None, *more: Any
    ) -> dict[str, np.ndarray]:
        kept = None if masks is None else [tf.convert_to_tensor(masks[path]) for path in self.weights]
        held = list(data)
        counts = [int(keras.tree.flatten(batch[0])[0].shape[0]) for batch in held]
        total: list[np.ndarray] = []
        with undrawn(self.model):
            for batch, count in zip(held, counts, strict=True):
                loss, found = self._run(function, batch, kept, *more)
                if not np.isfinite(loss):
                    raise ValueError(
                        f"the loss of model {self.model.name!r} is {float(loss)} on this batch: check inputs and "
                        "labels, or lower the scale of the weights"
                    )
                arrays = [np.asarray(one) for one in found]
                if len(held) > 1:
                    arrays = [array * array.dtype.type(count / sum(counts)) for array in arrays]
                total = [a + b for a, b in zip(total, arrays, strict=True)] if total else arrays
        result = dict(zip(self.weights, total, strict=True))
        for path, array in result.items():
            if not np.isfinite(np.sum(array, dtype=np.float64)):
                raise ValueError(
                    f"the derivative of the loss with respect to {path!r} is not finite: check inputs and labels, or "
                    "compute in a wider dtype"
                )
        return result

    def _run(self, function: Any, batch: Batch, *more: Any) -> tuple[Any, Sequence[Any]]:
        try:
            self._build(batch)
            # Not the function itself: TensorFlow warns of many functions of one name, as IMP makes in its rounds.
            loss, found = function.get_concrete_function(batch, *more)(batch, *more)
        except _Underivable:
            raise
        except NotImplementedError as error:
            raise ValueError(
                f"model {self.model.name!r} has no call() of inputs, so it has no loss of (x, y): score the models "
                "that it is made of"
            ) from error
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                f"model {self.model.name!r} and its loss cannot take x of {_form(batch[0])} with labels y of "
                f"{_form(batch[1])}: {_reason(error)}"
            ) from error
        return loss.numpy(), found

    def _build(self, batch: Batch) -> None:
        """Build the metrics by which a loss with several outputs reports: no variable can be made in a trace."""
        if self._compiled is None or self._compiled.built or len(getattr(self.model, "outputs", None) or [0]) < 2:
            return
        one = keras.tree.map_structure(lambda leaf: None if leaf is None else leaf[:1], batch)
        with apart(self.model, wrap=self._wrap):
            outputs = self.model(one[0], training=False)
        self._compiled.build(one[1], outputs)

    def _value(self, values: Sequence[Any], batch: Batch) -> Any:
        x, y, sample_weight = batch
        with (
            _no_penalties(self.model),
            apart(self.model, zip(self.weights.values(), values, strict=True), wrap=self._wrap),
            self._tempered(),
            _loss_of(self.model, self._compiled),
        ):
            outputs = self.model(x, training=self.training) if self.model._call_has_training_arg else self.model(x)
            if self.temperature != 1.0 and not self._through():
                outputs = keras.tree.map_structure(lambda output: output / self.temperature, outputs)
            # Inside a strategy Keras divides losses by the number of replicas, but here one device has all examples.
            replicas = float(tf.distribute.get_strategy().num_replicas_in_sync)
            if self._loss is None:
                return replicas * self.model._compute_loss(x, y, outputs, sample_weight, training=self.training)
            value = self._loss(y, outputs) if sample_weight is None else self._loss(y, outputs, sample_weight)
            return tf.reduce_mean(value) * (replicas if isinstance(self._loss, keras.losses.Loss) else 1.0)

    def _values(self, masks: Sequence[Any] | None) -> list[Any]:
        values = [tf.convert_to_tensor(variable.value) for variable in self.weights.values()]
        if masks is None:
            return values
        return [tf.where(mask, value, tf.zeros([], value.dtype)) for mask, value in zip(masks, values, strict=True)]

    def _differentiate(self, batch: Batch, masks: Sequence[Any] | None) -> tuple[Any, list[Any]]:
        values = self._values(masks)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            loss = self._value(values, batch)
        return loss, self._dense(tape.gradient(loss, values))

    def _differentiate_again(
        self, batch: Batch, masks: Sequence[Any] | None, vector: Sequence[Any]
    ) -> tuple[Any, list[Any]]:
        values = self._values(masks)
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(values)
            with tf.GradientTape(watch_accessed_variables=False) as tape, _exact_moments():
                tape.watch(values)
                loss = self._value(values, batch)
            along = tf.add_n([
                tf.reduce_sum(one * tf.cast(towards, one.dtype))
                for one, towards in zip(self._dense(tape.gradient(loss, values)), vector, strict=True)
            ])  # fmt: skip
        # Where the gradient does not depend on a weight, the product is 0 there.
        found = outer.gradient(along, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, self._dense(found)

    def _dense(self, gradients: Sequence[Any]) -> list[Any]:
        missing = [path for path, one in zip(self.weights, gradients, strict=True) if one is None]
        if missing:
            which = "any weight" if len(missing) == len(self.weights) else ", ".join(map(repr, missing))
            raise _Underivable(
                f"the loss of model {self.model.name!r} does not depend on {which} by operations with a gradient: "
                "replace rounding, argmax and the like, or exclude weights that the outputs do not use"
            )
        return [tf.convert_to_tensor(one) for one in gradients]

    def _through(self) -> list[Any]:
        """The last layers whose activation makes probabilities of logits."""
        return [one for one in output_layers(self.model) if getattr(one, "activation", None) in _PROBABILITIES]

    @contextmanager
    def _tempered(self) -> Iterator[None]:
        last = self._through() if self.temperature != 1.0 else []
        if not last:
            yield
            return
        own = last[0].activation
        with activations(last, lambda logits: own(logits / self.temperature)):
            yield

    def _check_logits(self) -> None:
        if self._through():
            return
        losses = [self._loss] if self._loss is not None else keras.tree.flatten(getattr(self.model, "loss", None))
        for loss in losses:
            found = keras.losses.get(loss) if isinstance(loss, str) else loss
            name = getattr(found, "name", getattr(found, "__name__", ""))
            stated = found.get_config() if isinstance(found, keras.losses.Loss) else {}
            known = isinstance(found, keras.losses.Loss) or getattr(found, "__module__", "").startswith("keras.")
            if known and not stated.get("from_logits", False):
                raise ValueError(
                    f"temperature={self.temperature:g} divides logits, but the loss {name!r} does not take logits: use "
                    "from_logits=True for a model that returns logits, or temperature=1"
                )


class _Underivable(ValueError):
    """No gradient: says itself what to do."""


def _unbuilt(model: keras.Model) -> Any:
    """A loss like that of ``compile``, which is then not built before the first step of training; None if it is."""
    held = getattr(model, "_compile_loss", None)
    if held is None or held.built:
        return None
    return type(held)(held._user_loss, held._user_loss_weights, output_names=held.output_names)


@contextmanager
def _loss_of(model: keras.Model, compiled: Any) -> Iterator[None]:
    """Inside, the model computes its loss by ``compiled``."""
    if compiled is None:
        yield
        return
    before = vars(model)["_compile_loss"]
    vars(model)["_compile_loss"] = compiled
    try:
        yield
    finally:
        vars(model)["_compile_loss"] = before


@contextmanager
def _no_penalties(model: keras.Model) -> Iterator[None]:
    """Inside, no weight has a regularizer."""
    held = [(variable, variable.regularizer) for variable in model.trainable_variables if variable.regularizer]
    for variable, _ in held:
        variable.regularizer = None
    try:
        yield
    finally:
        for variable, regularizer in held:
            variable.regularizer = regularizer


@contextmanager
def _exact_moments() -> Iterator[None]:
    """Inside, trace normalisations so that their second derivatives are right.

    TensorFlow's moments stop the gradient at the mean in the variance. That is right for first derivatives alone.
    """
    backend: Any = importlib.import_module("keras.src.backend.tensorflow.nn")
    before = backend._compute_moments

    def moments(x: Any, axes: Any, keepdims: bool) -> tuple[Any, Any]:
        mean = tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=keepdims)
        return (mean if keepdims else tf.squeeze(mean, axes)), variance

    backend._compute_moments = moments
    try:
        yield
    finally:
        backend._compute_moments = before


def _tensor(value: Any) -> Any:
    return value if value is None or tf.is_tensor(value) else tf.convert_to_tensor(np.asarray(value))


def _form(value: Any) -> str:
    found = [f"shape {tuple(leaf.shape)}, {leaf.dtype.name}" for leaf in keras.tree.flatten(value) if leaf is not None]
    return " and ".join(found) or "None"


def _reason(error: Exception) -> str:
    """The message of an error; of one from inside a graph without its traceback."""
    text = str(error).strip() or type(error).__name__
    return text.split("\n\t [[")[0].splitlines()[-1] if isinstance(error, tf.errors.OpError) else text
