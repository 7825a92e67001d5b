"""Command-line programs: they turn flags into an experiment or a report."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import app

# Packages that Keras imports if installed, for wrappers, plots and data that no training program uses.
_LEFT_OUT = ("matplotlib", "pandas", "seaborn", "sklearn")


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Halve the time that imports of TensorFlow and Keras take inside it, in a program that is about to train.

    The imports run without the garbage collector, which would traverse all modules repeatedly. They also run without
    the packages that only Keras' own wrappers, plots and data frames need: Keras does not see these, later imports do.
    """
    modules: dict[str, Any] = sys.modules
    left_out = [name for name in _LEFT_OUT if name not in modules]
    gc.disable()
    modules.update(dict.fromkeys(left_out))
    try:
        yield
    finally:
        for name in left_out:
            del modules[name]
        gc.freeze()
        gc.enable()


def import_keras() -> None:
    """Import what computes the steps of experiments, before the process uses TensorFlow for anything else."""
    with quick_imports():
        importlib.import_module("keras_lth.experiments.kinds")
    set_xla_flags()


def set_xla_flags() -> None:
    """Make XLA compute matrix products by Eigen; call it before XLA compiles anything.

    On a CPU, XLA of TensorFlow 2.21 gives small products to YNNPACK, which makes a step of LeNet-300-100 on two cores
    with AVX-512 take 7 % longer. Other versions stop at an unknown flag. Values already in XLA_FLAGS take precedence.
    """
    flag, given = "--xla_cpu_experimental_ynn_fusion_type", os.environ.get("XLA_FLAGS", "")
    import tensorflow as tf

    known = tf.__version__.startswith("2.21.") and platform.machine() in ("x86_64", "AMD64")
    if known and flag not in given:
        os.environ["XLA_FLAGS"] = f"{given} {flag}=-INDIVIDUAL_DOT".strip()


def parse(argv: Sequence[str]) -> list[str]:
    """Parse the command line; an unknown config key is a one-line error."""
    with config_errors():
        return app.parse_flags_with_usage(list(argv))


@contextlib.contextmanager
def config_errors() -> Iterator[None]:
    """Turn an unknown config key into one line that suggests a similar key, instead of a traceback."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        words = str(error).replace("\\n", " ").replace("\\", "").replace("'", "").split()
        said = " ".join(words)
        if isinstance(error, KeyError | AttributeError) and len(words) == 1:  # no similar key
            said += " is not a config key; keras_lth.experiments.config.DEFAULTS lists the valid keys"
        raise SystemExit(f"--config: {said}") from error
