"""Lowers training steps for TPU, on a machine without one; run by the Python of `environment`.

What is lowered is what the training loop has compiled: the step that each replica of a TPU runs, which is the forward
pass, the loss, the backward pass, the gradients masked, the optimizer's update and the metrics; and a call of many such
steps, each with its batch gathered and augmented on the device. Variables are arguments and results there
(`arguments`).
"""

from __future__ import annotations

import os

os.environ.update(
    TPU_SKIP_MDS_QUERY="1",
    TPU_WORKER_HOSTNAMES="localhost",
    # Else a second process on this machine would not load it.
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
)

import functools
import json
import re
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import keras_lth as lth
from keras_lth import datasets, models, training
from keras_lth.ops import tensorflow as tf_ops
from keras_lth.training import feeds
from tests.tpu.arguments import with_variables_as_arguments
from tests.tpu.recorded import recorded
from tests.two_devices import report

SHAPE, CLASSES, BATCH, STEPS = (32, 32, 3), 10, 16, 3
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(1e-3, 20, 0.9)),
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-4, global_clipnorm=1.0),
}
# Beside those of the package by name: a network with one block a stage.
SMALL: dict[str, Callable[..., keras.Model]] = {"resnet_8": functools.partial(models.resnet_cifar, depth=8)}
# What a program for a TPU has where it calls the host or code that it does not contain.
OUTSIDE = re.compile(r"\b(infeed|outfeed|send|recv|send-done|recv-done|custom-call)\(")


def compiled(model: keras.Model, optimizer: str) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(OPTIMIZERS[optimizer](), loss, metrics=["accuracy"])
    return model


def examples(**options: Any) -> Any:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(STEPS * BATCH, *SHAPE)).astype(np.float32), random.integers(0, CLASSES, STEPS * BATCH)
    return datasets.ordered(x, y, batch_size=BATCH, seed=1, **options)


def step_of(model: keras.Model) -> str:
    """The HLO of the step that the loop gives to a TPU's replicas; the hosts read its batches."""
    with mock.patch.object(feeds, "on_tpu", lambda _: True), recorded() as calls:
        training.Loop(model, examples(), jit_compile=True).run(0, STEPS, seed=1)
    return hlo_of(*calls)


def evaluation_of(model: keras.Model) -> str:
    """The HLO of a step of an evaluation."""
    with mock.patch.object(feeds, "on_tpu", lambda _: True), recorded() as calls:
        training.evaluate(model, examples(), jit_compile=True)
    return hlo_of(*calls)


def call_of(model: keras.Model) -> str:
    """The HLO of a whole call of the loop with the examples on the device: steps that gather and augment batches."""
    with mock.patch.object(feeds, "convolves_on_cpu", lambda _: False), recorded() as calls:
        training.Loop(model, examples(augment=("crop", "flip")), jit_compile=True).run(0, STEPS, seed=1)
    return hlo_of(*calls)


def hlo_of(call: Any) -> str:
    run, values, captured = with_variables_as_arguments(call.traced)
    # Only their shapes and types count.
    return hlo(run, values, [tf.zeros(one.shape, one.dtype) for one in (*captured, *call.arguments)])


def hlo(function: Any, *arguments: Any) -> str:
    compiler = tf.function(function, jit_compile=True).experimental_get_compiler_ir(*arguments)
    return compiler(stage="hlo", platform_name="TPU")


def refusal(lower: Callable[..., Any], *arguments: Any) -> str:
    try:
        lower(*arguments)
    except ValueError as error:
        return str(error).splitlines()[0]
    return "not refused"


def described(text: str) -> dict[str, Any]:
    """Of an HLO module: its arguments and results, the shapes selected from by a mask, calls that leave it."""
    signature = re.search(r"entry_computation_layout=\{\((.*)\)->\((.*)\)\}", text.replace("/*index=", "/*"))
    assert signature is not None
    arguments, results = (re.findall(r"([a-z]\w+\[[\d,]*\])", side) for side in signature.groups())
    return {
        "arguments": arguments,
        "results": results,
        "selects": sorted(set(re.findall(r" select\(pred\[([\d,]+)\]", text))),
        "loops": len(re.findall(r" while\(", text)),
        "outside": sorted(set(OUTSIDE.findall(text))),
    }


def models_lowered(asked: dict[str, list[str]]) -> dict[str, Any]:
    """For each model what is asked for: a step dense and masked to a fifth, of an evaluation, and a call of many."""
    lower = {"adam": step_of, "call": call_of, "evaluation": evaluation_of}
    rows: dict[str, Any] = {}
    for name, kinds in asked.items():
        make = SMALL.get(name) or getattr(models, name)
        model = compiled(make(SHAPE, CLASSES, seed=1), "adam")
        masks = lth.select(lth.criteria.Magnitude()(model), density=0.2)
        texts = {"dense": step_of(model)} if "dense" in kinds else {}
        lth.mask(model, masks)
        texts |= {kind: lower[kind](model) for kind in lower if kind in kinds}
        if "sgd" in kinds:
            texts["sgd"] = step_of(compiled(model, "sgd"))
        rows[name] = {kind: described(text) for kind, text in texts.items()}
        rows[name]["masks"] = [",".join(map(str, mask.shape)) for mask in masks.values()]
    return rows


def half_precision() -> dict[str, Any]:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = compiled(models.lenet_300_100(SHAPE, CLASSES, seed=1), "sgd")
    keras.config.set_dtype_policy("float32")
    lth.mask(model, lth.select(lth.criteria.Magnitude()(model), density=0.2))
    text = step_of(model)
    return {**described(text), "products": sorted(set(re.findall(r"= (\w+)\[[\d,]*\]\S* dot\(", text)))}


def sparse() -> dict[str, Any]:
    """A step of a network whose kernels are stored sparse: they are made dense, then multiplied."""
    model = compiled(models.lenet_300_100(SHAPE, CLASSES, seed=1), "adam")
    masks = lth.select(lth.criteria.Magnitude()(model), density=0.05)
    lth.sparsify(model, masks, only_if_faster=False)
    return {**described(step_of(model)), "stored": [int(mask.sum()) for mask in masks.values()]}


class Through(keras.layers.Layer):
    """Its input through a function of TensorFlow."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def call(self, x: Any) -> Any:
        return tf.ensure_shape(self.function(x), x.shape)


def host_calls() -> dict[str, str]:
    """Of models that differ in one layer only: the one without a host call, and two with one."""
    functions: dict[str, Any] = {
        "none": lambda x: x + 1,
        "py_function": lambda x: tf.py_function(lambda a: a + 1, [x], tf.float32),
        "numpy_function": lambda x: tf.numpy_function(lambda a: a + 1, [x], tf.float32),
    }

    def model(function: Any) -> keras.Model:
        layers = [keras.Input(SHAPE), keras.layers.Flatten(), Through(function), keras.layers.Dense(CLASSES)]
        return compiled(keras.Sequential(layers), "adam")

    return {name: refusal(step_of, model(function)) for name, function in functions.items()}


def own_ops() -> dict[str, Any]:
    """The op of our C++ library, and the product that chooses what computes it."""
    library = tf_ops.library.load()
    assert library is not None
    structure = lth.ops.SparseStructure.from_mask(np.random.default_rng(0).random((8, 8)) < 0.5)
    arrays = [*tf_ops.tensors.indices(structure), tf_ops.tensors.geometry(structure, None)]
    x, values = tf.ones([BATCH, 8]), tf.ones([structure.stored, 1, 1])

    def raw(x: Any, values: Any) -> Any:
        return library.ops.keras_lth_sparse_matmul(x, values, *arrays, [], relu=False)

    def chosen(x: Any, values: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, values])
            y = tf_ops.sparse_matmul(x, values, structure, activation="relu")
        return y, *tape.gradient(y, [x, values])

    return {"op": refusal(hlo, raw, x, values), "product": described(hlo(chosen, x, values))}


if __name__ == "__main__":
    # As in the program that drives a pod: the TPUs are known to TensorFlow, but not among the devices of this process.
    tf.config.set_visible_devices(tf.config.list_physical_devices("CPU"))
    report(
        {
            "tensorflow": tf.__version__,
            "tpus": len(tf.config.list_logical_devices("TPU")),
            "models": models_lowered(json.loads(sys.argv[1])),
            "half_precision": half_precision(),
            "sparse": sparse(),
            "host_calls": host_calls(),
            "own_ops": own_ops(),
        }
    )
