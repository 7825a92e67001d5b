"""The training step with its variables made arguments computes what the training step does."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth import training
from tests.tpu.arguments import with_variables_as_arguments
from tests.tpu.recorded import recorded
from tests.training.networks import examples, network

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(1e-2),
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-4, global_clipnorm=1.0),
}


def values_of(traced: Any) -> list[np.ndarray]:
    return [value.numpy() for value in with_variables_as_arguments(traced)[1]]


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_the_same_bits_as_the_loop(optimizer: str) -> None:
    model = network(OPTIMIZERS[optimizer](), dropout=0.2)
    masks = lth.mask(model, lth.select(lth.criteria.Magnitude()(model), density=0.3))
    loop = training.Loop(model, examples(), jit_compile=True)
    with recorded() as calls:
        loop.run(0, 5, seed=7)
    ((traced, arguments),) = calls
    run, before, captured = with_variables_as_arguments(traced)
    state = [value.numpy() for value in before]
    rewritten = tf.function(run, jit_compile=True)
    got = [value.numpy() for value in rewritten(before, [*captured, *arguments])]
    # Running it has changed nothing.
    assert all(np.array_equal(one, other) for one, other in zip(values_of(traced), state, strict=True))

    training.Loop(model, examples(), jit_compile=True).run(0, 5, seed=7)
    after = values_of(traced)
    for one, other in zip(got, after, strict=True):
        np.testing.assert_array_equal(one, other)
    # Weights, slots, count, metrics and the seed of dropout move; three masks, and a rate without schedule, do not.
    moved = [not np.array_equal(one, other) for one, other in zip(state, after, strict=True)]
    assert sum(value.dtype == bool for value in state) == len(masks) == 2
    assert sum(moved) >= len(state) - len(masks) - 1
    for mask in masks.values():
        held = [value for value in got if value.shape == mask.shape]
        # The weight, at least one slot, the mask.
        assert len(held) >= 3
        assert all(not value[~mask].any() for value in held)


def test_an_unknown_operation_on_a_variable_is_named() -> None:
    variable = tf.Variable(tf.zeros([3, 2]))

    @tf.function
    def step() -> None:
        variable.scatter_add(tf.IndexedSlices(tf.ones([1, 2]), tf.constant([1])))

    run, values, captured = with_variables_as_arguments(step.get_concrete_function())
    with pytest.raises(NotImplementedError, match="ResourceScatterAdd on a variable"):
        tf.function(run)(values, captured)


def test_reads_see_the_assignments_before_them() -> None:
    variable = tf.Variable(2.0)

    @tf.function
    def step(x: Any) -> None:
        variable.assign_add(x)
        variable.assign(variable * variable)
        variable.assign_sub(1.0)

    argument = tf.constant(3.0)
    run, values, captured = with_variables_as_arguments(step.get_concrete_function(argument))
    assert [float(one) for one in tf.function(run)(values, [*captured, argument])] == [24.0]
    assert float(variable) == 2.0
