"""Structures in variables: what was traced with one follows each mask that is assigned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_lth import ops
from keras_lth.ops import SparseStructure
from keras_lth.ops import tensorflow as tf_ops
from tests.forms import short_if, spread
from tests.ops.test_structure import mask_of_blocks
from tests.ops.tf_case import MODES, Case, close, in_mode, normal, op_types, with_gradients
from tests.two_devices import result_of

PRODUCTS: dict[str, dict[str, Any]] = {
    "matmul": {"shape": (21, 30), "block": (4, 8), "x": (5, 21), "activation": "relu"},
    "matmul of single weights": {"shape": (21, 30), "block": None, "x": (70, 21)},
    "conv2d": {"shape": (3, 3, 5, 7), "block": None, "x": (2, 9, 8, 5), "strides": (2, 1), "padding": "same"},
    "conv2d of blocks": {"shape": (3, 3, 5, 7), "block": (2, 4), "x": (19, 9, 8, 5), "activation": "relu"},
}
# More blocks, fewer, none, as many as there is room for.
DENSITIES = (0.4, 0.7, 0.1, 0.0, 1.0, 0.4)


class Live:
    """A product of a live structure, and the dense one that it is now."""

    def __init__(self, product: str) -> None:
        options = dict(PRODUCTS[product])
        self.shape, self.block = options.pop("shape"), options.pop("block")
        self.x, self.options = normal(*options.pop("x")), options
        room = SparseStructure.from_mask(np.ones(self.shape, bool), self.block).stored
        self.masks = [mask_of_blocks(self.shape, self.block, density, i) for i, density in enumerate(DENSITIES)]
        self.structures = [SparseStructure.from_mask(mask, self.block, room) for mask in self.masks]
        self.live = tf_ops.LiveStructure(self.structures[0])
        self.bias = normal(self.shape[-1], seed=3)
        self.traces = 0

    def turns(self) -> Any:
        """Each structure in turn, assigned: values, NaN where there is none; the dense function of them."""
        for i, structure in enumerate(self.structures):
            self.live.assign(structure)
            kernel = normal(*self.shape, seed=i) * self.masks[i]
            values = structure.values(kernel)
            values[structure.stored :] = np.nan
            yield structure, values, kernel

    def case(self, structure: Any, kernel: Any) -> Case:
        return Case(structure, kernel, self.x, self.bias, **self.options)

    def sparse(self, x: Any, values: Any, bias: Any) -> Any:
        self.traces += 1
        return self.case(self.live, np.empty(self.shape)).sparse(x, values, bias)

    def check(self, function: Any) -> None:
        """The function gives results and gradients of every structure."""
        for structure, values, kernel in self.turns():
            got = function(*map(tf.constant, (self.x, values, self.bias)))
            dense = self.case(structure, kernel).dense
            wanted = with_gradients(dense)(self.x, kernel, self.bias)
            wanted[2] = structure.values(wanted[2].numpy() * structure.mask())
            for one, other in zip(got, wanted, strict=True):
                close(one, other)
            assert not np.any(got[2][structure.stored :])


@pytest.mark.parametrize(("product", "mode"), spread(2, PRODUCTS, MODES))
def test_a_function_follows_the_mask(product: str, mode: str) -> None:
    given = Live(product)
    values = given.structures[0].values(np.zeros(given.shape, np.float32))
    function = in_mode(with_gradients(given.sparse), mode, given.x, values, given.bias)
    given.check(function)
    assert given.traces == (1 if mode != "eager" else len(DENSITIES))
    if mode != "eager":
        found = op_types(function)
        assert ("KerasLthSparseMatmul" if "matmul" in product else "KerasLthSparseConv2d") in found or mode != "graph"
        assert "XlaCustomCallV2" in found or mode == "graph"
        assert not {"MatMul", "Conv2D", "ScatterNd"} & found


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize(("product", "mode"), spread(4, PRODUCTS, MODES))
def test_the_plain_path_follows_it(product: str, mode: str) -> None:
    given = Live(product)
    values = given.structures[0].values(np.zeros(given.shape, np.float32))
    given.check(in_mode(with_gradients(given.sparse), mode, given.x, values, given.bias))
    assert given.traces == (1 if mode != "eager" else len(DENSITIES))


@pytest.mark.parametrize(("product", "jit_compile"), spread(2, ["matmul", "conv2d"], [False, True]))
def test_in_a_loop(product: str, jit_compile: bool) -> None:
    given = Live(product)
    weights = tf.constant([1.0, 2.0, 3.0])

    def weighted(x: Any, values: Any, bias: Any) -> Any:
        def body(i: Any, y: Any) -> Any:
            return i + 1, y + weights[i] / 6 * given.sparse(x, values, bias)

        zeros = tf.zeros(given.case(given.structures[0], np.zeros(given.shape)).sparse(
            given.x, given.structures[0].values(np.zeros(given.shape)), given.bias).shape)  # fmt: skip
        return tf.while_loop(lambda i, y: i < 3, body, (tf.constant(0), zeros), maximum_iterations=3)[1]

    function = tf.function(with_gradients(weighted), jit_compile=jit_compile, autograph=False)
    given.check(function)
    assert function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(("product", "mode", "live"), spread(4, PRODUCTS, ["eager", "graph", "jit"], [False, True]))
def test_to_dense(product: str, mode: str, live: bool) -> None:
    given = Live(product)
    cotangent = normal(*given.shape, seed=9)
    for structure, values, kernel in given.turns():
        of = given.live if live else structure

        def dense(values: Any, of: Any = of) -> Any:
            return tf_ops.to_dense(values, of)

        got, gradient = in_mode(with_gradients(lambda v, f=dense: f(v) * cotangent), mode, values)(values)
        np.testing.assert_array_equal(got, kernel * cotangent)
        close(gradient, structure.values(np.cos(kernel * cotangent) * cotangent))
        assert not np.any(gradient[structure.stored :])
    assert tf_ops.to_dense(tf.cast(values, tf.bfloat16), of).dtype == tf.bfloat16


def test_to_dense_of_bad_arguments() -> None:
    structure = SparseStructure.from_mask(np.eye(3, dtype=bool), room=5)
    for arguments, error, message in [
        ((normal(3, 1, 1), structure), ValueError, r"values has shape \(3, 1, 1\); the structure needs \[5, 1, 1\]"),
        ((np.zeros([5, 1, 1]), structure), TypeError, "values is float64"),
        ((normal(5, 1, 1), np.eye(3)), TypeError, "structure is ndarray, not SparseStructure"),
    ]:
        with pytest.raises(error, match=message):
            tf_ops.to_dense(*arguments)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_kernel_that_has_checked_the_variables_looks_again(mode: str) -> None:
    """It holds what it found good, so a variable that is written to moves elsewhere."""
    given = Live("matmul")
    function = in_mode(given.sparse, mode, given.x, given.structures[0].values(np.zeros(given.shape)), given.bias)
    others = given.live.others
    for structure, values, kernel in given.turns():
        wanted = given.case(structure, kernel).dense(given.x, kernel, given.bias)
        for _ in range(3):
            close(function(given.x, values, given.bias), wanted)
        if structure.stored == 0:
            continue
        others.scatter_nd_update([[0]], [77])
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"others holds a number that is not in 0\.\.\.5"):
            function(given.x, values, given.bias)
        others.assign(structure.others)
        close(function(given.x, values, given.bias), wanted)


def test_what_is_assigned_is_a_copy() -> None:
    given = Live("matmul")
    wanted = [array.copy() for array in given.structures[1].indices]
    given.live.assign(given.structures[1])
    for array in given.structures[1].indices:
        array.flags.writeable = True
        array[:] = 3
    for one, other in zip(given.live.indices, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_attributes_and_bad_arguments() -> None:
    mask = np.random.default_rng(0).random((3, 3, 5, 7)) < 0.2
    structure = SparseStructure.from_mask(mask, room=100)
    live = tf_ops.LiveStructure(structure)
    assert live.structure == structure
    assert (live.shape, live.block, live.taps, live.rows, live.cols, live.room) == ((3, 3, 5, 7), (1, 1), 9, 5, 7, 100)
    assert repr(live) == f"LiveStructure({structure!r})"
    assert len(live.variables) == 5
    assert not live.trainable_variables
    for other in (
        SparseStructure.from_mask(mask),
        SparseStructure.from_mask(mask[:2], room=100),
        SparseStructure.from_mask(np.ones((3, 3, 5, 7), bool), (5, 7), room=100),
    ):
        with pytest.raises(ValueError, match=r"assigned has shape .* this one shape .*, block=\(1, 1\), room=100\)"):
            live.assign(other)
    with pytest.raises(TypeError, match="structure is ndarray, not SparseStructure"):
        live.assign(mask)
    with pytest.raises(TypeError, match="structure is ndarray, not SparseStructure"):
        tf_ops.LiveStructure(mask)
    with pytest.raises(RuntimeError, match="assigned while a function is traced: assign it between two calls"):
        tf.function(live.assign, autograph=False)(structure)
    assert live.structure == structure
    x = normal(1, 5, 5, 5)
    with pytest.raises(ValueError, match="sparse_matmul needs"):
        tf_ops.sparse_matmul(x, structure.values(np.zeros(mask.shape)), live)
    with pytest.raises(ValueError, match=r"values has shape \(3,\); the structure needs \[100, 1, 1\]"):
        tf_ops.sparse_conv2d(x, np.zeros(3, np.float32), live)
    with pytest.raises(TypeError, match=r"structure is LiveStructure; NumPy arrays need its \.structure"):
        ops.sparse_conv2d(x, structure.values(np.zeros(mask.shape)), live)
    close(ops.sparse_conv2d(tf.constant(x), structure.values(np.ones(mask.shape)), live),
          tf.nn.conv2d(x, mask.astype(np.float32), 1, "VALID"))  # fmt: skip


def loaded_indices(loaded: Any) -> list[Any]:
    return [getattr(loaded.live, name) for name in tf_ops.live.NAMES]


class Module(tf.Module):
    """A product of a live structure."""

    def __init__(self, given: Live, jit_compile: bool) -> None:
        super().__init__()
        self.live = given.live
        self.values = tf.Variable(given.structures[0].values(np.zeros(given.shape)))
        bias = tf.constant(given.bias)
        spec = tf.TensorSpec([None, *given.x.shape[1:]])
        self.run = tf.function(
            lambda x: given.sparse(x, self.values, bias),
            input_signature=[spec],
            jit_compile=jit_compile,
            autograph=False,
        )


@pytest.mark.parametrize(("product", "jit_compile"), spread(2, ["matmul", "conv2d"], [False, True]))
def test_saved_with_the_mask_that_it_has_then(product: str, jit_compile: bool, tmp_path: Path) -> None:
    given = Live(product)
    module = Module(given, jit_compile)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    for i, (structure, values, kernel) in enumerate(given.turns()):
        if i == 2:
            break
        module.values.assign(values)
        wanted = given.case(structure, kernel).dense(given.x, kernel, given.bias)
        close(module.run(given.x), wanted)
        tf.saved_model.save(module, str(tmp_path / str(i)), options=options)
        loaded = tf.saved_model.load(str(tmp_path / str(i)))
        close(loaded.run(given.x), wanted)
    # What was loaded has the variables, too.
    for variable, array in zip(loaded_indices(loaded), given.structures[4].indices, strict=True):
        variable.assign(array)
    kernel = normal(*given.shape, seed=7)
    loaded.values.assign(given.structures[4].values(kernel))
    close(loaded.run(given.x), given.case(given.structures[4], kernel).dense(given.x, kernel, given.bias))


class Layer(keras.layers.Layer):
    """A trained sparse product whose mask can change."""

    def __init__(self, given: Live) -> None:
        super().__init__()
        self.given, self.live = given, given.live
        self.stored = self.add_weight(shape=(given.live.room, *given.live.block), initializer="ones")
        self.offset = self.add_weight(shape=given.bias.shape, initializer="zeros")

    def call(self, x: Any) -> Any:
        return self.given.sparse(x, self.stored, self.offset)


@pytest.mark.parametrize("jit_compile", short_if(bool, [False, True]))
def test_keras_trains_and_exports_it(jit_compile: bool, tmp_path: Path) -> None:
    given = Live("matmul of single weights")
    layer = Layer(given)
    model = keras.Sequential([keras.Input((21,)), layer])
    model.compile("adam", "mse", jit_compile=jit_compile)
    targets = normal(70, 30)
    counts = []
    for structure, _, _ in given.turns():
        model.fit(given.x, targets, batch_size=32, epochs=1, shuffle=False, verbose=0)
        counts.append(given.traces)
        kernel = structure.to_dense(layer.stored.numpy())
        close(model.predict(given.x, verbose=0), given.x @ kernel + layer.offset.numpy())
    assert counts[0] <= given.traces <= counts[0] + 2
    assert counts[1] == counts[-1]
    assert len(model.weights) == 2
    model.export(str(tmp_path), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    close(loaded.serve(given.x), model(given.x))


def test_under_a_strategy_of_two_replicas() -> None:
    result = result_of(Path(__file__).with_name("live_program.py"))
    assert result["replicas"] == 2
    assert result["traces"] == 1
    assert max(result["errors"]) < 1e-5
