"""The compiled extensions, and the folder configs; everything else about the package is in pyproject.toml."""

import os
import platform
import shutil
import sysconfig
from pathlib import Path

import pybind11
from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.errors import CCompilerError, CompileError, ExecError

AVX2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mpopcnt"]
# Each instruction set is one file with flags of its own; which one runs is chosen when the module is used.
ISA_FLAGS = {
    "avx2.cc": AVX2,
    "avx512.cc": [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}
X86_64 = platform.machine().lower() in ("x86_64", "amd64")
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow"]
# Set by those who develop the package; a newer compiler's new warning must not stop an installation.
WERROR = ["-Werror"] if os.environ.get("KERAS_LTH_WERROR") == "1" else []
# Set by those who have no compiler: nothing is compiled, and NumPy and TensorFlow compute instead.
PURE = os.environ.get("KERAS_LTH_PURE") == "1"


def missing(what: str, fault: str, remedy: str) -> CompileError:
    """An error of one sentence, which setuptools prints last."""
    return CompileError(
        f"building keras_lth needs {what}, but {fault}: install it ({remedy}), or set KERAS_LTH_PURE=1 to install the "
        "package without its C++ kernels, with the same results but slower"
    )


class BuildExt(build_ext):
    """build_ext that adds the flags of ISA_FLAGS to the files they belong to, and compiles a file once for both."""

    def build_extensions(self) -> None:
        """Compiles and links, with a compiler that looks up each file's flags.

        Raises:
          CompileError: Python's headers or a compiler are missing, or it fails; one sentence with the remedy.
        """
        headers = sysconfig.get_path("include")
        if not Path(headers, "Python.h").exists():
            raise missing("Python's C headers", f"{headers} has no Python.h", "Debian: apt-get install python3-dev")
        compile_file = self.compiler._compile
        compiled: set[tuple[str, ...]] = set()

        def with_flags(obj: str, src: str, ext: str, cc_args: list[str], postargs: list[str], *rest: object) -> None:
            flags = ISA_FLAGS.get(Path(src).name, []) if X86_64 else []
            command = (obj, src, *cc_args, *postargs, *flags)
            if command not in compiled:
                try:
                    compile_file(obj, src, ext, cc_args, [*postargs, *flags], *rest)
                except (OSError, CCompilerError, ExecError) as error:
                    name = getattr(self.compiler, "compiler_so_cxx", ["cl"])[0]
                    fault = f"{name} fails for {src} (why is above)" if shutil.which(name) else f"there is no {name}"
                    raise missing("a C++17 compiler", fault, "Debian: apt-get install g++; or set CXX") from error
                compiled.add(command)

        self.compiler._compile = with_flags
        # A file takes up to 320 MB of memory.
        with ParallelCompile(max=4):
            super().build_extensions()


class BuildPy(build_py):
    """build_py that installs the modules of the folder configs as those of the package keras_lth.configs."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Find (package, module, file), as setuptools does."""
        found = list(super().find_package_modules(package, package_dir))
        if package == "keras_lth.configs":
            found += [(package, path.stem, str(path)) for path in sorted(Path("configs").glob("*.py"))]
        return found


SYSTEM_INCLUDES = [pybind11.get_include(), sysconfig.get_path("include"), sysconfig.get_path("platinclude")]


def extension(name: str, rooms: tuple[str, ...], libraries: tuple[str, ...] = ()) -> Pybind11Extension:
    """An extension of the sources in these folders of cc/. All have the same flags; symbols are hidden."""
    return Pybind11Extension(
        name,
        sorted(str(path) for room in rooms for path in Path("cc", room).glob("*.cc")),
        include_dirs=["."],
        include_pybind11=False,
        cxx_std=17,
        depends=sorted(str(path) for pattern in ("*.h", "*.inc") for path in Path("cc").rglob(pattern)),
        extra_compile_args=[
            "-O3",
            "-pthread",
            *WARNINGS,
            *WERROR,
            *(flag for folder in dict.fromkeys(SYSTEM_INCLUDES) for flag in ("-isystem", folder)),
        ],
        extra_link_args=["-pthread", *libraries],
    )


CORE = extension("keras_lth._core", ("chain", "isa", "python", "select", "sparse", "threads"))
# TensorFlow loads it; it is built without TensorFlow (docs/tensorflow_ops.md).
TF_OPS = extension("keras_lth._tf_ops", ("isa", "norm", "sparse", "tf", "threads"), ("-ldl",))

if __name__ == "__main__":
    commands = {"build_ext": BuildExt, "build_py": BuildPy}
    compiled = [] if PURE else [CORE] if os.name == "nt" else [CORE, TF_OPS]
    setup(ext_modules=compiled, cmdclass=commands)
