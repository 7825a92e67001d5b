"""Files of a run: whole or absent, checked when read, never unpickled."""

from __future__ import annotations

from keras_lth.files.arrays import read_arrays, write_arrays
from keras_lth.files.folders import DirectoryLock, check_manifest, write_manifest
from keras_lth.files.whole import append_line, read_lines, write_atomic

__all__ = [
    "DirectoryLock",
    "append_line",
    "check_manifest",
    "read_arrays",
    "read_lines",
    "write_arrays",
    "write_atomic",
    "write_manifest",
]
