"""How the binary starts."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import tensorflow as tf

from keras_lth import bin as programs

FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def test_what_quick_imports_leave_out_is_there_afterwards() -> None:
    code = (
        "import gc, sys\n"
        "from keras_lth.bin import quick_imports\n"
        "try:\n"
        "    with quick_imports():\n"
        "        assert not gc.isenabled()\n"
        "        import keras\n"
        "        there = {name.split('.')[0] for name, m in sys.modules.items() if m}\n"
        "        assert not there & {'sklearn', 'matplotlib', 'pandas'}\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    assert gc.isenabled()\n"
        "import matplotlib.pyplot, pandas, sklearn.datasets\n"
        "keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])\n"
        "with quick_imports():\n"
        "    import sklearn.svm  # was there before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the flag is for x86-64")
@pytest.mark.parametrize(
    ("version", "given", "left"),
    [
        ("2.21.0", "", f"{FLAG}=-INDIVIDUAL_DOT"),
        ("2.21.1", "--xla_a=1", f"--xla_a=1 {FLAG}=-INDIVIDUAL_DOT"),
        ("2.21.0", f"{FLAG}=x", f"{FLAG}=x"),
        ("2.20.0", "--xla_a=1", "--xla_a=1"),
        ("2.22.0", "", ""),
    ],
)
def test_xla_flags(version: str, given: str, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf, "__version__", version)
    monkeypatch.setenv("XLA_FLAGS", given)
    programs.set_xla_flags()
    assert os.environ["XLA_FLAGS"] == left
