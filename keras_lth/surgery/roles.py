"""Which variables of a model are prunable: decided by the role of a weight in its layer, never by its rank.

A GRU's bias is 2-D and a PReLU's slope is 3-D, so rank says nothing. Kernels are prunable; biases, normalisation
parameters and PReLU slopes never are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import keras

from keras_lth.surgery.paths import Entry, entries

__all__ = ["Filter", "has_role", "prunable", "refuse_replaced_weights", "replaced", "unknown_layers"]

# A regular expression (searched in the path), a function of (path, variable), or a list of them.
Filter = str | Callable[[str, keras.Variable], bool] | Sequence[str | Callable[[str, keras.Variable], bool]] | None

# Keras class (by name, so that a class which an older Keras lacks costs nothing) → its prunable weights.
_ROLES: dict[str, tuple[str, ...]] = {
    "Dense": ("kernel",),
    "EinsumDense": ("kernel",),
    "BaseConv": ("kernel",),
    "BaseConvTranspose": ("kernel",),
    "BaseDepthwiseConv": ("kernel",),
    "BaseSeparableConv": ("depthwise_kernel", "pointwise_kernel"),
    "SimpleRNNCell": ("kernel", "recurrent_kernel"),
    "GRUCell": ("kernel", "recurrent_kernel"),
    "LSTMCell": ("kernel", "recurrent_kernel"),
    "ConvLSTMCell": ("kernel", "recurrent_kernel"),
    "Embedding": ("embeddings",),
    "ReversibleEmbedding": ("embeddings", "reverse_embeddings"),
}
# Keras layers whose weights of any rank are parameters of a kind that is never pruned.
_NEVER = {
    "BatchNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "RMSNormalization",
    "UnitNormalization",
    "PReLU",
}


def prunable(model: keras.Model, include: Filter = None, exclude: Filter = None) -> dict[str, keras.Variable]:
    """The prunable weights of ``model`` by structural path, in order of construction.

    Prunable are the kernels of Dense, EinsumDense (so attention), all convolutions, RNN cells (input and recurrent)
    and Embedding tables, in these layers and their subclasses. ``include`` keeps only the paths it matches and may
    also name weights of `unknown_layers`; ``exclude`` removes paths. Both are a regular expression (``re.search``),
    a function ``(path, variable) -> bool``, or a list of these.

    Raises:
        ValueError: the model is not built, nothing is prunable, an ``include`` matches nothing, or a selected layer
            has LoRA enabled or is quantised.
    """
    if not getattr(model, "built", False):
        raise ValueError(f"model {model.name!r} is not built, so it has no weights yet: call it on a batch first")
    found = entries(model)
    known = [entry for entry in found if has_role(entry)]
    candidates = known if include is None else [*known, *(e for e in found if _is_unknown(e))]
    included, excluded = _tests(include), _tests(exclude)
    for item, test in zip(_items(include), included, strict=True):
        if not any(test(entry.path, entry.variable) for entry in candidates):
            raise ValueError(
                f"include={_describe(item)} matches no prunable weight; the paths are {[e.path for e in candidates]}"
            )

    def selected(path: str, variable: keras.Variable) -> bool:
        kept = include is None or any(test(path, variable) for test in included)
        return kept and not any(test(path, variable) for test in excluded)

    chosen = [entry for entry in candidates if selected(entry.path, entry.variable)]
    refuse_replaced_weights(chosen)
    result = {e.path: e.variable for e in found if any(e is c for c in chosen) and _is_float(e.variable)}
    if not result:
        unknown = unknown_layers(model)
        hint = f"; layers of unknown kind: {list(unknown)}, name their weights with include=" if unknown else ""
        dropped = f" (exclude={_describe(exclude)} removes {[e.path for e in known]})" if known else ""
        raise ValueError(f"model {model.name!r} has no prunable weight{dropped}{hint}")
    return result


def unknown_layers(model: keras.Model) -> dict[str, tuple[str, ...]]:
    """Layers outside the table that own trainable weights of rank 2 or more: layer path → paths of those weights.

    They are left dense unless ``include`` names their weights.
    """
    result: dict[str, tuple[str, ...]] = {}
    for entry in entries(model):
        if _is_unknown(entry):
            result[entry.layer_path] = (*result.get(entry.layer_path, ()), entry.path)
    return result


def refuse_replaced_weights(chosen: Iterable[Entry]) -> None:
    """Raise if a layer computes with something else than the weight to be masked."""
    for entry in chosen:
        reason = replaced(entry.layer)
        if reason:
            raise ValueError(
                f"layer {entry.layer_path!r} {reason}, so a mask on {entry.path!r} would not hold: "
                "mask the model before that, merge it back into a plain layer, or exclude the layer"
            )


def replaced(layer: keras.layers.Layer) -> str | None:
    """Why the kernel of ``layer`` is not what it computes with, or None."""
    if getattr(layer, "lora_enabled", False):
        return "has LoRA enabled"
    mode = getattr(layer, "quantization_mode", None)
    return f"is quantised ({mode})" if mode else None


def _role(layer: keras.layers.Layer) -> tuple[str, ...]:
    names: tuple[str, ...] = ()
    for cls in type(layer).__mro__:
        if cls.__module__.split(".")[0] == "keras" and cls.__name__ in _ROLES:
            names += _ROLES[cls.__name__]
    return names


def has_role(entry: Entry) -> bool:
    """Whether a variable is prunable by the table."""
    # A quantised kernel is an integer: it stays a candidate, so that it is refused by name and not lost in silence.
    return not entry.seed and entry.variable.name in _role(entry.layer)


def _is_unknown(entry: Entry) -> bool:
    if entry.seed or not entry.variable.trainable or len(entry.variable.shape) < 2 or not _is_float(entry.variable):
        return False
    mro = type(entry.layer).__mro__
    never = any(cls.__name__ in _NEVER and cls.__module__.split(".")[0] == "keras" for cls in mro)
    return not never and not _role(entry.layer)


def _is_float(variable: keras.Variable) -> bool:
    return "float" in str(variable.dtype)


def _items(given: Filter) -> list[str | Callable[[str, keras.Variable], bool]]:
    if given is None:
        return []
    return [given] if isinstance(given, str) or callable(given) else list(given)


def _tests(given: Filter) -> list[Callable[[str, keras.Variable], bool]]:
    return [_test(item) for item in _items(given)]


def _test(item: str | Callable[[str, keras.Variable], bool]) -> Callable[[str, keras.Variable], bool]:
    if callable(item):
        return item
    if not isinstance(item, str):
        raise TypeError(f"include and exclude take regular expressions or functions (path, variable), not {item!r}")
    try:
        pattern = re.compile(item)
    except re.error as error:
        raise ValueError(f"{item!r} is not a regular expression: {error}") from error
    return lambda path, variable: pattern.search(path) is not None


def _describe(given: object) -> str:
    return repr(getattr(given, "__name__", given))
