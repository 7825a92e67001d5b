"""Run first in every Python process that the tests start: those that import Keras begin sooner.

Keras imports packages for its wrappers, plots and data frames if they are installed; the tests use none of these. Keras
does not find them, as it does not in the package's own programs (keras_lth.bin.quick_imports); all others do.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

LEFT_OUT = ("matplotlib", "pandas", "seaborn", "sklearn")


class LeftOut(MetaPathFinder):
    """Finds nothing, and hides LEFT_OUT from modules of Keras."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in LEFT_OUT:
            frame = sys._getframe(1)
            while frame is not None and "importlib" in frame.f_code.co_filename:
                frame = frame.f_back
            if frame is not None and frame.f_globals.get("__name__", "").startswith("keras.src."):
                raise ModuleNotFoundError(f"{name} is not for Keras", name=name)
        return None


sys.meta_path.insert(0, LeftOut())
# Python's collector would traverse all modules repeatedly while they are imported.
gc.set_threshold(50_000, 20, 20)
