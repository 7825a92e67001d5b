"""TFMOT's verbs: mark what is pruned, and remove the marks and masks."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import Any

import keras

from keras_lth import surgery
from keras_lth.callbacks.fit_call import fit_argument
from keras_lth.compat.tfmot.marks import Mark, mark_of, set_mark, unmark
from keras_lth.compat.tfmot.schedule import ConstantSparsity, PruningSchedule
from keras_lth.surgery.paths import layers

__all__ = ["PrunableLayer", "prune_low_magnitude", "prune_scope", "strip_pruning"]

UPDATES = "_keras_lth_tfmot_updates"  # of the callback that changes masks


class PrunableLayer(ABC):
    """A layer of your own that says which of its weights are pruned."""

    @abstractmethod
    def get_prunable_weights(self) -> list[Any]:
        """Return the weights that are pruned."""


# TFMOT's default schedule.
_HALF = ConstantSparsity(0.5, 0)


def prune_low_magnitude(
    to_prune: Any,
    pruning_schedule: PruningSchedule = _HALF,
    block_size: tuple[int, int] = (1, 1),
    block_pooling_type: str = "AVG",
    pruning_policy: Any = None,
    sparsity_m_by_n: tuple[int, int] | None = None,
    **kwargs: Any,
) -> Any:
    """Let a layer, the layers of a list, or a model be pruned while it is trained with `UpdatePruningStep`.

    In place: the layers and the model stay what they are, and are returned. Any model works: sequential, functional,
    subclassed, nested. Weights of unknown kind stay dense, and a warning names them.

    Args:
        to_prune: a layer, a list of layers, or a model.
        pruning_schedule: when, and to which sparsity of each weight.
        block_size: (height, width) of the blocks of matrices that are pruned whole.
        block_pooling_type: "AVG" or "MAX", what represents a block.
        pruning_policy: which layers of a model are pruned.
        sparsity_m_by_n: (m, n): m zeros of every n consecutive inputs, from the first step on, whatever the schedule.
        **kwargs: ``input_shape`` of a layer that is the first one of a Sequential.

    Raises:
        ValueError: anything else, or settings that cannot work.
        TypeError: another keyword.
    """
    mark = Mark(pruning_schedule, _pair(block_size, "block_size"), block_pooling_type, None)
    if sparsity_m_by_n:
        mark.sparsity_m_by_n = _pair(sparsity_m_by_n, "sparsity_m_by_n")
        if not 0 <= mark.sparsity_m_by_n[0] < mark.sparsity_m_by_n[1]:
            raise ValueError(f"sparsity_m_by_n must be m zeros of n > m, not {sparsity_m_by_n}")
    if block_pooling_type not in ("AVG", "MAX"):
        raise ValueError(f"block_pooling_type must be 'AVG' or 'MAX', not {block_pooling_type!r}")
    if isinstance(to_prune, list):
        for layer in to_prune:
            prune_low_magnitude(layer, pruning_schedule, block_size, block_pooling_type, None, sparsity_m_by_n)
        return to_prune
    if isinstance(to_prune, keras.Model):
        if pruning_policy is None:
            set_mark(to_prune, mark)
        else:
            pruning_policy.ensure_model_supports_pruning(to_prune)
            for _, layer in layers(to_prune):
                if not isinstance(layer, keras.Model) and pruning_policy.allow_pruning(layer) and not mark_of(layer):
                    set_mark(layer, mark)
        _expect_the_callback(to_prune)
        return to_prune
    if not isinstance(to_prune, keras.layers.Layer):
        raise ValueError(
            f"prune_low_magnitude takes a keras.Model, a keras.layers.Layer or a list of layers of Keras 3, not "
            f"{type(to_prune).__module__}.{type(to_prune).__name__}"
        )
    shape = kwargs.pop("input_shape", None)
    if kwargs:
        raise TypeError(f"prune_low_magnitude got unknown keywords {sorted(kwargs)}: give them to the layer itself")
    if shape is not None:
        to_prune._input_shape_arg = tuple(shape)
    set_mark(to_prune, mark)
    return to_prune


def strip_pruning(model: Any) -> Any:
    """Remove the settings and masks of a pruned model, in place, and return it; pruned weights are 0.

    Raises:
        ValueError: anything but a keras.Model.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"strip_pruning takes a keras.Model, not {type(model).__name__}")
    unmark(model)
    vars(model).pop("make_train_function", None)
    surgery.unmask(model)
    return model


def prune_scope() -> Any:
    """Return the scope in which TFMOT loads pruned models; here they are plain models and need none."""
    return keras.saving.custom_object_scope({})


def _expect_the_callback(model: Any) -> None:
    """Let ``fit`` refuse to train a pruned model without the callback that prunes it."""
    if "make_train_function" in vars(model):
        return
    make = model.make_train_function

    @functools.wraps(make)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = fit_argument(model, "callbacks")
        if given is not None or fit_argument(model, "epochs") is not None:
            listed = getattr(given, "callbacks", given) or ()
            listed = listed if isinstance(listed, (list, tuple)) else (listed,)
            if not any(hasattr(one, UPDATES) for one in listed):
                raise ValueError(
                    f"model {model.name!r} is to be pruned, but no callback would prune it: add UpdatePruningStep() to "
                    "fit(callbacks=…), or call strip_pruning(model)"
                )
        return make(*args, **kwargs)

    vars(model)["make_train_function"] = checked


def _pair(value: Any, name: str) -> tuple[int, int]:
    try:
        pair = tuple(value)
    except TypeError:
        pair = ()
    if len(pair) != 2 or not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in pair):
        raise ValueError(f"{name} must be two whole numbers, not {value!r}")
    return pair[0], pair[1]
