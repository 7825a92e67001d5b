"""Read IDX, the file format of MNIST: two zero bytes, type, number of axes, axes as big-endian uint32, values.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "File formats".
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib

import numpy as np

_UNSIGNED_BYTE = 0x08


def read_idx(path: str | os.PathLike[str], *, axes: int) -> np.ndarray:
    """Read a uint8 array with `axes` axes from an IDX file, plain or compressed by gzip (if named .gz).

    Raises:
        OSError: if the file cannot be opened.
        ValueError: the file is not IDX, has another type or number of axes, or more or fewer bytes than its header
            says; names the file.
    """
    name = os.fspath(path)
    try:
        with gzip.open(name) if name.endswith(".gz") else open(name, "rb") as file:
            header = file.read(4 + 4 * axes)
            if len(header) < 4 + 4 * axes:
                raise ValueError(f"{name}: truncated in its IDX header: {len(header)} of {4 + 4 * axes} bytes")
            magic, expected = header[:4].hex(), bytes([0, 0, _UNSIGNED_BYTE, axes]).hex()
            if magic != expected:
                raise ValueError(f"{name}: not IDX with {axes} axes of unsigned bytes: begins {magic}, not {expected}")
            shape = struct.unpack(f">{axes}I", header[4:])
            values = file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{name}: truncated or damaged gzip file: {error}") from error
    if len(values) != math.prod(shape):
        raise ValueError(f"{name}: its header says {math.prod(shape)} values {shape}, but it holds {len(values)}")
    return np.frombuffer(values, np.uint8).reshape(shape)
