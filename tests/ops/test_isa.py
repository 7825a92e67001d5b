"""Which implementation runs, and that the others can be forced."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from keras_lth import _core, ops

BLOCK = "import sys; sys.modules['keras_lth._core'] = None; "
SHOW = "import numpy as np; from keras_lth.ops import *; print(isa(), top_k_masks([np.array([1., -3., 2.])], 2)[0])"
LEAN = "import sys; import keras_lth.ops; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"


def python(code: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, *options, "-c", code], env=variables, capture_output=True, text=True, check=False, timeout=120
    )


def test_best_first_and_portable_last() -> None:
    order = ["avx512", "avx2", "portable"]
    assert _core.supported() == [name for name in order if name in _core.supported()]
    assert _core.supported()[-1] == "portable"


@pytest.mark.parametrize("name", _core.supported())
def test_environment_forces_an_instruction_set(name: str) -> None:
    done = python(SHOW, KERAS_LTH_ISA=name)
    assert done.stdout.strip() == f"{name} [False  True  True]", done.stderr


def test_unknown_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_LTH_ISA", "neon9")
    with pytest.raises(ValueError, match=r"'neon9' \(KERAS_LTH_ISA\) is not one this processor runs: .*portable"):
        ops.isa()
    with pytest.raises(ValueError, match="neon9"):
        ops.top_k_masks([np.ones(3)], 1)


def test_without_the_extension_numpy_answers_with_one_warning() -> None:
    done = python(BLOCK + SHOW, "-W", "always")
    assert done.stdout.strip() == "numpy [False  True  True]", done.stderr
    assert done.stderr.count("RuntimeWarning: keras_lth._core is missing") == 1


def test_imports_neither_tensorflow_nor_keras() -> None:
    assert python(LEAN).stdout.strip() == "[]"
