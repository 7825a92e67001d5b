"""What is prunable is decided weight by weight, from a table that users extend, and reported."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import surgery

L = keras.layers


class Gated(L.Dense):
    """A Dense with a further matrix."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.U = self.add_weight(shape=(int(shape[-1]), self.units), name="U")

    def call(self, x: Any) -> Any:
        return super().call(x) * keras.ops.sigmoid(x @ self.U)


class Peephole(L.LSTMCell):
    """A cell with a further matrix."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.p = self.add_weight(shape=(self.units, self.units), name="peephole")


class Conditioned(L.LayerNormalization):
    """A normalisation with a matrix."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        self.w = self.add_weight(shape=(int(shape[-1]), int(shape[-1])), name="project")

    def call(self, x: Any) -> Any:
        return super().call(x) @ self.w


class Free(L.Layer):
    """A layer of nobody's kind, whose weight has no name."""

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(int(shape[-1]), 4))

    def call(self, x: Any) -> Any:
        return x @ self.w


def own() -> keras.Model:
    layers = [Gated(8), Conditioned(), L.RNN(Peephole(4)), Free(name="free")]
    model = keras.Sequential([keras.Input((6, 10)), *layers])
    model.get_layer("free").trainable = False
    return model


KNOWN = ["gated/kernel", "rnn/cell/kernel", "rnn/cell/recurrent_kernel"]
UNKNOWN = ["gated/U", "conditioned/project", "rnn/cell/peephole", "free/w"]


def test_further_matrices_and_frozen_layers_are_listed_and_can_be_named() -> None:
    model = own()
    weights = lth.prunable(model)
    assert list(weights) == KNOWN
    assert [path for paths in lth.unknown_layers(model).values() for path in paths] == UNKNOWN
    for path in UNKNOWN:
        assert path in str(weights), path
        assert list(lth.prunable(model, include=path)) == [path]
        assert set(lth.prunable(model, also=path.split("/")[-1])) == {*KNOWN, path}
    assert set(lth.prunable(model, also=["U", "free"], exclude="rnn")) == {"gated/kernel", "gated/U", "free/w"}
    frozen = [row.path for row in weights.report.rows if row.frozen]
    assert frozen == ["free/w"]
    masks = lth.mask(model, {"free/w": np.eye(4) > 0})
    assert masks == surgery.masks_of(model)
    assert np.count_nonzero(model.get_layer("free").w.numpy()) == 4


def test_paths_of_unnamed_weights_are_the_same_in_every_instance() -> None:
    assert list(surgery.variables(own())) == list(surgery.variables(own()))


def test_registered_classes_and_layers_that_declare() -> None:
    class Mixed(Free):
        pass

    class Stated(Gated):
        prunable_weights = ("U",)

    class Property(Free):
        @property
        def prunable_weights(self) -> list[keras.Variable]:
            return [self.w]

    class Misspelt(Free):
        prunable_weights = ("kernel",)

    def model(layer: L.Layer) -> keras.Model:
        return keras.Sequential([keras.Input((10,)), layer, L.Dense(4, name="head")])

    assert list(lth.prunable(model(Mixed()))) == ["head/kernel"]
    # By the attribute's name where the weight has none of its own.
    with pytest.raises(ValueError, match=r"\['kernel'\]"):
        lth.register_prunable(Mixed, [])
    with pytest.raises(TypeError, match="subclass"):
        lth.register_prunable(Mixed(), ["w"])
    assert lth.register_prunable(Mixed, "w") is Mixed
    assert list(lth.prunable(model(Mixed()))) == ["mixed/w", "head/kernel"]
    # What a layer states is all that is pruned of it.
    assert list(lth.prunable(model(Stated(4)))) == ["stated/U", "head/kernel"]
    assert list(lth.prunable(model(Property()))) == ["property/w", "head/kernel"]
    with pytest.raises(ValueError, match=r"'kernel'; its weights are"):
        lth.prunable(model(Misspelt()))


class Tokens(L.Layer):
    """Class token, positions, relative biases and experts, as vision and language models make them."""

    def build(self, shape: Any) -> None:
        width = int(shape[-1])
        self.a = self.add_weight(shape=(1, 1, width), name="cls_token")
        self.b = self.add_weight(shape=(4, width), name="position_embeddings")
        self.c = self.add_weight(shape=(3, 2), name="relative_position_bias_table")
        self.d = self.add_weight(shape=(2, width), name="gate_bias")
        self.e = self.add_weight(shape=(2, width, width), name="mixer")

    def call(self, x: Any) -> Any:
        return x + self.a + self.b


def language() -> keras.Model:
    tokens = keras.Input((4,), dtype="int32")
    table = L.ReversibleEmbedding(7, 6, tie_weights=True, name="table")
    x = L.Dense(6, name="inner")(Tokens(name="tokens")(table(tokens)))
    return keras.Model(tokens, table(x, reverse=True))


def test_tables_tokens_and_positions_are_dense_by_a_printed_rule() -> None:
    model = language()
    weights = lth.prunable(model)
    assert list(weights) == ["inner/kernel"]
    kinds = {row.path: row.kind for row in weights.report.rows}
    assert kinds == {
        "table/embeddings": "embedding",
        "tokens/cls_token": "token",
        "tokens/position_embeddings": "position embedding",
        "tokens/relative_position_bias_table": "relative position",
        "tokens/gate_bias": "bias",
        "tokens/mixer": "unknown kind",
        "inner/kernel": "kernel",
        "inner/bias": "bias",
    }
    text = str(weights)
    assert "left dense by rule; also= prunes those it names, such as also='embeddings'" in text
    assert text.splitlines()[-1] == weights.report.summary
    assert weights.report.summary.startswith("prunable: 36 of 204 weights (17.6%) in 1 array;")
    assert set(lth.prunable(model, also="embeddings")) == {"inner/kernel", "table/embeddings"}
    with pytest.raises(ValueError, match="include='gate_bias' matches no prunable weight"):
        lth.prunable(model, include="gate_bias")
    # One threshold over all no longer empties the table: it is not under it.
    masks = lth.select(lth.criteria.Magnitude()(model), density=0.25)
    assert dict(masks).keys() == {"inner/kernel"}
    assert masks.remaining == 9
    assert list(lth.criteria.Random(1, also="embeddings")(model)) == ["table/embeddings", "inner/kernel"]


def test_kinds_of_other_libraries_are_known_by_name() -> None:
    expert = type("MixtralMoeExperts", (L.Layer,), {"__module__": "keras_hub.src.models.mixtral"})
    layer = expert(name="experts")
    layer.add_weight(shape=(2, 3, 4), name="expert_feedforward_gate_dense")
    layer.built = True
    assert [kind for _, kind in surgery.kinds.classified(layer)] == ["expert kernel"]


def test_warnings_are_short_and_come_once_for_a_cause_and_a_model() -> None:
    wide = [keras.layers.Dense(4, name=f"a_layer_with_a_rather_long_name_{i}") for i in range(40)]
    model = keras.Sequential([keras.Input((4,)), *wide, Free(name="free")])
    empty = {path: np.zeros(tuple(v.shape), bool) for path, v in lth.prunable(model).items()}
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for _ in range(2):
            lth.mask(model, empty)
    texts = [str(w.message) for w in record]
    assert len(texts) == 2
    assert all(len(text) <= 300 for text in texts)
    assert any(text.startswith("40 of 40 layers are empty: a_layer_with") and "…" in text for text in texts)
    assert any("also=" in text and "free/w" in text for text in texts)


def test_what_select_said_is_not_said_again() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(4), L.Dense(4)])
    scores = {"dense/kernel": np.ones((4, 4)), "dense_1/kernel": np.zeros((4, 4))}
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        lth.mask(model, lth.select(scores, 0.5))
    assert [str(w.message).split(":")[0] for w in record] == ["1 of 2 layers are empty"]
    assert "min_per_layer=1" in str(record[0].message)


def test_masks_carry_their_report() -> None:
    model = own()
    masks = lth.mask(model, lth.select(lth.criteria.Magnitude()(model), 0.5, exclude="rnn"))
    assert masks == lth.Masks(dict(masks)) and lth.Masks(dict(masks)) == masks
    assert [row.path for row in masks.report.groups["masked"]] == KNOWN
    assert "gated/U" in str(masks) and "masked: " in str(masks)
    assert "<table>" in masks._repr_html_() and "<table>" in lth.prunable(model)._repr_html_()
