"""A training step where TensorFlow keeps the memory of its tensors, as `import keras_lth` has it, and where not.

Processes of both kinds take turns: the allocator is chosen when TensorFlow starts. Each trains one network and reports
the milliseconds of a step, the pages that the system has cleared in it, and the peak of its memory.

    python benchmarks/kept_memory.py --out docs/results/benchmarks/kept_memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import nets
import sparse_layers
import timing

NETS = "vgg", "resnet", "conv4"
ZEROS = 0.95  # of each kernel
WARM = 2  # epochs
NUMBERS = {"ms": "milliseconds of a step", "pages": "pages cleared in it", "peak_mb": "peak of memory, MB"}


def train(name: str, epochs: int) -> dict[str, float]:
    """Train in this process, in the loop without XLA; the medians of epochs."""
    net = nets.NETS[name]
    bench = sparse_layers.Bench(net)

    def prepare(model: Any) -> None:
        sparse_layers.make_sparse(model, sparse_layers.masks_of(model, ZEROS, 1), 1)

    turn = bench.turn("loop", prepare)
    found: list[tuple[float, float]] = []
    for _ in range(WARM + epochs):
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        turn(net.epoch)
        seconds = time.perf_counter() - begin
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        found.append((1e3 * seconds / net.epoch, pages / net.epoch))
    ms, cleared = (statistics.median(values) for values in zip(*found[WARM:], strict=True))
    return {"ms": ms, "pages": cleared, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of the few steps of the network's data, in each process")
    parser.add_argument("--out", help="file for the numbers")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a child process trains
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(train(arguments.one, arguments.epochs)))
        return
    lines = []
    for name in NETS:
        found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
        for turned in range(arguments.rounds):
            for kept in (True, False) if turned % 2 else (False, True):
                command = [
                    sys.executable,
                    __file__,
                    f"--one={name}",
                    f"--epochs={arguments.epochs}",
                ]
                environment = {**os.environ, "TF_CPU_ALLOCATOR_USE_BFC": str(kept).lower()}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
                found[kept].append(json.loads(done.stdout.splitlines()[-1]))
        line: dict[str, Any] = {"net": nets.NETS[name].title, "zeros": ZEROS}
        for kept, results in found.items():
            of = {number: statistics.median(result[number] for result in results) for number in NUMBERS}
            line["kept" if kept else "given back"] = of
        ratios = [a["ms"] / b["ms"] for a, b in zip(found[False], found[True], strict=True)]
        line["faster"] = statistics.median(ratios)
        lines.append(line)
        print(f"{line['net']}, {100 * ZEROS:g} % zeros: {line['faster']:.2f} × as fast where memory is kept")
        for number, said in NUMBERS.items():
            print(f"    {said}: {line['given back'][number]:.5g} → {line['kept'][number]:.5g}", flush=True)
    timing.write(arguments.out, {"machine": timing.machine(), "rounds": arguments.rounds, "lines": lines})


if __name__ == "__main__":
    main()
