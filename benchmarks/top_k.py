"""Compare exact selection over many tensors with other methods, in one run: python benchmarks/top_k.py
--out=top_k.json.

The weights are float32 in the 161 tensors of a ResNet-50. "Into existing masks" measures the core alone, next to a copy
of the same bytes into an existing array with as many threads. The other lines do the whole task, new masks with exactly
k True. Candidates take turns in one process. NumPy's pipeline runs in two further processes, with its AVX-512 code on
and off, because its AVX-512 partition is slower on some processors; the faster of the two is compared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import rows
import timing
from turns import Effort, in_turns

# The names of NumPy's dispatch targets above AVX2, of several NumPy versions; unknown ones are ignored with a warning.
NUMPY_AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4"
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width and number of the bottleneck blocks


def resnet50_shapes() -> list[tuple[int, ...]]:
    """Kernels, batch normalisation's scales and offsets, and the output layer: 161 tensors, 25 557 032 values."""
    shapes: list[tuple[int, ...]] = []

    def convolution(side: int, inputs: int, outputs: int) -> None:
        shapes.extend([(side, side, inputs, outputs), (outputs,), (outputs,)])

    convolution(7, 3, 64)
    inputs = 64
    for width, blocks in STAGES:
        for block in range(blocks):
            convolution(1, inputs, width)
            convolution(3, width, width)
            convolution(1, width, 4 * width)
            if block == 0:
                convolution(1, inputs, 4 * width)
            inputs = 4 * width
    return [*shapes, (inputs, 1000), (1000,)]


def tensors(flat: np.ndarray) -> list[np.ndarray]:
    """The values cut into the shapes of a ResNet-50, or as one tensor if they are not as many."""
    shapes = resnet50_shapes()
    sizes = [int(np.prod(shape)) for shape in shapes]
    if sum(sizes) != flat.size:
        return [flat]
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def weights(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32)


def adversarial(size: int, share: float) -> Iterator[tuple[str, np.ndarray]]:
    """Inputs that mislead a selection by pivots or samples."""
    random = np.random.default_rng(1)
    one = int(np.float32(1).view(np.int32))
    normal = weights(size)
    yield "all equal", np.ones(size, np.float32)
    yield "two values", np.where(random.random(size) < 0.5, np.float32(1), np.float32(2))
    yield "two values, k at the step", np.where(random.random(size) < share, np.float32(2), np.float32(1))
    yield "a hundred values", (one + random.integers(0, 100, size)).astype(np.int32).view(np.float32)
    yield "sorted", np.sort(np.abs(normal))
    yield "sorted, descending", np.sort(np.abs(normal))[::-1].copy()
    yield "denormal", random.integers(0, 1 << 23, size, dtype=np.int32).view(np.float32)
    yield "one exponent", (one + random.integers(0, 1 << 23, size)).astype(np.int32).view(np.float32)
    yield "nine tenths are zero", np.where(random.random(size) < 0.1, normal, np.float32(0))


def numpy_masks(x: np.ndarray, k: int) -> np.ndarray:
    """abs, partition, compare; then as many of the ties, in order, as are missing from k."""
    magnitude = np.abs(x)
    threshold = np.partition(magnitude, x.size - k)[x.size - k]
    mask = magnitude > threshold
    missing = k - np.count_nonzero(mask)
    mask[np.flatnonzero(magnitude == threshold)[:missing]] = True
    return mask


def child(arguments: argparse.Namespace, flag: str, **environment: str) -> float:
    """A number that this program prints in a process of its own."""
    options = [f"--{name}={getattr(arguments, name)}" for name in ("size", "keep", "repeats")]
    command = [sys.executable, "-W", "ignore", __file__, flag, *options]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return float(done.stdout)


def extra_bytes(x: np.ndarray, k: int) -> int:
    """What a selection adds to the peak of this process' memory, its result not counted."""
    from keras_lth import _core

    def of_status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

    masks, few = [np.ones(x.size, bool)], np.ones(1 << 20, np.float32)
    _core.top_k([few], [np.ones(1 << 20, bool)], None, "float32", 1000)  # starts threads
    Path("/proc/self/clear_refs").write_text("5")
    before = of_status("VmRSS")
    _core.top_k([x], masks, None, "float32", k)
    return of_status("VmHWM") - before


@contextmanager
def forced(isa: str) -> Iterator[None]:
    """An instruction set, for calls of this package."""
    before = os.environ.get("KERAS_LTH_ISA")
    os.environ["KERAS_LTH_ISA"] = isa
    yield
    if before is None:
        del os.environ["KERAS_LTH_ISA"]
    else:
        os.environ["KERAS_LTH_ISA"] = before


def check(parts: list[np.ndarray], k: int) -> None:
    """Refuses to time a wrong answer."""
    from keras_lth import _core, ops

    expected = numpy_masks(np.concatenate([part.ravel() for part in parts]), k)
    for isa in _core.supported():
        with forced(isa):
            got = np.concatenate([mask.ravel() for mask in ops.top_k_masks(parts, k)])
        if not np.array_equal(got, expected):
            raise RuntimeError(f"{isa} and NumPy select different weights")


def copies(x: np.ndarray, pool: ThreadPoolExecutor, threads: int) -> Callable[[], object]:
    """A copy of the same bytes into an existing array."""
    to = np.empty_like(x)
    pairs = list(zip(np.array_split(to, threads), np.array_split(x, threads), strict=True))
    return lambda: list(pool.map(lambda pair: np.copyto(*pair), pairs))


def candidates(x: np.ndarray, k: int, pool: ThreadPoolExecutor, threads: int) -> dict[str, Callable[[], object]]:
    from keras_lth import _core, ops

    parts = tensors(x)
    masks = [np.ones(part.shape, bool) for part in parts]
    bits = [np.ones((part.size + 7) // 8, np.uint8) for part in parts]
    last = _core.top_k(parts, masks, None, "float32", k, threshold=True)[1]
    drifted = int(np.float32(np.uint32(last).view(np.float32) * np.float32(1.002)).view(np.uint32))

    def core(out: list[np.ndarray], **options: object) -> Callable[[], object]:
        return lambda: _core.top_k(parts, out, None, "float32", k, **options)

    calls: dict[str, Callable[[], object]] = {
        "copy": copies(x, pool, threads),
        "copy, new array": x.copy,
        "whole": lambda: ops.top_k_masks(parts, k),
        "random": core(masks),
        "one thread": core(masks, threads=1),
        "packed": core(bits),
        "by value": core(masks, by_value=True),
        "near": core(masks, near=last),
        "near, drifted": core(masks, near=drifted),
    }
    return calls | {f"isa {isa}": core(masks, isa=isa) for isa in _core.supported()}


def tensorflow_ms(x: np.ndarray, k: int) -> float:
    """Once, after one call: it takes seconds."""
    import tensorflow as tf

    tensor = tf.constant(x)

    def call() -> object:
        magnitude = tf.abs(tensor)
        return (magnitude >= tf.math.top_k(magnitude, k, sorted=True).values[-1]).numpy()

    return timing.best_ms(call, 1)


def lines(ms: Mapping[str, float], size: int, keep: float) -> list[rows.Row]:
    """What the candidates' times say."""
    what = f"select {100 * keep:g} % of {size / 1e6:.1f} M float32"
    copy, random = ms["copy"], ms["random"]

    def beside(work: str, ours: float, peer: str, theirs: float, floor: float | None = None) -> rows.Row:
        return rows.Row(work, ours, peer, theirs, ours / theirs, floor, at_most=True, of="× its time")

    found = [
        beside(f"{what}, into existing masks", random, "copy of the same bytes, as many threads", copy, 1.5),
        beside(f"{what}, new masks", ms["whole"], "copy of the same bytes, new array", ms["copy, new array"]),
    ]
    found += [
        rows.faster("the same, as bits", ms["packed"], "as bytes", random),
        rows.faster("the same, signed", ms["by value"], "magnitudes", random),
        rows.faster("the same, near the last threshold", ms["near"], "without it", random),
        rows.faster("the same, threshold moved by 0.2 %", ms["near, drifted"], "without it", random),
        rows.faster("the same, threads", random, "one thread", ms["one thread"]),
    ]
    sets = [name for name in ms if name.startswith("isa ")]
    return found + [beside(f"the same, {name[4:]}", ms[name], "copy", copy) for name in sets]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=25_557_032, help="number of weights")
    parser.add_argument("--keep", type=float, default=0.2, help="share of the weights that is kept")
    parser.add_argument("--repeats", type=int, default=9, help="turns of each candidate; the best time counts")
    parser.add_argument("--tensorflow", action="store_true", help="also time tf.math.top_k (ties are not resolved)")
    parser.add_argument("--out", help="write the numbers as JSON to this file")
    parser.add_argument("--only-numpy", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    x = weights(arguments.size)
    k = round(arguments.keep * arguments.size)
    if arguments.only_numpy:
        print(timing.best_ms(lambda: numpy_masks(x, k), arguments.repeats))
        return
    if arguments.only_memory:
        print(extra_bytes(x, k))
        return
    machine = timing.machine()
    threads = int(os.environ.get("KERAS_LTH_THREADS") or machine["cores"])
    effort = Effort(turns=arguments.repeats)
    check(tensors(x), k)
    with ThreadPoolExecutor(threads) as pool:
        ms = in_turns(candidates(x, k, pool, threads), effort)
    table = lines(ms, arguments.size, arguments.keep)
    on, off = child(arguments, "--only-numpy"), child(arguments, "--only-numpy", NPY_DISABLE_CPU_FEATURES=NUMPY_AVX512)
    table.append(rows.faster("the same, new masks", ms["whole"], "NumPy abs, partition, compare", min(on, off), 5.0))
    if arguments.tensorflow:
        table.append(rows.faster("the same", ms["whole"], "tf.math.top_k, compare", tensorflow_ms(x, k), 300.0))
    for name, values in adversarial(arguments.size, arguments.keep):
        check([values], k)
        pair = in_turns(only_core(values, x, k), effort)
        ratio = pair["hard"] / pair["random"]
        table.append(
            rows.Row(
                f"the same, {name}", pair["hard"], "random input", pair["random"], ratio, 2.5, True, of="× its time"
            )
        )
    if Path("/proc/self/clear_refs").exists():
        extra = child(arguments, "--only-memory") / 1e6
        share = 100 * extra / (x.nbytes / 1e6)
        table.append(rows.Row("extra memory", extra, "the input", x.nbytes / 1e6, share, 3.0, True, "MB", "% of it"))
    for row in table:
        met = {None: "", True: "met", False: "MISSED"}[row.met]
        ours, theirs = f"{row.ours:10.2f} {row.unit}", f"{row.theirs:10.2f}"
        print(f"{row.work:52}{ours}  {row.peer:42}{theirs}{row.ratio:9.2f} {row.of:10} {met}")
    result = {"machine": machine, "threads": threads, "size": arguments.size, "k": k, "ms": ms}
    result |= {"numpy_ms": {"avx512": on, "without": off}, "rows": [row.json() for row in table]}
    timing.write(arguments.out, result)


def only_core(hard: np.ndarray, x: np.ndarray, k: int) -> dict[str, Callable[[], object]]:
    """The core alone on two inputs."""
    from keras_lth import _core

    masks = [np.ones(x.size, bool)]
    return {
        "random": lambda: _core.top_k([x], masks, None, "float32", k),
        "hard": lambda: _core.top_k([hard], masks, None, "float32", k),
    }


if __name__ == "__main__":
    main()
