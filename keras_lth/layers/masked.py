"""Masked: a wrapper for masked models that are built by hand."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.layers.reading import Reading
from keras_lth.masks import Masks, align
from keras_lth.surgery.hooks import follow
from keras_lth.surgery.paths import entries
from keras_lth.surgery.roles import maskable, refuse_replaced_weights
from keras_lth.surgery.variable_mask import VariableMask, attach, heal, mask_of

__all__ = ["Masked"]


@keras.saving.register_keras_serializable(package="keras_lth")
class Masked(keras.layers.Wrapper):
    """Runs ``layer`` with some of its weights pruned, in any model and any training loop.

    The mask belongs to the weight, as with `keras_lth.mask`, which also works on the wrapped layer. In addition the
    wrapper masks the weight when ``layer`` reads it. So gradients of pruned entries are 0 before any clipping, even
    without a call of `keras_lth.mask` on the model. The mask is saved in ``.keras`` and ``.weights.h5`` files;
    ``get_config`` does not include it, so ``clone_model`` gives a dense layer.

    Args:
        layer: a layer called on one input, with at least one prunable weight (see `keras_lth.prunable`).
        mask: None (dense until `keras_lth.mask` or a file sets a mask), a boolean array of the shape of the
            layer's only prunable weight, or a mapping from path within the layer (``"kernel"``,
            ``"cell/recurrent_kernel"``) to arrays.

    Raises:
        ValueError: a layer that is built from several shapes (attention); at build time, an unknown path, a wrong
            shape, or one array for a layer with several prunable weights.
    """

    # Adds nothing to structural paths.
    _lth_transparent = True

    def __init__(self, layer: keras.layers.Layer, mask: Any = None, **kwargs: Any) -> None:
        parameters = inspect.signature(layer.build).parameters.values()
        shapes = [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
        if len(shapes) > 1:
            raise ValueError(
                f"Masked wraps a layer that is called on one input, but {type(layer).__name__} is built from "
                f"{', '.join(shapes)}: use it unwrapped and call keras_lth.mask(model, masks)"
            )
        super().__init__(layer, **{"dtype": layer.dtype_policy, **kwargs})
        self._given = Masks(mask) if isinstance(mask, Mapping) else None if mask is None else np.asarray(mask)
        self.supports_masking = layer.supports_masking

    def build(self, input_shape: Any = None) -> None:
        """Build the wrapped layer and set the mask."""
        # Outside any function that is being traced, so that the pruned weights can be set to 0 immediately.
        with tf.init_scope():
            super().build(input_shape)
            weights = self._weights()
            if not weights:
                raise ValueError(f"layer {self.layer.name!r} has no prunable weight")
            refuse_replaced_weights(entry for entry in entries(self.layer) if entry.path in weights)
            if self._given is not None:
                self._put(self._given)

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped layer with its masked weights."""
        read = [(variable, mask.keep) for variable in self.layer.weights if (mask := mask_of(variable)) is not None]
        if not read:
            return self.layer(inputs, *args, **kwargs)
        with Reading(read) as scope:
            outputs = self.layer(inputs, *args, **kwargs)
        scope.settle(self)
        return outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the wrapped layer's output shape."""
        return self.layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Return the wrapped layer's mask."""
        return self.layer.compute_mask(inputs, previous_mask)

    @property
    def mask(self) -> Masks:
        """Return the current masks by path within the layer; empty while it is dense."""
        held = {path: mask_of(variable) for path, variable in self._weights().items()}
        return Masks({path: mask.numpy() for path, mask in held.items() if mask is not None})

    def save_own_variables(self, store: Any) -> None:
        """Write the masks, packed to bits, beside the layer's weights."""
        for number, variable in enumerate(self._weights().values()):
            mask = mask_of(variable)
            if mask is not None:
                store[f"mask_{number}"] = np.packbits(mask.numpy().reshape(-1))

    def load_own_variables(self, store: Any) -> None:
        """Read the masks; a file without any leaves the current ones."""
        arrays = {}
        # Not `in store`: the store of Keras 3.8 has keys, but no membership.
        saved = set(store.keys())
        for number, (path, variable) in enumerate(self._weights().items()):
            if f"mask_{number}" in saved:
                packed = np.asarray(store[f"mask_{number}"], np.uint8)
                shape = tuple(variable.shape)
                size = int(np.prod(shape))
                if packed.shape != ((size + 7) // 8,):
                    raise ValueError(f"the saved mask of {path!r} has {packed.size} bytes, not {(size + 7) // 8}")
                arrays[path] = np.unpackbits(packed, count=size).astype(bool).reshape(shape)
        if arrays:
            self._put(Masks(arrays))

    def _weights(self) -> dict[str, keras.Variable]:
        """The weights that may have a mask, also of a layer that was quantised later, which `prunable` refuses."""
        return maskable(self.layer)

    def _put(self, given: Masks | np.ndarray) -> None:
        weights = self._weights()
        shapes = {path: tuple(variable.shape) for path, variable in weights.items()}
        if isinstance(given, np.ndarray):
            if len(weights) != 1:
                raise ValueError(
                    f"layer {self.layer.name!r} has {len(weights)} prunable weights: pass mask= as a mapping from "
                    f"{list(weights)} to arrays"
                )
            given = Masks({next(iter(weights)): given})
        new = []
        for path, array in align(given, shapes, what=f"masks of layer {self.layer.name!r}").items():
            variable = weights[path]
            mask = mask_of(variable)
            if mask is None:
                mask = attach(variable, tf.distribute.get_strategy())
                new.append(variable)
            mask.assign(array)
            if variable._value is None:
                # Built symbolically: this initializer supplies the value later.
                variable._initializer = _MaskedInitializer(variable._initializer, mask)
            else:
                heal(variable)
        if new:
            follow(new)


class _MaskedInitializer:
    def __init__(self, initializer: Any, mask: VariableMask) -> None:
        self.initializer = initializer
        self.mask = mask

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.mask.keep(self.initializer(*args, **kwargs))
