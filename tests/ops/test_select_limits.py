"""What selection costs in memory, and sizes beyond 32 bits."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from keras_lth import _core, ops

MEMORY = """
import sys, numpy as np
from keras_lth import _core
kind, packed = sys.argv[1], sys.argv[2] == "packed"
n = 25_600_000
random = np.random.default_rng(0)
x = random.standard_normal(n, dtype=np.float32)
if kind == "two values": x = np.where(x > 0.3, np.float32(2), np.float32(1))
if kind == "misleading":
    # Everywhere but where the sample looks, values are in the middle of the bracket: the list overflows.
    x = (np.float32(1) + np.arange(n, dtype=np.float32) % 1000 * np.float32(1e-6)).astype(np.float32)
    x[::3] = random.standard_normal(x[::3].size, dtype=np.float32)
if kind == "sorted": x.sort()
out = np.ones((n + 7) // 8 if packed else n, np.uint8 if packed else bool)
small = np.ones(1 << 17, np.float32)
_core.top_k([small], [np.zeros(1 << 17, bool)], None, "float32", 1000)  # starts threads
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
def now():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024
open("/proc/self/clear_refs", "w").write("5")
before = now()
_core.top_k([x], [out], None, "float32", n // 2)
print((peak() - before) / x.nbytes)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peak memory is read from Linux' /proc")
@pytest.mark.parametrize("kind", ["random", "two values", "misleading", "sorted"])
def test_extra_memory_is_below_three_per_cent(kind: str) -> None:
    """At 25.6 million float32, half of them kept, where the bracket is widest."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, kind, "packed" if kind == "random" else "bytes"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.03


def test_more_values_than_32_bits_count() -> None:
    """2^31 + 100 zeros, never written and so never in memory, and a few numbers; the masks are bits."""
    n = (1 << 31) + 100
    x = np.zeros(n, np.float16)
    places = np.array([5, (1 << 31) - 1, 1 << 31, n - 1])
    x[places] = [1.0, 2.0, 3.0, 4.0]
    (bits,) = ops.top_k_masks([x], 3, packed=True)
    assert int(np.bitwise_count(bits).sum() if hasattr(np, "bitwise_count") else np.unpackbits(bits).sum()) == 3
    assert [bool(bits[p // 8] >> (7 - p % 8) & 1) for p in places.tolist()] == [False, True, True, True]
    selection = ops.ShardedSelection([x], n - 1, packed=True)
    (bits,) = selection.run(lambda array: array)
    assert selection.ties() == n - 4
    # All but the last zero, which is the place before the last.
    assert bits[:-1].min() == 255 or int(np.flatnonzero(bits != 255)[0]) == n // 8
    assert [bool(bits[p // 8] >> (7 - p % 8) & 1) for p in (n - 3, n - 2, n - 1)] == [True, False, True]
    x[n - 2] = np.nan
    with pytest.raises(ops.NotANumberError) as caught:
        ops.top_k_masks([x], 3, packed=True)
    assert caught.value.index == n - 2


def test_many_small_arrays() -> None:
    """Ten thousand arrays cost no more than their values."""
    random = np.random.default_rng(0)
    sizes = random.integers(0, 40, 10_000)
    flat = random.standard_normal(int(sizes.sum())).astype(np.float32)
    masks = ops.top_k_masks(np.split(flat, np.cumsum(sizes)[:-1]), 50_000)
    assert np.array_equal(np.concatenate(masks), ops.top_k_masks([flat], 50_000)[0])


def test_values_do_not_change_and_nothing_else_is_written() -> None:
    room = np.full(300_064, 7.0, np.float32)
    x, guard = room[32:-32], np.full(300_064, 9, np.uint8)
    x[:] = np.random.default_rng(1).standard_normal(x.size)
    before = x.copy()
    for isa in _core.supported():
        for out in (guard[32:-32].view(bool), guard[32 : 32 + x.size // 8]):
            guard[:] = 9
            _core.top_k([x], [out], None, "float32", 100_000, isa=isa, threads=2)
            untouched = np.ones(guard.size, bool)
            untouched[32 : 32 + out.size] = False
            assert (guard[untouched] == 9).all() and np.array_equal(x, before)
    assert (room[:32] == 7).all() and (room[-32:] == 7).all()
