"""Measure all performance claims of the C++ core against other libraries, in one run: `make bench`.

Prints markdown tables and writes them, the numbers as JSON, and a figure. Our products are timed as compiled functions
on existing arrays. The training step, and lines that say so, run through the TensorFlow ops. A time is the fastest of
several turns that the candidates take in one process, with the same number of threads each.

    python benchmarks/bench.py --out docs/results/benchmarks
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import figure
import layers
import peak
import peers
import products
import rows
from turns import Effort

HERE = Path(__file__).resolve().parent


def available() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def selection(quick: bool, threads: int, out: Path | None) -> list[rows.Row]:
    """The lines of `top_k.py`, in a process of its own: its NumPy peers need environments of their own."""
    log("selection")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(out or folder) / "top_k.json"
        command = [sys.executable, str(HERE / "top_k.py"), "--tensorflow", f"--out={path}"]
        if quick:
            command += ["--size=200000", "--repeats=2"]
        environment = {**os.environ, "KERAS_LTH_THREADS": str(threads)}
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
        return [rows.from_json(row) for row in json.loads(path.read_text())["rows"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, only to check that everything runs")
    parser.add_argument(
        "--threads", type=int, default=available(), help="number of threads of every candidate that uses threads"
    )
    parser.add_argument("--out", type=Path, help="folder for kernels.md, kernels.json, kernels.png and top_k.json")
    parser.add_argument("--skip-selection", action="store_true", help="leave out benchmarks/top_k.py")
    arguments = parser.parse_args()
    quick, threads = arguments.quick, arguments.threads
    begin = time.perf_counter()
    effort = Effort(turns=2, turn_ms=1) if quick else Effort()
    shape = products.Shape(32, 256, 256) if quick else products.Shape()
    side = shape.inputs

    # Without its ops the package would compute dense products, and say so: not what is claimed here.
    warnings.filterwarnings("error", message="the TensorFlow ops of keras_lth")
    versions = peers.set_threads(threads)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    selected = [] if arguments.skip_selection else selection(quick, threads, arguments.out)
    log("machine")
    machine = peak.measure(threads, size=10**6 if quick else 25_600_000, side=512 if quick else 2048, effort=effort)
    machine |= {"peers": versions}
    lines = products.measure(shape, threads, effort, log)
    result = [
        *selected,
        *products.judge(lines),
        *layers.one_row(side, threads, effort, log),
        *layers.through_the_op(shape.m, side, threads, effort, log),
        *layers.training_step(shape.m, side, effort, log),
        *layers.convolution(8 if quick else 32, 8 if quick else 28, 32 if quick else 128, threads, effort, log),
        *products.scaling(shape, threads, effort, log),
    ]
    points = products.sweep(shape, threads, effort, log)

    wins = {name: products.wins_from(line) for name, line in figure.by_block(points).items()}
    text = "\n\n".join(
        [
            peak.text(machine),
            f"M = {shape.m}, K = N = {side}, float32; the fastest of several turns in one process."
            + (" Sizes of --quick: the floors do not apply." if quick else ""),
            rows.table(result),
            rows.verdict(result),
            products.peers_table(lines),
            products.sweep_table(points),
        ]
    )
    print(text)
    log(f"{time.perf_counter() - begin:.0f} s")
    if arguments.out:
        numbers = {
            "machine": machine,
            "shape": shape._asdict(),
            "rows": [row.json() for row in result],
            "products": [line.json() for line in lines],
            "sweep": points,
            "wins_from": wins,
        }
        (arguments.out / "kernels.json").write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
        (arguments.out / "kernels.md").write_text(text + "\n")
        below = f"{machine['processor']}, {threads} threads; M = {shape.m}, K = N = {side}, float32; blocks at random"
        figure.draw(points, below, arguments.out / "kernels.png")


if __name__ == "__main__":
    main()
