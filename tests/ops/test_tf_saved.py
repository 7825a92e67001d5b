"""The ops in SavedModels that a fresh process loads, and the plain path that stands in for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_lth.ops import tensorflow as tf_ops
from tests import forms
from tests.forms import spread
from tests.ops.tf_case import MODES, case, check_product, in_mode, op_types, with_gradients

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "matmul": case((21, 30), (4, 8), (5,), activation="relu"),
    "conv2d": case((3, 3, 5, 7), None, (2, 9, 8), strides=(2, 1), padding="same"),
    "matmul with room": case((21, 30), (4, 8), (5,), more_room=4, activation="relu"),
    "conv2d with room": case((3, 3, 5, 7), None, (2, 9, 8), more_room=9, strides=(2, 1), padding="same"),
}

LOADER = """
import json, sys
import numpy as np, tensorflow as tf
import keras_lth.ops.tensorflow
found = {}
for folder in sys.argv[1:]:
    loaded = tf.saved_model.load(folder)
    x = tf.constant(np.load(folder + "/x.npy"))
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = loaded.run(x)
            loss = tf.reduce_sum(tf.sin(y))
        return [y, *tape.gradient(loss, [x, loaded.values])]
    result = [array.numpy().ravel().tolist() for array in (tf.function(run) if folder.endswith("jit") else run)(x)]
    shape = loaded.run.get_concrete_function(x).output_shapes.as_list()
    found[folder] = {"result": result, "shape": shape}
print("RESULT", json.dumps(found))
"""


class Module(tf.Module):
    """A sparse product with its values as a variable."""

    def __init__(self, given: Any, jit_compile: bool) -> None:
        super().__init__()
        self.values = tf.Variable(given.values)
        spec = tf.TensorSpec([None, *given.x.shape[1:]])
        bias = tf.constant(given.bias)
        self.run = tf.function(
            lambda x: given.sparse(x, self.values, bias),
            input_signature=[spec],
            jit_compile=jit_compile,
            autograph=False,
        )


SAVED = spread(2, CASES, ["graph", "jit"])


@pytest.fixture(scope="module")
def loaded_again(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By name of the folder, "product/mode", what a fresh process computes with all that is saved in this run."""
    place, folders = tmp_path_factory.mktemp("saved"), []
    for product, mode in (cell.values for cell in SAVED if bool(cell.marks) == forms.proving):
        given, folder = CASES[product], place / product / mode
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
        tf.saved_model.save(Module(given, mode == "jit"), str(folder), options=options)
        np.save(folder / "x.npy", given.x)
        folders.append(folder)
    done = subprocess.run(
        [sys.executable, "-c", LOADER, *map(str, folders)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.split("RESULT", 1)[1])
    return {str(Path(folder).relative_to(place)): row for folder, row in found.items()}


@pytest.mark.parametrize(("product", "mode"), SAVED)
def test_saved_and_loaded(product: str, mode: str, loaded_again: dict[str, Any]) -> None:
    given, loaded = CASES[product], loaded_again[f"{product}/{mode}"]
    y, dx, dvalues, _ = with_gradients(given.sparse)(given.x, given.values, given.bias)
    for got, wanted in zip(loaded["result"], (y, dx, dvalues), strict=True):
        np.testing.assert_allclose(got, np.ravel(wanted), rtol=1e-4, atol=1e-4)
    # What the shape functions know: all but the batch.
    assert loaded["shape"] == [None, *y.shape[1:]]


# ---- Without the library ----


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize(("product", "mode"), spread(2, CASES, MODES))
def test_the_plain_path_gives_the_same(product: str, mode: str) -> None:
    check_product(CASES[product], mode)


@pytest.mark.usefixtures("no_library")
def test_the_plain_path_uses_tensorflows_ops() -> None:
    given = CASES["matmul"]
    found = op_types(in_mode(given.sparse, "graph", given.x, given.values, given.bias))
    assert {"MatMul", "ScatterNd"} <= found
    assert not {op for op in found if op.startswith("KerasLth")}


def test_one_warning_where_there_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "_tf_ops.so").write_text("no library")
    for folder, message in [(tmp_path / "empty", "keras_lth/_tf_ops is missing"), (tmp_path, "_tf_ops.so")]:
        monkeypatch.setattr(tf_ops.library, "find", lambda folder=folder, find=tf_ops.library.find: find(folder))
        tf_ops.library.load.cache_clear()
        with pytest.warns(RuntimeWarning, match=message) as seen:
            given = CASES["matmul"]
            for _ in range(2):
                given.sparse(given.x, given.values, given.bias)
        assert len(seen) == 1
        monkeypatch.undo()
    tf_ops.library.load.cache_clear()


def test_tensors_elsewhere_take_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere:
        device = "/job:localhost/replica:0/task:0/device:GPU:0"

    class Anywhere:
        device = ""

    loaded = tf_ops.library.load()
    assert tf_ops._where(Elsewhere(), loaded, False) == "plain"
    assert tf_ops._where(Anywhere(), loaded, False) == "kernel"
    devices = [tf.config.LogicalDevice("cpu", "CPU"), tf.config.LogicalDevice("gpu", "GPU")]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: devices)
    assert tf_ops._where(Anywhere(), loaded, False) == "plain"
    assert tf_ops._where(tf.constant(1.0), loaded, False) == "kernel"
