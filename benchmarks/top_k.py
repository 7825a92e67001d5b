"""Global top-k magnitude selection beside its peers, in one run: python benchmarks/top_k.py --out=top_k.json.

Every row does the whole job on the same float32 weights: a new boolean mask in which exactly k are True. NumPy runs
in processes of its own with its AVX-512 code on and off, because its AVX-512 partition is the slower one on some
processors; the faster of the two is the peer that ratios refer to.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import timing

# The names of NumPy's dispatch targets above AVX2, of several NumPy versions; unknown ones are ignored with a warning.
NUMPY_AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4"


def weights(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32)


def numpy_masks(x: np.ndarray, k: int) -> np.ndarray:
    """abs, partition, compare; then as many of the ties, in order, as are missing from k."""
    magnitude = np.abs(x)
    threshold = np.partition(magnitude, x.size - k)[x.size - k]
    mask = magnitude > threshold
    missing = k - np.count_nonzero(mask)
    mask[np.flatnonzero(magnitude == threshold)[:missing]] = True
    return mask


def numpy_ms(arguments: argparse.Namespace, *, avx512: bool) -> float:
    """The time of `numpy_masks` in a process of its own."""
    environment = dict(os.environ)
    if not avx512:
        environment["NPY_DISABLE_CPU_FEATURES"] = NUMPY_AVX512
    options = [f"--{name}={getattr(arguments, name)}" for name in ("size", "keep", "repeats")]
    command = [sys.executable, "-W", "ignore", __file__, "--only-numpy", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def core_rows(x: np.ndarray, k: int, repeats: int) -> dict[str, float]:
    from keras_lth import _core, ops

    expected = numpy_masks(x, k)
    rows = {}
    before = os.environ.get("KERAS_LTH_ISA")
    for name in _core.supported():
        os.environ["KERAS_LTH_ISA"] = name
        if not np.array_equal(ops.top_k_masks([x], k)[0], expected):
            raise RuntimeError(f"{name} and NumPy select different weights")
        rows[f"keras_lth.ops.top_k_masks, {name}"] = timing.best_ms(lambda: ops.top_k_masks([x], k), repeats)
    if before is None:
        del os.environ["KERAS_LTH_ISA"]
    else:
        os.environ["KERAS_LTH_ISA"] = before
    return rows


def tensorflow_ms(x: np.ndarray, k: int) -> float:
    """Once, after one call: it takes seconds."""
    import tensorflow as tf

    tensor = tf.constant(x)

    def call() -> object:
        magnitude = tf.abs(tensor)
        return (magnitude >= tf.math.top_k(magnitude, k, sorted=True).values[-1]).numpy()

    return timing.best_ms(call, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=25_600_000, help="number of weights")
    parser.add_argument("--keep", type=float, default=0.2, help="share that is kept")
    parser.add_argument("--repeats", type=int, default=9, help="timed calls; the best counts")
    parser.add_argument("--tensorflow", action="store_true", help="also time tf.math.top_k (ties are not resolved)")
    parser.add_argument("--out", help="write the numbers as JSON to this file")
    parser.add_argument("--only-numpy", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    x = weights(arguments.size)
    k = round(arguments.keep * arguments.size)
    if arguments.only_numpy:
        print(timing.best_ms(lambda: numpy_masks(x, k), arguments.repeats))
        return
    machine = timing.machine()
    rows = {"copy of the same bytes": timing.best_ms(x.copy, arguments.repeats)}
    rows |= core_rows(x, k, arguments.repeats)
    peers = {
        "NumPy abs, partition, compare": numpy_ms(arguments, avx512=True),
        "the same, NumPy's AVX-512 off": numpy_ms(arguments, avx512=False),
    }
    peer = min(peers.values())
    rows |= peers
    if arguments.tensorflow:
        rows["tf.math.top_k, compare"] = tensorflow_ms(x, k)
    print(f"{arguments.size} float32 weights, {k} kept; best of {arguments.repeats}; {machine}")
    print(f"{'':40}{'ms':>10}{'faster than NumPy':>20}")
    for name, ms in rows.items():
        print(f"{name:40}{ms:10.1f}{peer / ms:20.2f}")
    timing.write(arguments.out, {"machine": machine, "size": arguments.size, "k": k, "ms": rows, "numpy_best_ms": peer})


if __name__ == "__main__":
    main()
