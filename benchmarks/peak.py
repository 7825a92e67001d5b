"""Measure the limits of the machine: bandwidth of a copy, arithmetic peak, TensorFlow's dense product."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import timing
import turns

SOURCE = Path(__file__).with_name("peak.cc")


def copier(size: int, pool: ThreadPoolExecutor, threads: int) -> Callable[[], object]:
    """A copy of `size` float32 into memory that is there already, cut into `threads` parts."""
    source, target = np.ones(size, np.float32), np.zeros(size, np.float32)
    cuts = [size * i // threads for i in range(threads + 1)]
    parts = [(target[a:b], source[a:b]) for a, b in itertools.pairwise(cuts)]
    if threads == 1:
        return lambda: np.copyto(target, source)
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))


def fma_gflops(threads: int) -> float | None:
    """GFLOP/s of multiply-adds in registers, by a small program; None where there is no C++ compiler."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    if shutil.which(compiler[0]) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/peak"
        command = [*compiler, "-O3", "-march=native", "-std=gnu++17", "-pthread", str(SOURCE), "-o", program]
        subprocess.run(command, check=True)
        return float(subprocess.run([program, str(threads)], check=True, capture_output=True, text=True).stdout)


def measure(threads: int, *, size: int, side: int, effort: turns.Effort) -> dict[str, Any]:
    """Bandwidth over `size` floats, and the product of two matrices of `side`, with what ran it."""
    counts = sorted({1, threads})
    with ThreadPoolExecutor(threads) as pool:
        copies = turns.in_turns({str(n): copier(size, pool, n) for n in counts}, effort)
    a = tf.random.stateless_normal((side, side), (0, 1))
    product = tf.function(tf.matmul)
    dense_ms = turns.in_turns({"dense": lambda: product(a, a)}, effort)["dense"]
    return {
        **timing.machine(),
        "tensorflow": tf.__version__,
        "threads": threads,
        "copy_gb_per_s": {name: 8 * size / ms / 1e6 for name, ms in copies.items()},
        "fma_gflops": {str(n): fma_gflops(n) for n in counts},
        "dense_gflops": 2 * side**3 / dense_ms / 1e6,
        "dense_side": side,
    }


def text(machine: dict[str, Any]) -> str:
    """The lines above the tables."""
    copies = ", ".join(f"{rate:.1f} GB/s with {n} thread(s)" for n, rate in machine["copy_gb_per_s"].items())
    fma = ", ".join(
        "not measured (no C++ compiler)" if rate is None else f"{rate:.0f} GFLOP/s with {n} thread(s)"
        for n, rate in machine["fma_gflops"].items()
    )
    side = machine["dense_side"]
    peak = machine["fma_gflops"][str(machine["threads"])]
    share = "" if peak is None else f", {100 * machine['dense_gflops'] / peak:.0f} % of the multiply-adds"
    return "\n".join(
        [
            f"- {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads; load before the run "
            f"{machine['load']}; Python {machine['python']}, NumPy {machine['numpy']}, "
            f"TensorFlow {machine['tensorflow']}"
            + "".join(f", {name} {version}" for name, version in machine.get("peers", {}).items()),
            f"- copy (bytes read and written): {copies}",
            f"- multiply-adds in registers: {fma}",
            f"- TensorFlow's dense product, {side} × {side} × {side}: {machine['dense_gflops']:.0f} GFLOP/s{share}",
        ]
    )
