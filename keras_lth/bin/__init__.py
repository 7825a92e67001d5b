"""Command-line programs: flags in, an experiment or a report out."""

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

# What Keras imports where it is installed, for wrappers, plots and data that no program that trains uses.
_LEFT_OUT = ("matplotlib", "pandas", "seaborn", "sklearn")


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Imports of TensorFlow and Keras inside it take half the time, in a program that is about to train.

    They run without the garbage collector, which would look through all modules again and again, and without the
    packages that only Keras' own wrappers, plots and data frames need: for Keras these are not installed, for whoever
    imports them afterwards they are.
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
    """Import what makes the steps of experiments, before a process does anything else with TensorFlow."""
    with quick_imports():
        importlib.import_module("keras_lth.experiments.kinds")
    set_xla_flags()


def set_xla_flags() -> None:
    """Let XLA compute matrix products by Eigen; before anything is compiled by it.

    XLA of TensorFlow 2.21 gives small ones on a CPU to YNNPACK; a step of LeNet-300-100 on two cores with AVX-512 takes
    7 % longer by it. Other versions stop at a flag that they do not know. What XLA_FLAGS says already wins.
    """
    flag, given = "--xla_cpu_experimental_ynn_fusion_type", os.environ.get("XLA_FLAGS", "")
    import tensorflow as tf

    known = tf.__version__.startswith("2.21.") and platform.machine() in ("x86_64", "AMD64")
    if known and flag not in given:
        os.environ["XLA_FLAGS"] = f"{given} {flag}=-INDIVIDUAL_DOT".strip()


def parse(argv: Sequence[str]) -> list[str]:
    """Flags from the command line; what the config does not know is one line."""
    with config_errors():
        return app.parse_flags_with_usage(list(argv))


@contextlib.contextmanager
def config_errors() -> Iterator[None]:
    """What the config does not know is one line, with the near key, not a traceback."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        words = str(error).replace("\\n", " ").replace("\\", "").replace("'", "").split()
        said = " ".join(words)
        if isinstance(error, KeyError | AttributeError) and len(words) == 1:  # nothing near it
            said += " is not a config key; keras_lth.experiments.config.DEFAULTS lists the valid keys"
        raise SystemExit(f"--config: {said}") from error
