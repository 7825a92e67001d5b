"""Run a model with other values, calls or dtypes, so that nothing of the run remains in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import tensorflow as tf

from keras_lth.names import few
from keras_lth.surgery.held import held
from keras_lth.surgery.paths import layers
from keras_lth.surgery.warned import warn_once

__all__ = ["Wrap", "activations", "apart", "ones_for", "output_layers", "undrawn", "without_noise"]

# (path, layer, its call) → what is called instead, or None.
Wrap = Callable[[str, Any, Callable[..., Any]], Callable[..., Any] | None]


@contextmanager
def apart(
    model: keras.Model,
    values: Iterable[tuple[keras.Variable, Any]] = (),
    *,
    wrap: Wrap | None = None,
    dtype: str | None = None,
) -> Iterator[None]:
    """Inside, run ``model`` with other values of its variables; what it assigns is dropped.

    Statistics, seeds, metrics and states of recurrent layers keep their values, bit by bit. Eager or inside a
    ``tf.function``, whose trace keeps the values, calls and dtype of this block.

    Args:
        model: a built model, whole (`keras_lth.surgery.whole`).
        values: variable and tensor of its shape. Where ``dtype`` is given, of that dtype.
        wrap: given (path, layer, call), returns the function to call instead, or None.
        dtype: what all layers compute in.
    """
    scope = keras.StatelessScope(collect_losses=True, initialize_variables=False)
    for variable, value in values:
        # Not through the constructor, which casts to the variable's own dtype.
        scope.add_update((variable, value))
    walk = list(layers(model))
    changed: list[tuple[Any, str, Any]] = []

    def put(layer: Any, name: str, value: Any) -> None:
        changed.append((layer, name, vars(layer).get(name, changed)))
        # Through __dict__: a layer tracks what is set as an attribute, or is locked.
        vars(layer)[name] = value

    try:
        for path, layer in walk:
            instead = None if wrap is None else wrap(path, layer, layer.call)
            if instead is not None:
                put(layer, "call", instead)
            if dtype is not None:
                put(layer, "_dtype_policy", keras.dtype_policies.DTypePolicy(dtype))
        with scope:
            try:
                yield
            finally:
                # The identities of losses that layers added are those of this run.
                model._clear_losses()
    finally:
        for layer, name, before in reversed(changed):
            if before is changed:
                del vars(layer)[name]
            else:
                vars(layer)[name] = before


@contextmanager
def undrawn(model: keras.Model) -> Iterator[None]:
    """Restore, at the end, what a run draws from outside of Keras: variables of ``tf.random.Generator`` and others that
    the model holds beside its weights.
    """
    found = held(model)
    raw = [v for v in (*found.noise.values(), *found.state.values()) if isinstance(v, tf.Variable)]
    kept = [variable.numpy() for variable in raw]
    try:
        yield
    finally:
        for variable, value in zip(raw, kept, strict=True):
            variable.assign(value)


def without_noise(model: keras.Model, *, why: str = "") -> Wrap:
    """Return a wrap that runs layers which sample (dropout, noise, random augmentation) as in inference.

    With ``why``, such as "scores", warn once of the layers that this changes.
    """
    noisy = {id(layer) for _, layer in layers(model) if layer._seed_generators and layer._call_has_training_arg}
    told = [str(path) for path, layer in layers(model) if id(layer) in noisy and _samples(layer)]
    if told and why:
        warn_once(model, "noise", f"dropout and noise are off for {why}: {few(told)}", stacklevel=3)

    def wrap(path: str, layer: Any, call: Callable[..., Any]) -> Callable[..., Any] | None:
        if id(layer) not in noisy:
            return None
        return lambda *args, **kwargs: call(*args, **{**kwargs, "training": False})

    return wrap


def _samples(layer: Any) -> bool:
    """Whether a layer with a generator draws from it: cells of recurrent layers have one in any case."""
    shares = [vars(layer).get(name) for name in ("rate", "dropout", "recurrent_dropout", "stddev")]
    return any(shares) or all(share is None for share in shares)


def ones_for(model: keras.Model, input_shape: Sequence[Any] | None = None) -> Any:
    """Return one example of ones for each input of ``model``, with the batch's axis.

    Raises:
        ValueError: the shape is not known; pass ``input_shape``, that of one example, or a list of them.
    """
    if input_shape is None:
        given = getattr(model, "inputs", None)
        if not given:
            raise ValueError(
                f"the input shape of model {model.name!r} is not known: pass input_shape=(…), of one example"
            )
        shapes, dtypes = [tuple(one.shape[1:]) for one in given], [one.dtype for one in given]
    else:
        several = bool(input_shape) and isinstance(input_shape[0], (tuple, list))
        shapes = [tuple(one) for one in input_shape] if several else [tuple(input_shape)]
        dtypes = [one.dtype for one in getattr(model, "inputs", None) or []] or [keras.config.floatx()] * len(shapes)
    for shape in shapes:
        if any(size is None for size in shape):
            raise ValueError(
                f"model {model.name!r} takes inputs of shape {shape}: pass input_shape=(…), of one example, without "
                "None"
            )
    if len(dtypes) != len(shapes):
        raise ValueError(f"model {model.name!r} has {len(dtypes)} inputs: pass a list of so many in input_shape")
    ones = [tf.ones((1, *shape), tf.as_dtype(dtype)) for shape, dtype in zip(shapes, dtypes, strict=True)]
    struct = getattr(model, "_inputs_struct", None)
    if struct is not None and len(keras.tree.flatten(struct)) == len(ones):
        return keras.tree.pack_sequence_as(struct, ones)
    return ones if len(ones) > 1 else ones[0]


def output_layers(model: keras.Model) -> list[Any]:
    """Return the layers that compute the outputs of a functional or sequential model; none of a subclassed one."""
    found: list[Any] = []
    for output in getattr(model, "outputs", None) or []:
        layer = output._keras_history.operation
        if isinstance(layer, keras.Model):
            found += output_layers(layer)
        elif isinstance(layer, keras.layers.Layer):
            found.append(getattr(layer, "layer", layer) if getattr(layer, "_lth_transparent", False) else layer)
    return found


@contextmanager
def activations(layers_: Iterable[Any], activation: Any) -> Iterator[None]:
    """Inside, give layers another activation."""
    with ExitStack() as stack:
        for layer in layers_:
            if "activation" in vars(layer):
                before = vars(layer)["activation"]
                stack.callback(vars(layer).__setitem__, "activation", before)
                vars(layer)["activation"] = activation
        yield
