"""The prunable weights of a model: those of a prunable kind, and those that the user names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import keras

from keras_lth.names import chosen, few, shown_as
from keras_lth.surgery.entry import check_built, check_model, unbuilt
from keras_lth.surgery.kinds import DENSE, PRUNED, UNKNOWN, classified, is_float
from keras_lth.surgery.paths import Entry
from keras_lth.surgery.report import Report, Weight
from keras_lth.surgery.stored import on_whole
from keras_lth.surgery.warned import warn_once

__all__ = [
    "Filter",
    "Prunable",
    "maskable",
    "prunable",
    "refuse_replaced_weights",
    "replaced",
    "unknown_layers",
]

# A name or regular expression, a function of (path, variable), or several of them.
Filter = str | Callable[[str, keras.Variable], bool] | Sequence[str | Callable[[str, keras.Variable], bool]] | None


class Prunable(Mapping[str, keras.Variable]):
    """What `prunable` returns: weight path → variable; ``str()`` says what is prunable, what is not, and why.

    Attributes:
        report: the same, with one row per weight.
    """

    def __init__(self, variables: Mapping[str, keras.Variable], report: Report) -> None:
        self._variables = dict(variables)
        self.report = report

    def __getitem__(self, path: str) -> keras.Variable:
        return self._variables[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return f"Prunable({self.report.summary})"

    def __str__(self) -> str:
        return str(self.report)

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


@on_whole
def prunable(model: keras.Model, include: Filter = None, exclude: Filter = None, also: Filter = None) -> Prunable:
    """Return the prunable weights of ``model`` by structural path, in order of construction, with a report.

    Kernels are prunable: those of Dense, EinsumDense (so attention), all convolutions, RNN cells (input and recurrent)
    and experts. This includes subclasses and frozen layers, and what `register_prunable` or a layer's
    ``prunable_weights`` add. Left dense by rule are tables and tokens (embeddings, even if tied to an output;
    positions, relative positions, class and mask tokens) and weights of unknown kind. Biases, normalisation and PReLU
    slopes are never pruned.

    Args:
        model: a built model.
        include: only these weights, including those that are left dense by rule.
        exclude: not these.
        also: these in addition to the kernels, such as ``also="embeddings"``.

    Each is a name, a regular expression, a function ``(path, variable) -> bool``, or a list of these. A name is a
    layer, a weight or a part of a path, as `model.summary()`, ``variable.path`` or the structural path shows it:
    ``dense_1`` does not match ``dense_10``.

    Raises:
        TypeError: an object that is not a Keras 3 model on TensorFlow.
        ValueError: the model is not built, nothing is prunable, a pattern matches no weight, or a selected layer has
            LoRA enabled or is quantised.
    """
    check_model(model)
    check_built(model)
    left = unbuilt(model)
    if left:
        text = f"layers of {model.name!r} have no weights yet and are left out: {few(left)}; call the model on a batch"
        warn_once(model, "unbuilt", text)
    selected, rows = _select(model, include, exclude, also)
    refuse_replaced_weights(selected)
    result = {entry.path: entry.variable for entry in selected if is_float(entry.variable)}
    report = Report(model.name, tuple(rows), unbuilt=tuple(left))
    if not result:
        raise ValueError(f"model {model.name!r} has no prunable weight: {report.skipped}{_hint(report)}")
    return Prunable(result, report)


def maskable(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    """Return the weights of ``layer`` that are prunable by kind; if there are none, those that may be named.

    This includes quantised weights, which `prunable` refuses.
    """
    found = classified(layer)
    for kinds in (PRUNED, (*DENSE, UNKNOWN)):
        weights = {entry.path: entry.variable for entry, kind in found if kind in kinds}
        if weights:
            return weights
    return {}


@on_whole
def unknown_layers(model: keras.Model) -> dict[str, tuple[str, ...]]:
    """Return layers with weights of unknown kind: layer path → paths of those weights.

    They stay dense unless ``also`` or ``include`` names them, or `register_prunable` registers their class.
    """
    check_model(model)
    result: dict[str, tuple[str, ...]] = {}
    for entry, kind in classified(model):
        if kind == UNKNOWN:
            result[entry.layer_path] = (*result.get(entry.layer_path, ()), entry.path)
    return result


def refuse_replaced_weights(chosen: Iterable[Entry]) -> None:
    """Raise if a layer computes with something other than the weight to be masked."""
    for entry in chosen:
        reason = replaced(entry.layer)
        if reason:
            raise ValueError(
                f"layer {entry.layer_path!r} {reason}, so a mask on {entry.path!r} would not hold: "
                "mask the model earlier, merge the layer back into a plain one, or exclude it"
            )


def replaced(layer: keras.layers.Layer) -> str | None:
    """Return why ``layer`` does not compute with its kernel, or None."""
    if getattr(layer, "lora_enabled", False):
        return "has LoRA enabled"
    mode = getattr(layer, "quantization_mode", None)
    return f"is quantised ({mode})" if mode else None


def _select(model: keras.Model, include: Filter, exclude: Filter, also: Filter) -> tuple[list[Entry], list[Weight]]:
    found = classified(model)
    by_path = {entry.path: entry.variable for entry, _ in found}

    def call(function: Callable[[str, keras.Variable], bool], path: str) -> bool:
        return bool(function(path, by_path[path]))

    for name, given in {"include": include, "exclude": exclude, "also": also}.items():
        _refuse_layers(name, given)
    candidates = [entry.path for entry, kind in found if kind in (*PRUNED, *DENSE, UNKNOWN)]
    default = {entry.path for entry, kind in found if kind in PRUNED}
    of = "prunable weight"
    included = default if include is None else chosen(include, candidates, "include", call=call, of=of)
    included = included | chosen(also, candidates, "also", call=call, of=of)
    excluded = chosen(exclude, [entry.path for entry, _ in found if not entry.seed], "exclude", call=call)

    selected, rows = [], []
    for entry, kind in found:
        if entry.seed:
            continue
        reason = kind
        if entry.path in included and entry.path not in excluded:
            selected.append(entry)
            reason = ""
        elif entry.path in included:
            reason = "excluded"
        elif entry.path in default:
            reason = "not included"
        frozen = not entry.variable.trainable and kind != "not trained"
        rows.append(Weight(entry.path, kind, tuple(entry.variable.shape), reason, frozen))
    return selected, rows


def _refuse_layers(name: str, given: Filter) -> None:
    for item in given if isinstance(given, (list, tuple)) else [given]:
        if isinstance(item, (keras.layers.Layer, keras.Variable)):
            raise TypeError(f"{name} takes names, not objects: use {name}={item.name!r}")


def _hint(report: Report) -> str:
    dense = [row for row in report.rows if row.reason in (*DENSE, UNKNOWN)]
    if not dense:
        return ""
    return f"; also={dense[0].path.split('/')[-1]!r} prunes {shown_as(dense[0].path)}"
