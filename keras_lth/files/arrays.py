"""Named arrays in one file.

The safetensors layout (8 bytes of header length, a JSON header, the raw little-endian data), is written and read here,
so that equal content gives equal bytes and bfloat16 can be read back. The safetensors package writes metadata in random
order, and its NumPy reader does not support bfloat16. Any safetensors reader opens these files; boolean arrays are
packed, 8 to a byte.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from keras_lth.files.stores import AnyPath, Chunk, place, reading

VERSION = 1
_HEADER_LIMIT = 100_000_000  # the limit of the safetensors format, in bytes
_DTYPES: dict[str, np.dtype] = {
    **{f"{kind}{8 * size}": np.dtype(f"<{kind.lower()}{size}") for kind in "FIU" for size in (2, 4, 8)},
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def write_arrays(path: AnyPath, arrays: Mapping[str, np.ndarray], *, kind: str, meta: Mapping[str, Any]) -> None:
    """Write named arrays and a JSON-able `meta` as one safetensors file, atomically; equal content, equal bytes.

    Raises:
        ValueError: a name or dtype that cannot be stored (float16 to 64, bfloat16, int8 to 64, uint8 to 64 and bool
            can).
        TypeError: `meta` is not JSON-able.
        OSError: names `path`.
    """
    store, name = place(path)
    store.write(name, encode(arrays, kind=kind, meta=meta, name=name))


class FormatVersionError(ValueError):
    """A file of another version of the format; it may be undamaged."""


def read_meta(path: AnyPath, *, kind: str) -> dict[str, Any]:
    """Read the `meta` of a file of `write_arrays`, without its arrays; check only the header.

    Raises as `read_arrays` does.
    """
    store, name = place(path)
    try:
        with reading(name), store.open(name) as file:
            return _header(file, kind=kind).meta
    except (ValueError, RecursionError) as error:
        raise _about(error, name, kind) from error


def read_arrays(path: AnyPath, *, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file of `write_arrays`: (read-only arrays in the order they were given, meta).

    Every size in the file is checked against the file before memory is allocated, and every byte against a hash.

    Raises:
        FileNotFoundError: no such file.
        ValueError: "<path> is not a keras_lth <kind>: <reason>" for a truncated, edited, foreign or newer file.
    """
    store, name = place(path)
    try:
        with reading(name), store.open(name) as file:
            return decode(file, kind=kind)
    except (ValueError, RecursionError) as error:
        raise _about(error, name, kind) from error


def encode(arrays: Mapping[str, np.ndarray], *, kind: str, meta: Mapping[str, Any], name: str) -> list[Chunk]:
    """Return the content of the file `name` in pieces: the header, then each array, not copied."""
    stored: dict[str, np.ndarray] = {}
    manifest: dict[str, dict[str, Any]] = {}
    for key, value in arrays.items():
        array, bits = np.asarray(value), None
        if array.dtype == np.bool_:
            array, bits = np.packbits(array.reshape(-1)), list(array.shape)
        if key == "__metadata__" or array.dtype.newbyteorder("<") not in _CODES:
            raise ValueError(f"array {key!r} of dtype {array.dtype} cannot be stored in {name}")
        stored[key] = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        manifest[key] = {"bytes": array.nbytes, "sha256": hashlib.sha256(_raw(stored[key])).hexdigest()}
        if bits is not None:
            manifest[key]["bits"] = bits
    metadata = {"format": "keras_lth", "version": str(VERSION), "kind": kind}
    metadata |= {"meta": _json(dict(meta)), "manifest": _json(manifest)}
    header: dict[str, Any] = {"__metadata__": metadata}
    chunks: list[Chunk] = []
    end = 0
    for key in sorted(stored, key=lambda key: -stored[key].itemsize):  # wide types first: every array is aligned
        array, start = stored[key], end
        end += array.nbytes
        chunks.append(_raw(array))
        header[key] = {"dtype": _CODES[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    metadata["digest"] = _digest(header)
    raw = _padded(header)
    return [len(raw).to_bytes(8, "little"), raw, *chunks]


def decode(file: BinaryIO, *, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the content that `encode` returned, from a seekable file; raise ValueError with the reason if it is
    invalid.
    """
    entries, manifest, meta, left = _header(file, kind=kind)
    arrays, end = {}, 0
    for name, entry in entries.items():
        dtype, shape, end = _layout(name, entry, end)
        size = math.prod(shape) * dtype.itemsize
        if end > left:
            raise ValueError(f"it is truncated: array {name!r} ends at byte {end}, the file at {left}")
        data = file.read(size)
        bits = manifest[name].pop("bits", None) if isinstance(manifest[name], dict) else None
        if manifest[name] != {"bytes": size, "sha256": hashlib.sha256(data).hexdigest()}:
            raise ValueError(f"array {name!r} was edited or damaged")
        array = np.frombuffer(data, dtype=dtype).reshape(shape)
        arrays[name] = array if bits is None else _unpacked(name, array, bits)
    if end != left:
        raise ValueError(f"{left - end} bytes follow its last array")
    return {name: arrays[name] for name in manifest}, meta


class _Header(NamedTuple):
    entries: dict[str, Any]
    manifest: dict[str, Any]
    meta: dict[str, Any]
    left: int  # bytes after it


def _header(file: BinaryIO, *, kind: str) -> _Header:
    left = file.seek(0, os.SEEK_END) - 8
    file.seek(0)
    length, first = int.from_bytes(file.read(8), "little"), file.read(1)
    if first != b"{" or not 2 <= length <= _HEADER_LIMIT:
        raise ValueError("it has no safetensors header")
    if length > left:
        raise ValueError(f"it is truncated: {left} bytes follow the first 8, but the header alone has {length}")
    raw = first + file.read(length - 1)
    try:
        header = json.loads(raw)
    except ValueError:
        raise ValueError("its header is not JSON") from None
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != "keras_lth":
        raise ValueError("it was not written by keras_lth")
    if metadata.get("version") != str(VERSION):
        raise FormatVersionError(
            f"it has format version {metadata.get('version')!r}, but this keras_lth reads {VERSION}"
        )
    if metadata.get("kind") != kind:
        raise ValueError(f"it contains another kind of value: {metadata.get('kind')!r}")
    whole = {"__metadata__": {key: value for key, value in metadata.items() if key != "digest"}, **header}
    # Also compared as bytes, because a change that JSON ignores (case of an escape, white space) is a change.
    if metadata.get("digest") != _digest(whole) or raw != _padded({"__metadata__": metadata, **header}):
        raise ValueError("its header was edited or damaged")
    manifest, meta = json.loads(str(metadata.get("manifest"))), json.loads(str(metadata.get("meta")))
    if not isinstance(manifest, dict) or not isinstance(meta, dict) or set(manifest) != set(header):
        raise ValueError("its manifest does not fit its arrays")
    return _Header(header, manifest, meta, left - length)


def _about(error: Exception, name: str, kind: str) -> ValueError:
    """The error with the name of the file; its class still distinguishes versions from damage."""
    made = FormatVersionError if isinstance(error, FormatVersionError) else ValueError
    return made(f"{name} is not a keras_lth {kind}: {error}")


def _layout(name: str, entry: Any, start: int) -> tuple[np.dtype, list[int], int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the entry of array {name!r} is malformed")
    dtype = _DTYPES.get(str(entry["dtype"]))
    if dtype is None:
        raise ValueError(f"array {name!r} has the unknown dtype {entry['dtype']!r}")
    end = start + math.prod(_shape(name, entry["shape"])) * dtype.itemsize
    if entry["data_offsets"] != [start, end]:
        raise ValueError(f"array {name!r} claims the bytes {entry['data_offsets']}, but its shape needs {[start, end]}")
    return dtype, entry["shape"], end


def _shape(name: str, shape: Any) -> list[int]:
    if not isinstance(shape, list) or len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise ValueError(f"array {name!r} has no valid shape")
    return shape


def _unpacked(name: str, array: np.ndarray, shape: Any) -> np.ndarray:
    count = math.prod(_shape(name, shape))
    if array.dtype != np.uint8 or array.shape != ((count + 7) // 8,):
        raise ValueError(f"array {name!r} does not hold the {count} bits of shape {shape}")
    bits = np.unpackbits(array)
    if bits[count:].any():
        raise ValueError(f"array {name!r} has bits after its end")
    bits = bits[:count].view(np.bool_).reshape(shape)
    bits.setflags(write=False)
    return bits


def _raw(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _padded(header: Mapping[str, Any]) -> bytes:
    raw = _json(header).encode()
    return raw + b" " * (-len(raw) % 8)


def _digest(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(_json(header).encode()).hexdigest()
