"""The kind of each weight, from a table that users and other libraries can extend.

The rank does not determine the kind: a GRU's bias is 2-D, a PReLU's slope 3-D, a Mixtral expert's kernel 3-D. The kind
is what the layer declares, else what is registered or in the table for its class or a base class, else what the name of
the weight implies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import keras

from keras_lth.surgery.paths import Entry, entries, layers

__all__ = ["DENSE", "NEVER", "PRUNED", "UNKNOWN", "classified", "has_kind", "is_float", "register_prunable"]

# Kinds that are pruned unless excluded.
PRUNED = ("kernel", "expert kernel")
# Kinds that stay dense unless include= or also= names them.
DENSE = ("embedding", "position embedding", "token", "relative position", "declared dense")
UNKNOWN = "unknown kind"
# Kinds that no pattern can select.
NEVER = ("bias", "normalisation", "slope", "adapter", "vector", "not trained")

_KERNEL = {"kernel": "kernel", "bias": "bias", "lora_kernel_a": "adapter", "lora_kernel_b": "adapter"}
_CELL = {"kernel": "kernel", "recurrent_kernel": "kernel", "bias": "bias"}
_EXPERTS = dict.fromkeys(
    (
        "expert_feedforward_gate_dense",
        "expert_feedforward_intermediate_dense",
        "expert_feedforward_output_dense",
        "gate_up_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ),
    "expert kernel",
)
_EMBEDDING = {"embeddings": "embedding", "lora_embeddings_a": "adapter", "lora_embeddings_b": "adapter"}
_SCALES = dict.fromkeys(("gamma", "beta", "scale", "moving_mean", "moving_variance"), "normalisation")
# (package, class) → weight → kind. By name, so that a class which a version lacks costs nothing and nothing is loaded.
_TABLE: dict[tuple[str, str], dict[str, str]] = {
    ("keras", "Dense"): _KERNEL,
    ("keras", "EinsumDense"): _KERNEL,
    ("keras", "BaseConv"): _KERNEL,
    ("keras", "BaseConvTranspose"): _KERNEL,
    ("keras", "BaseDepthwiseConv"): _KERNEL,
    ("keras", "BaseSeparableConv"): {"depthwise_kernel": "kernel", "pointwise_kernel": "kernel", "bias": "bias"},
    ("keras", "SimpleRNNCell"): _CELL,
    ("keras", "GRUCell"): _CELL,
    ("keras", "LSTMCell"): _CELL,
    ("keras", "ConvLSTMCell"): _CELL,
    ("keras", "Embedding"): _EMBEDDING,
    # The output side of a table that is not tied is a kernel of its own.
    ("keras", "ReversibleEmbedding"): {"reverse_embeddings": "kernel"},
    ("keras", "PReLU"): {"alpha": "slope"},
    ("keras", "BatchNormalization"): _SCALES,
    ("keras", "GroupNormalization"): _SCALES,
    ("keras", "LayerNormalization"): _SCALES,
    ("keras", "RMSNormalization"): _SCALES,
    ("keras_hub", "MaskedLMHead"): {"output_kernel": "kernel"},
    ("keras_hub", "PositionEmbedding"): {"embeddings": "position embedding"},
    ("keras_hub", "T5MultiHeadAttention"): {"embeddings": "relative position"},
    ("keras_hub", "MixtralMoeExperts"): _EXPERTS,
    ("keras_hub", "QwenMoeExperts"): _EXPERTS,
    ("keras_hub", "Qwen3MoeExperts"): _EXPERTS,
    ("keras_hub", "Qwen3_5MoeExperts"): _EXPERTS,
    ("keras_hub", "GptOssExperts"): _EXPERTS,
    ("keras_hub", "Gemma4MoEBlock"): _EXPERTS,
    ("keras_hub", "Gemma4AudioRelativePositionEmbedding"): {"pos_proj": "kernel"},
    ("keras_hub", "Qwen3_5GatedDeltaNet"): {"conv1d_kernel": "kernel"},
    ("keras_hub", "RWKV7TimeMix"): dict.fromkeys(("w1", "w2", "a1", "a2", "g1", "g2", "v1", "v2"), "kernel"),
}
# Kinds by the name of a weight, if no class decides.
_NAMES = [
    (re.compile(r"rel(ative)?_(pos|emb|att|bias)"), "relative position"),
    (re.compile(r"(^|_)pos(ition(al)?)?_(query_)?(emb|enc)"), "position embedding"),
    (re.compile(r"(class|cls|mask|dist(illation)?|register|query|segment)_(tokens?|emb\w*|enc\w*)$"), "token"),
    (re.compile(r"(^|_)bias$"), "bias"),
]
_registered: dict[type, dict[str, str]] = {}


def register_prunable(layer: type, names: str | Iterable[str]) -> type:
    """Make weights of a layer class, and of its subclasses, prunable.

    Your own layer can declare the same itself, in an attribute or property ``prunable_weights`` with names or
    variables; only those are then pruned.

    Args:
        layer: a subclass of ``keras.layers.Layer``.
        names: names of its weights, as given to ``add_weight(name=…)``.

    Returns:
        ``layer``.

    Raises:
        TypeError: an object that is not a layer class, or a name that is not a string.
        ValueError: no names.
    """
    if not (isinstance(layer, type) and issubclass(layer, keras.layers.Layer)):
        raise TypeError(f"register_prunable takes a subclass of keras.layers.Layer, not {layer!r}")
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"register_prunable takes names of weights, not {name!r}")
    if not names:
        raise ValueError(f"register_prunable needs names of weights of {layer.__name__}, such as ['kernel']")
    _registered[layer] = {**_registered.get(layer, {}), **dict.fromkeys(names, "kernel")}
    return layer


def classified(model: keras.layers.Layer) -> list[tuple[Entry, str]]:
    """Return every variable of ``model`` with its kind: `PRUNED`, `DENSE`, `NEVER` or `UNKNOWN`, in order."""
    stated = {id(layer): held for _, layer in layers(model) if (held := _declared(layer)) is not None}
    pruned = {id(variable) for held in stated.values() for variable in held}
    result = []
    for entry in entries(model):
        if id(entry.variable) in pruned:
            kind = "kernel"
        elif id(entry.layer) in stated:
            kind = _by_name(entry, "declared dense")
        else:
            kind = _by_class(entry) or _by_name(entry, UNKNOWN)
        result.append((entry, kind))
    return result


def has_kind(layer: keras.layers.Layer) -> bool:
    """Return whether a class of ``layer`` is in the table or registered."""
    return any(cls in _registered or (_package(cls), cls.__name__) in _TABLE for cls in type(layer).__mro__)


def _declared(layer: keras.layers.Layer) -> list[keras.Variable] | None:
    # Not a getattr with a default, which would hide the error of a property.
    states = hasattr(type(layer), "prunable_weights") or "prunable_weights" in vars(layer)
    if not states or not layer.built:
        return None
    given: Any = layer.prunable_weights
    given = given() if callable(given) else given
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    result = []
    for item in [given] if isinstance(given, (str, keras.Variable)) else given:
        if isinstance(item, keras.Variable):
            result.append(item)
            continue
        held = [variable for variable in own if variable.name == item or variable is getattr(layer, str(item), None)]
        if not held:
            raise ValueError(
                f"prunable_weights of layer {layer.name!r} ({type(layer).__name__}) names {item!r}; its weights are "
                f"{[variable.name for variable in own]}"
            )
        result += held
    return result


def _by_class(entry: Entry) -> str | None:
    if entry.seed:
        return None
    for cls in type(entry.layer).__mro__:
        for kinds in (_registered.get(cls, {}), _TABLE.get((_package(cls), cls.__name__), {})):
            if entry.name in kinds:
                return kinds[entry.name]
    return None


def _package(cls: type) -> str:
    return cls.__module__.split(".")[0]


def _by_name(entry: Entry, otherwise: str) -> str:
    variable = entry.variable
    # Not variable.trainable: freezing a layer changes that, and a frozen kernel is a kernel.
    if entry.seed or not is_float(variable) or not any(variable is v for v in entry.layer._trainable_variables):
        return "not trained"
    for pattern, kind in _NAMES:
        if pattern.search(entry.name):
            return kind
    return "vector" if len(variable.shape) < 2 else otherwise


def is_float(variable: keras.Variable) -> bool:
    """Return whether the variable has a floating dtype."""
    return "float" in str(variable.dtype)
