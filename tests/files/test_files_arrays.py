from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lth import files

DTYPES = [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.uint32, np.bool_, ml_dtypes.bfloat16]


def small(path: Path) -> bytes:
    arrays = {
        "masks/a": np.array([[True, False, True]]),
        "weights/a": np.array([[1.5, -0.0, np.nan]], np.float32),
        "h": np.array([1, 2], ml_dtypes.bfloat16),
        "none": np.zeros((0, 3)),
        "scalar": np.int64(-7),
    }
    files.write_arrays(path, arrays, kind="ticket", meta={"step": 3, "nested": {"é": [1, None]}})
    return path.read_bytes()


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5).flatmap(
                lambda shape: st.binary(
                    min_size=int(np.prod(shape)) * np.dtype(dtype).itemsize,
                    max_size=int(np.prod(shape)) * np.dtype(dtype).itemsize,
                ).map(lambda raw: _from_bytes(raw, dtype, shape))
            )
        ),
        max_size=4,
    )
)
def test_round_trip_keeps_every_bit_and_the_order(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("files") / "x"
    files.write_arrays(path, arrays, kind="k", meta={"a": 1})
    loaded, meta = files.read_arrays(path, kind="k")
    assert meta == {"a": 1} and list(loaded) == list(arrays)
    for name, array in arrays.items():
        found = loaded[name]
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert not found.flags.writeable


def _from_bytes(raw: bytes, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    if dtype is np.bool_:
        return (np.frombuffer(raw, np.uint8) & 1).astype(bool).reshape(shape)
    return np.frombuffer(raw, dtype).reshape(shape) if raw else np.zeros(shape, dtype)


def test_the_safetensors_package_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    bits = np.array([1, 0, 1, 1, 0, 0, 0, 0, 1], bool).reshape(3, 3)
    files.write_arrays(path, {"m": bits, "w": weights}, kind="ticket", meta={"step": 5})
    found = safetensors.numpy.load_file(path)
    assert found["w"].tolist() == weights.tolist()
    assert found["m"].tolist() == [0b10110000, 0b10000000]
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    assert (metadata["format"], metadata["version"], metadata["kind"]) == ("keras_lth", "1", "ticket")
    assert json.loads(metadata["meta"]) == {"step": 5}
    assert json.loads(metadata["manifest"])["m"]["bits"] == [3, 3]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    assert small(tmp_path / "a") == small(tmp_path / "b")


def test_strided_and_big_endian_input(tmp_path: Path) -> None:
    base = np.arange(12, dtype=np.float64).reshape(3, 4)
    files.write_arrays(tmp_path / "x", {"t": base.T[::2], "b": base.astype(">f4")}, kind="k", meta={})
    loaded, _ = files.read_arrays(tmp_path / "x", kind="k")
    assert loaded["t"].tolist() == [[0, 4, 8], [2, 6, 10]] and loaded["b"].tolist() == base.tolist()


@pytest.mark.parametrize("array", [np.array([1j]), np.array(["a"]), np.array([{}]), np.array(["2020"], "M8[s]")])
def test_what_cannot_be_stored_is_named(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="array 'w' of dtype"):
        files.write_arrays(tmp_path / "x", {"w": array}, kind="k", meta={})
    with pytest.raises(TypeError):
        files.write_arrays(tmp_path / "x", {}, kind="k", meta={"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    data = small(tmp_path / "x")
    bad = tmp_path / "bad"
    for position in range(8 * len(data)):
        edited = bytearray(data)
        edited[position // 8] ^= 1 << position % 8
        bad.write_bytes(edited)
        with pytest.raises(ValueError, match=r"bad is not a keras_lth ticket: \w"):
            files.read_arrays(bad, kind="ticket")


def test_every_truncation_is_found_and_anything_appended(tmp_path: Path) -> None:
    data = small(tmp_path / "x")
    bad = tmp_path / "bad"
    for edited in [*(data[:length] for length in range(len(data))), data + b"\0", data + data]:
        bad.write_bytes(edited)
        with pytest.raises(ValueError, match="bad is not a keras_lth ticket"):
            files.read_arrays(bad, kind="ticket")


def rewritten(data: bytes, change) -> bytes:
    """A file with another header and a digest that fits it: what someone does on purpose."""
    from keras_lth.files import arrays as module

    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    del header["__metadata__"]["digest"]
    change(header)
    header["__metadata__"]["digest"] = module._digest(header)
    raw = module._padded(header)
    return len(raw).to_bytes(8, "little") + raw + data[8 + length :]


def _shape(header: dict) -> None:
    header["weights/a"]["shape"] = [2**40, 2**40]


def _offsets(header: dict) -> None:
    header["weights/a"]["data_offsets"] = [0, 2**62]


def _grown(header: dict) -> None:
    last = list(header)[-1]
    start = header[last]["data_offsets"][0]
    header[last] |= {"dtype": "U8", "shape": [2**40], "data_offsets": [start, start + 2**40]}


def _empty_of_huge_sides(header: dict) -> None:
    header["none"]["shape"] = [0, 2**62, 2**62]


def _many_sides(header: dict) -> None:
    header["none"]["shape"] = [0] * 100


def _negative(header: dict) -> None:
    header["none"]["shape"] = [0, -1]


def _true(header: dict) -> None:
    header["scalar"]["shape"] = [True]


def _dtype(header: dict) -> None:
    header["scalar"]["dtype"] = ["I64"]


def _list_entry(header: dict) -> None:
    header["scalar"] = [1]


def _manifest(header: dict) -> None:
    header["__metadata__"]["manifest"] = "[1]"


def _manifest_entries(header: dict) -> None:
    header["__metadata__"]["manifest"] = json.dumps({name: 3 for name in header if name != "__metadata__"})


def _meta(header: dict) -> None:
    header["__metadata__"]["meta"] = "[" * 100_000


def _bits(header: dict) -> None:
    text = header["__metadata__"]["manifest"]
    assert '"bits":[1,3]' in text
    header["__metadata__"]["manifest"] = text.replace('"bits":[1,3]', f'"bits":[{2**40},{2**40}]')


def _fewer_bits(header: dict) -> None:
    header["__metadata__"]["manifest"] = header["__metadata__"]["manifest"].replace('"bits":[1,3]', '"bits":[2]')


@pytest.mark.parametrize(
    "change",
    [
        _shape,
        _offsets,
        _grown,
        _empty_of_huge_sides,
        _many_sides,
        _negative,
        _true,
        _dtype,
        _list_entry,
        _manifest,
        _manifest_entries,
        _meta,
        _bits,
        _fewer_bits,
    ],
)
def test_sizes_are_not_believed_even_with_a_right_digest(tmp_path: Path, change) -> None:
    path = tmp_path / "x"
    path.write_bytes(rewritten(small(path), change))
    with pytest.raises(ValueError, match="x is not a keras_lth ticket"):
        files.read_arrays(path, kind="ticket")


def test_a_newer_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(rewritten(small(path), lambda header: header["__metadata__"].update(version="2")))
    with pytest.raises(ValueError, match=r"format version '2', but this keras_lth reads 1"):
        files.read_arrays(path, kind="ticket")


def test_foreign_files(tmp_path: Path) -> None:
    small(tmp_path / "ticket")
    safetensors.numpy.save_file({"a": np.ones(3)}, tmp_path / "plain")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "zip").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "pickle").write_bytes(b"\x80\x04\x95" + bytes(100))
    (tmp_path / "huge header").write_bytes((2**63).to_bytes(8, "little") + b"{}")
    (tmp_path / "long header").write_bytes((90_000_000).to_bytes(8, "little") + b"{}")
    (tmp_path / "deep").write_bytes((100_000).to_bytes(8, "little") + b'{"a":' * 20_000)
    (tmp_path / "list").write_bytes((2).to_bytes(8, "little") + b"[]")
    (tmp_path / "folder").mkdir()
    reasons = {
        "plain": "it was not written by keras_lth",
        "empty": "it has no safetensors header",
        "zip": "it has no safetensors header",
        "pickle": "it has no safetensors header",
        "huge header": "it has no safetensors header",
        "long header": "it is truncated",
        "deep": "maximum recursion|its header is not JSON",
        "list": "it has no safetensors header",
        "folder": "it is a folder",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=f"{name} is not a keras_lth ticket: ({reason})"):
            files.read_arrays(tmp_path / name, kind="ticket")
    with pytest.raises(
        ValueError, match=r"ticket is not a keras_lth masks: it contains another kind of value: 'ticket'"
    ):
        files.read_arrays(tmp_path / "ticket", kind="masks")
    with pytest.raises(FileNotFoundError, match="absent"):
        files.read_arrays(tmp_path / "absent", kind="ticket")
