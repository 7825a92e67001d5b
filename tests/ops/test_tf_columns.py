"""Products with single weights under XLA, which hand on their activations feature-major, against dense networks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_lth.ops import SparseStructure
from keras_lth.ops import tensorflow as tf_ops
from keras_lth.ops.tensorflow import columns
from tests.forms import spread
from tests.ops.tf_case import close, normal

WIDTH = 19
Product = Callable[[int, Any, str | None], Any]


def networks(seed: int, batch: tuple[int, ...], layers: int = 6) -> tuple[Any, Any, list[Any]]:
    """One network twice, of sparse products and of dense ones, and its arguments: x, values and biases.

    A layer takes the result of any layer before, so results have one reader, several, or none; some are added up.
    """
    draw = random.Random(seed)
    plan = [(draw.randrange(i + 1), draw.choice(("relu", "relu", None)), draw.random() < 0.7) for i in range(layers)]
    joined = [draw.randrange(layers) if draw.random() < 0.4 else None for _ in range(layers)]
    curved = [draw.random() < 0.3 for _ in range(layers)]
    masks = [np.random.default_rng([seed, i]).random((WIDTH, WIDTH)) < 0.3 for i in range(layers)]
    structures = [SparseStructure.from_mask(mask, (1, 1)) for mask in masks]
    kernels = [normal(WIDTH, WIDTH, seed=seed + i) * mask / 2 for i, mask in enumerate(masks)]
    biases = [normal(WIDTH, seed=100 * seed + i) for i in range(layers)]
    values = [s.values(kernel) for s, kernel in zip(structures, kernels, strict=True)]

    def network(product: Product, through: Any) -> Callable[..., Any]:
        def run(x: Any, *rest: Any) -> Any:
            made = [x]
            for i, (source, activation, biased) in enumerate(plan):
                made.append(product(i, (made[source], rest[i], rest[layers + i] if biased else None), activation))
                if activation is None and curved[i]:
                    made[-1] = through(made[-1], tf.tanh)
                if joined[i] is not None and joined[i] <= i:
                    made[-1] = made[-1] + made[joined[i]]
            return tf.add_n([tf.sin(y) for y in (made[-1], made[-2])])

        return run

    def sparse(i: int, arguments: Any, activation: str | None) -> Any:
        x, values, bias = arguments
        return tf_ops.sparse_matmul(x, values, structures[i], bias=bias, activation=activation)

    def dense(i: int, arguments: Any, activation: str | None) -> Any:
        x, values, bias = arguments
        y = tf.tensordot(x, tf_ops.to_dense(values, structures[i]), 1)
        y = y if bias is None else y + bias
        return tf.nn.relu(y) if activation else y

    one, other = network(sparse, columns.through), network(dense, lambda y, function: function(y))
    return one, other, [normal(*batch, WIDTH, seed=seed + 50), *values, *biases]


def first_and_second(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """A result, its gradients, and the gradients of a weighted sum of those."""

    def run(*arguments: Any) -> list[Any]:
        with tf.GradientTape() as outer:
            outer.watch(arguments)
            with tf.GradientTape() as inner:
                inner.watch(arguments)
                y = tf.reduce_sum(function(*arguments) ** 2)
            first = inner.gradient(y, arguments, unconnected_gradients="zero")
            weighted = tf.add_n([tf.reduce_sum(g * normal(*g.shape, seed=i)) for i, g in enumerate(first)])
        second = outer.gradient(weighted, arguments, unconnected_gradients="zero")
        return [y, *first, *second]

    return run


@pytest.mark.parametrize(
    ("seed", "batch"), spread(2, range(2), [(1,), (3,), (8,), (2, 5), (64,), (4, 25), (130,)]), ids=str
)
def test_networks_and_their_derivatives(seed: int, batch: tuple[int, ...]) -> None:
    sparse, dense, arguments = networks(10 * len(batch) + batch[0] + 1000 * seed, batch)
    given = [tf.constant(argument) for argument in arguments]
    got = tf.function(first_and_second(sparse), jit_compile=True, autograph=False)(*given)
    wanted = tf.function(first_and_second(dense), autograph=False)(*given)
    for one, other in zip(got, wanted, strict=True):
        close(one, other, tolerance=2e-4)


def test_activations_are_copied_at_the_ends_alone() -> None:
    structures = [SparseStructure.from_mask(np.random.default_rng(i).random((30, 30)) < 0.3, (1, 1)) for i in range(4)]
    values = [tf.constant(normal(s.room, 1, 1, seed=i)) for i, s in enumerate(structures)]

    @tf.function(jit_compile=True, autograph=False)
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(values)
            y = x
            for structure, value in zip(structures, values, strict=True):
                y = tf_ops.sparse_matmul(y, value, structure, activation="relu")
            loss = tf.reduce_sum(y**2)
        return tape.gradient(loss, values)

    x = tf.constant(normal(70, 30))
    text = step.experimental_get_compiler_ir(x)(stage="optimized_hlo")
    calls = [line for line in text.splitlines() if "custom-call(" in line]
    # x is packed, the result unpacked, its gradient packed; four products; three gradients of all, one of values alone.
    assert len(calls) == 3 + 4 + 4


def test_a_tensor_from_outside_of_a_loop() -> None:
    # The first copy is made in the body of a loop; outside, another one is needed.
    structure = SparseStructure.from_mask(np.random.default_rng(0).random((30, 20)) < 0.3, (1, 1))
    values = normal(structure.room, 1, 1)
    dense = np.asarray(tf_ops.to_dense(values, structure))

    @tf.function(jit_compile=True, autograph=False)
    def run(x: Any) -> Any:
        x = x * 2.0
        _, inside = tf.while_loop(
            lambda i, _: i < 3,
            lambda i, total: (i + 1, total + tf_ops.sparse_matmul(x, values, structure)),
            (tf.constant(0), tf.zeros([7, 20])),
        )
        return inside + tf_ops.sparse_matmul(x, values, structure)

    x = normal(7, 30)
    close(run(tf.constant(x)), 8 * x @ dense)


def test_what_is_behind_the_last_sample_stays_out() -> None:
    # A bias fills it with ones, which no sum may see: 70 samples in two tiles of 64.
    structure = SparseStructure.from_mask(np.ones((5, 5), bool), (1, 1))
    values = np.ones((25, 1, 1), np.float32)

    @tf.function(jit_compile=True, autograph=False)
    def gradients(x: Any, values: Any, bias: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([values, bias])
            y = tf_ops.sparse_matmul(x, values, structure, bias=bias, activation="relu")
            y = tf.reduce_sum(tf_ops.sparse_matmul(y, values, structure, bias=bias))
        return tape.gradient(y, [values, bias])

    got = gradients(tf.zeros([70, 5]), tf.constant(values), tf.ones([5]))
    # Layer 2: each weight meets 70 ones. Layer 1: inputs are 0; a bias goes 70 × 5 ways, and into layer 2 itself 70.
    close(got[0], np.full((25, 1, 1), 70.0))
    close(got[1], np.full(5, 70.0 * 5 + 70))
