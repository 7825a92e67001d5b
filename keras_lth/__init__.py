"""Lottery tickets and sparse training for Keras 3.

Public names are loaded on first use (PEP 562), so ``import keras_lth.masks`` does not load TensorFlow.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import warnings
from typing import Any

__version__ = "0.1.0"

# Public name → module that defines it.
_NAMES = {
    "IMP": "keras_lth.imp",
    "Masks": "keras_lth.masks",
    "select": "keras_lth.selection",
    "prune": "keras_lth.selection",
    "random_like": "keras_lth.selection",
    "prune_iteratively": "keras_lth.criteria",
    "isometric": "keras_lth.isometry",
    "Snapshot": "keras_lth.tickets",
    "Ticket": "keras_lth.tickets",
    "prunable": "keras_lth.surgery",
    "mask": "keras_lth.surgery",
    "unmask": "keras_lth.surgery",
    "masked_gradients": "keras_lth.surgery",
    "masks_of": "keras_lth.surgery",
    "dense_gradients": "keras_lth.surgery",
    "masks_from_zeros": "keras_lth.surgery",
    "register_prunable": "keras_lth.surgery",
    "snapshot": "keras_lth.surgery",
    "rewind": "keras_lth.surgery",
    "sparsity": "keras_lth.surgery",
    "unknown_layers": "keras_lth.surgery",
    "sparsify": "keras_lth.layers",
    "densify": "keras_lth.layers",
    "IMPCallback": "keras_lth.callbacks.imp",
    "InstabilityCallback": "keras_lth.callbacks.instability",
    "GradualPruning": "keras_lth.callbacks.gradual",
    "EarlyBird": "keras_lth.callbacks.early_bird",
    "StaticSparse": "keras_lth.callbacks.sparse_training",
    "SET": "keras_lth.callbacks.sparse_training",
    "RigL": "keras_lth.callbacks.sparse_training",
    "SNFS": "keras_lth.callbacks.sparse_training",
    "DSR": "keras_lth.callbacks.sparse_training",
    "fuse": "keras_lth.layers.fused",
    "step": "keras_lth.plans",
    "versioned": "keras_lth.plans",
}
_MODULES = (
    "analysis",
    "callbacks",
    "compat",
    "criteria",
    "datasets",
    "densities",
    "experiments",
    "export",
    "files",
    "imp",
    "layers",
    "models",
    "ops",
    "plans",
    "report",
    "rounds",
    "schedules",
    "store",
    "surgery",
    "training",
)

__all__ = [*sorted(_NAMES), *_MODULES]


def _check_versions() -> None:
    """Raise for a TensorFlow or Keras that is too old, and warn of one that is newer than those tested.

    Other packages change them after pip has installed the right ones. Neither is imported.
    """
    for name, oldest, end in (("tensorflow", "2.19", "2.22"), ("keras", "3.8", "4")):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # it has another name, such as tensorflow-cpu or tf-nightly
            continue
        remedy = f"keras_lth needs {name}>={oldest},<{end}: pip install '{name}>={oldest},<{end}'"
        if _number(found) < _number(oldest):
            raise ImportError(f"{name} {found} is too old, {remedy}")
        if _number(found) >= _number(end):
            warnings.warn(f"{name} {found} is newer than what was tested, {remedy}", RuntimeWarning, stacklevel=3)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", version)[:2])


def _keep_memory() -> None:
    """Let TensorFlow keep the memory of tensors on the CPU from step to step; before its first operation alone.

    Otherwise large activations may go back to the system, which has to clear their pages again in each step. Values in
    the environment take precedence.
    """
    if "TF_CPU_ALLOCATOR_USE_BFC" not in os.environ:
        os.environ["TF_CPU_ALLOCATOR_USE_BFC"] = "true"
        # By default the pool ends at 64 GB, whatever the machine has.
        os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(1 << 24))


_check_versions()
_keep_memory()


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"keras_lth.{name}")
    else:
        raise AttributeError(f"module 'keras_lth' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
