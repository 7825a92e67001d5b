"""What the package trains with can be compiled for a TPU, shown without one.

TensorFlow's own compiler for TPUs lowers what the training loop has compiled to HLO: `program` says what that is.
It refuses what no TPU can run. The step from HLO to a TPU's machine code needs a TPU and is not shown here, nor is the
exchange between replicas: what is lowered is the program of one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tpu import environment

PROGRAM = Path(__file__).with_name("program.py")


KINDS = ("dense", "adam", "sgd", "evaluation", "call")
# In every run all of the first model; of the other what differs, which is what is masked: a step, and a call of many.
SHORT = {"lenet_300_100": KINDS, "resnet_8": ("adam", "call")}
LONG = {"resnet_20": KINDS}
LOWERED = [*SHORT.items(), *(pytest.param(name, kinds, marks=pytest.mark.proof) for name, kinds in LONG.items())]


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return environment.result_of(PROGRAM, json.dumps(SHORT))


def row_of(name: str, kinds: tuple[str, ...]) -> dict[str, Any]:
    return environment.result_of(PROGRAM, json.dumps(SHORT if name in SHORT else LONG))["models"][name]


def masks_in(shapes: list[str]) -> list[str]:
    return [shape.removeprefix("pred[").removesuffix("]") for shape in shapes if shape.startswith("pred[")]


def test_there_is_no_tpu_and_no_other_tensorflow(result: dict[str, Any]) -> None:
    assert f"tensorflow-tpu=={result['tensorflow']}" in environment.REQUIREMENTS.read_text()
    assert result["tpus"] == 0


@pytest.mark.parametrize(("name", "kinds"), LOWERED)
def test_the_step_of_every_model_is_lowered(name: str, kinds: tuple[str, ...]) -> None:
    row = row_of(name, kinds)
    assert len(row["masks"]) >= 3
    assert row.keys() == {*kinds, "masks"}
    for kind in row.keys() - {"call", "masks"}:
        module = row[kind]
        assert module["outside"] == []
        # All variables go in and come out; what else goes in is the batch.
        assert module["arguments"][: len(module["results"])] == module["results"]
        assert module["arguments"][len(module["results"]) :] == ["f32[16,32,32,3]", "s64[16]"]
    if kinds == KINDS:
        count = {kind: len(row[kind]["results"]) for kind in ("dense", "adam", "sgd", "evaluation")}
        assert count["adam"] == count["dense"] + len(row["masks"])
        # Two slots a weight, one, none.
        assert count["adam"] > count["sgd"] > count["evaluation"]


@pytest.mark.parametrize(("name", "kinds"), LOWERED)
def test_many_steps_are_one_loop_on_the_device(name: str, kinds: tuple[str, ...]) -> None:
    module, step = row_of(name, kinds)["call"], row_of(name, kinds)["adam"]
    assert module["outside"] == []
    assert module["results"] == step["results"]
    # All examples and their order go in.
    assert {"f32[48,32,32,3]", "s64[48]"} <= set(module["arguments"][len(module["results"]) :])
    assert module["loops"] == step["loops"] + 1


@pytest.mark.parametrize(("name", "kinds"), LOWERED)
def test_the_masks_are_in_the_step(name: str, kinds: tuple[str, ...]) -> None:
    row = row_of(name, kinds)
    for kind in {"adam", "sgd", "call"} & row.keys():
        assert sorted(masks_in(row[kind]["arguments"])) == sorted(row["masks"])
        assert set(row["masks"]) <= set(row[kind]["selects"])
    if "dense" in kinds:
        assert masks_in(row["dense"]["arguments"]) == []
        assert not set(row["masks"]) & set(row["dense"]["selects"])


def test_half_precision_is_lowered(result: dict[str, Any]) -> None:
    row = result["half_precision"]
    assert row["products"] == ["bf16"]
    assert row["outside"] == []
    assert masks_in(row["arguments"]) == ["3072,300", "300,100", "100,10"]


def test_sparse_layers_are_lowered_as_their_dense_form(result: dict[str, Any]) -> None:
    row = result["sparse"]
    assert row["outside"] == []
    # Of a weight and its two slots the stored values alone go in and come out.
    for stored in row["stored"]:
        assert row["results"].count(f"f32[{stored},1,1]") == 3


def test_a_host_call_in_the_step_is_refused(result: dict[str, Any]) -> None:
    found = result["host_calls"]
    assert found["none"] == "not refused"
    for name, op in [("py_function", "EagerPyFunc"), ("numpy_function", "PyFunc")]:
        assert "XLA_TPU_JIT" in found[name]
        assert f"No registered '{op}' OpKernel" in found[name]


def test_the_op_of_the_core_is_refused_and_the_product_does_without(result: dict[str, Any]) -> None:
    found = result["own_ops"]
    assert "No registered 'KerasLthSparseMatmul' OpKernel for XLA_TPU_JIT" in found["op"]
    assert found["product"]["outside"] == []
    # x, 31 or so stored values and their places; the product and the gradients of x and of the values.
    assert found["product"]["results"] == ["f32[16,8]", *found["product"]["arguments"][:2]]
