"""The library of TensorFlow ops as a file: what it needs, what it shows, which TensorFlow it serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from keras_lth.ops import tensorflow as tf_ops
from tests.environments import environment, requirements, supported

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "cc" / "tf" / "c_api.h"
COMPILER = os.environ.get("CXX") or shutil.which("g++") or "c++"
FILE = tf_ops.library.find()


def printed(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


def symbols(*flags: str) -> dict[str, str]:
    """Names, without versions, and their kinds."""
    lines = printed("nm", "--dynamic", "--format=posix", *flags, FILE).splitlines()
    return {line.split()[0].split("@")[0]: line.split()[1] for line in lines}


def test_it_is_loaded() -> None:
    loaded = tf_ops.library.load()
    assert loaded is not None
    assert loaded.xla_target == "keras_lth_sparse_v3"


def test_it_needs_nothing_but_the_c_and_cpp_libraries() -> None:
    needed = re.findall(r"NEEDED.*\[(.*)\]", printed("readelf", "--dynamic", FILE))
    assert needed
    for library in needed:
        assert re.match(r"(libc|libm|libdl|libpthread|libstdc\+\+|libgcc_s|ld-linux.*)\.so", library), library
    foreign = re.compile("tensorflow|tsl|xla|absl|google|protobuf|grpc|Eigen|pybind|Py[A-Z_]", re.IGNORECASE)
    assert [name for name in symbols("--undefined-only") if foreign.search(name)] == []


def test_it_shows_two_functions_only() -> None:
    # What is weak or unique comes from the C++ library's templates.
    shown = {name for name, kind in symbols("--defined-only").items() if kind not in "WVu"}
    assert shown == {"keras_lth_set_threads", "keras_lth_xla_target"}
    assert not [name for name in symbols("--defined-only") if name.startswith(("_ZN9keras_lth", "_ZNK9keras_lth"))]


def compiled(header: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Compiles the declarations together with those of the installed TensorFlow."""
    (folder / "c_api.h").write_text(header)
    constants = {
        "kFloat32": "TF_FLOAT", "kBfloat16": "TF_BFLOAT16", "kUint16": "TF_UINT16",
        "kOk": "TF_OK", "kInvalidArgument": "TF_INVALID_ARGUMENT",
        "kResourceExhausted": "TF_RESOURCE_EXHAUSTED", "kInternal": "TF_INTERNAL",
    }  # fmt: skip
    lines = [
        "#include <tensorflow/c/kernels.h>",
        "#include <tensorflow/c/ops.h>",
        "#include <tensorflow/c/tf_tensor.h>",
    ]
    lines += ["#define KERAS_LTH_TF_HEADERS", '#include "c_api.h"']
    lines += [f"static_assert(keras_lth::tf::{ours} == {theirs});" for ours, theirs in constants.items()]
    source = folder / "both.cc"
    source.write_text("\n".join(lines) + "\n")
    command = [COMPILER, "-std=c++17", "-fsyntax-only", f"-I{folder}", "-isystem", tf.sysconfig.get_include(), source]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)


def test_declarations_are_those_of_the_installed_headers(tmp_path: Path) -> None:
    header = HEADER.read_text()
    done = compiled(header, tmp_path)
    assert done.returncode == 0, done.stderr
    for right, wrong in [
        (
            "int64_t TF_Dim(const TF_Tensor* tensor, int dim_index)",
            "int TF_Dim(const TF_Tensor* tensor, int dim_index)",
        ),
        (
            "TF_Code TF_GetCode(const TF_Status* s)",
            "TF_Code TF_GetCode(TF_Tensor* s); int TF_GetCode(const TF_Status* s)",
        ),
        ("kBfloat16 = static_cast<TF_DataType>(14)", "kBfloat16 = static_cast<TF_DataType>(15)"),
    ]:
        assert right in header
        assert compiled(header.replace(right, wrong), tmp_path).returncode != 0, wrong


def test_every_declared_function_is_looked_up() -> None:
    header = HEADER.read_text()
    declared = set(re.findall(r"\b(TF_\w+)\((?!\*)", header.split("#define KERAS_LTH_TF_FUNCTIONS")[0]))
    assert declared == set(re.findall(r"^  F\((TF_\w+)\)", header, re.MULTILINE))
    sources = "".join(path.read_text() for path in (ROOT / "cc" / "tf").glob("*") if path.suffix in (".h", ".cc"))
    assert set(re.findall(r"Api\(\)\.(TF_\w+)", sources)) == declared


def test_without_tensorflow_it_loads_and_says_so() -> None:
    code = f"import ctypes; ctypes.CDLL({str(FILE)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "the TensorFlow ops are not registered: there is no TF_" in done.stderr


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        pytest.param({}, "3", marks=pytest.mark.proof),
        pytest.param({"KERAS_LTH_THREADS": "2"}, "2", marks=pytest.mark.proof),
        pytest.param({"TF_NUM_INTRAOP_THREADS": "4"}, "3", marks=pytest.mark.proof),
        ({"TF_NUM_INTRAOP_THREADS": "4", "UNSET": "1"}, "4"),
    ],
)
def test_threads_are_tensorflows(environment: dict[str, str], wanted: str) -> None:
    """Counted as the threads that the process has more of after a product."""
    code = """
import os, numpy as np, tensorflow as tf
if not os.environ.get("UNSET"):
    tf.config.threading.set_intra_op_parallelism_threads(3)
tf.config.threading.set_inter_op_parallelism_threads(1)
from keras_lth.ops import SparseStructure, tensorflow as tf_ops
structure = SparseStructure.from_mask(np.ones((512, 512), bool), 16)
values = tf.zeros([structure.stored, 16, 16])
tf.linalg.matmul(tf.zeros([512, 512]), tf.zeros([512, 512]))
before = len(os.listdir("/proc/self/task"))
tf_ops.sparse_matmul(tf.zeros([512, 512]), values, structure)
# The thread that calls works too.
print(len(os.listdir("/proc/self/task")) - before + 1)
"""
    clean = dict.fromkeys(("KERAS_LTH_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "")
    assert printed(sys.executable, "-c", code, **{**clean, **environment}).split()[-1] == wanted


# ---- One file, two TensorFlows ----


def result_of(python: str) -> dict[str, Any]:
    output = printed(python, ROOT / "tests" / "ops" / "tf_program.py")
    result = json.loads(output.split("RESULT", 1)[1])
    assert isinstance(result, dict)
    return result


@pytest.mark.proof
def test_the_same_file_serves_another_tensorflow() -> None:
    this = ".".join(tf.__version__.split(".")[:2])
    assert this in supported(), "tests run with one end of what is supported"
    (other,) = {*supported()} - {this}
    here, there = result_of(sys.executable), result_of(environment(*requirements(other)))
    assert here["tensorflow"] == tf.__version__
    assert here["tensorflow"].split(".")[:2] != there["tensorflow"].split(".")[:2]
    assert there["library"] == here["library"] == str(FILE)
    for result in (here, there):
        assert result["xla_target"] == "keras_lth_sparse_v3"
        assert sorted(result["errors"]) == ["eager", "graph", "jit"]
        assert max(error for errors in result["errors"].values() for error in errors) < 1e-5
