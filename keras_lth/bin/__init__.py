"""Command-line programs: flags in, an experiment or a report out."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def imported_at_once() -> Iterator[None]:
    """Imports inside it without the garbage collector, which would look through TensorFlow's modules again and again:
    a third of a program's start, and some of its end."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
