"""Repositories that need no network."""

def _files_repository(context):
    for path, content in context.attr.files.items():
        context.file(path, content)

files_repository = repository_rule(
    implementation = _files_repository,
    attrs = {"files": attr.string_dict(mandatory = True)},
    doc = "A repository of the files given as {path: content}.",
)

# Nothing is imported that takes long: TensorFlow is looked for, not loaded.
_ASK = """
import importlib.util, pybind11, sysconfig
print(sysconfig.get_path("include"))
print(pybind11.get_include())
print(importlib.util.find_spec("tensorflow").submodule_search_locations[0] + "/include")
"""

_BUILD = """
load("@bazel_tools//tools/python:toolchain.bzl", "py_runtime_pair")

package(default_visibility = ["//visibility:public"])

py_runtime(
    name = "runtime",
    interpreter_path = "INTERPRETER",
    python_version = "PY3",
)

py_runtime_pair(
    name = "runtime_pair",
    py3_runtime = ":runtime",
)

toolchain(
    name = "toolchain",
    toolchain = ":runtime_pair",
    toolchain_type = "@bazel_tools//tools/python:toolchain_type",
)

cc_library(
    name = "python",
    hdrs = glob(["python/**/*.h"]),
    includes = ["python"],
)

cc_library(
    name = "pybind11",
    hdrs = glob(["pybind11/**/*.h"]),
    includes = ["pybind11"],
    deps = [":python"],
)

# The C API, and what its headers include.
cc_library(
    name = "tensorflow",
    hdrs = glob([
        "tensorflow/tensorflow/c/*.h",
        "tensorflow/tensorflow/c/experimental/stream_executor/*.h",
        "tensorflow/tensorflow/core/common_runtime/next_pluggable_device/c/*.h",
        "tensorflow/tensorflow/core/platform/ctstring*.h",
        "tensorflow/tsl/platform/*.h",
        "tensorflow/xla/tsl/c/*.h",
    ]),
    includes = ["tensorflow"],
)
"""

def _installed_python(context):
    python = context.os.environ.get("KERAS_LTH_PYTHON", ".venv/bin/python")
    if not python.startswith("/"):
        python = str(context.path(Label("//:WORKSPACE")).dirname) + "/" + python
    asked = context.execute([python, "-c", _ASK])
    if asked.return_code != 0:
        fail("%s (KERAS_LTH_PYTHON) must have pybind11 and tensorflow installed:\n%s" % (python, asked.stderr))
    folders = asked.stdout.splitlines()
    for name, folder in zip(["python", "pybind11", "tensorflow"], folders):
        context.symlink(folder, name)
    context.file("BUILD", _BUILD.replace("INTERPRETER", python))

installed_python = repository_rule(
    implementation = _installed_python,
    environ = ["KERAS_LTH_PYTHON"],
    local = True,
    doc = ("The interpreter that KERAS_LTH_PYTHON names (.venv/bin/python), and the headers of Python, pybind11 and " +
           "TensorFlow as it has them installed."),
)
