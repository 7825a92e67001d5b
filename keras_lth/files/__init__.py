"""Files of a run, local or in an object store: whole or absent, checked when read, never unpickled."""

from __future__ import annotations

from keras_lth.files.arrays import read_arrays, write_arrays
from keras_lth.files.checkpoints import Checkpoint, Checkpoints
from keras_lth.files.folders import check_manifest, write_manifest
from keras_lth.files.locks import DirectoryLock
from keras_lth.files.paths import RunPath
from keras_lth.files.stores import is_local, join
from keras_lth.files.whole import append_line, keep_lines, list_names, read_bytes, read_lines, remove, write_atomic

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "DirectoryLock",
    "RunPath",
    "append_line",
    "check_manifest",
    "is_local",
    "join",
    "keep_lines",
    "list_names",
    "read_arrays",
    "read_bytes",
    "read_lines",
    "remove",
    "write_arrays",
    "write_atomic",
    "write_manifest",
]
