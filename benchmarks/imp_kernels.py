"""Compare a whole IMP run on sparse kernels with the same run on dense, masked ones.

The dense side trains each level, prunes 20 % of the smallest magnitudes and records the masks. The sparse side trains
the same recorded masks. For each level the sides train one after the other, in an order that alternates. Compilation,
storing and rewinding count. Level 0 is dense on both sides, so it is trained once and counted twice.

    python benchmarks/imp_kernels.py --levels=15 --steps=24000 --out imp_kernels.json
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timing
from setting import Setting

import keras_lth as lth
from keras_lth.configs import lenet_300_100
from keras_lth.imp import IMP
from keras_lth.layers import fitted
from keras_lth.training.evaluation import Evaluation


class Side:
    """A model, its compiled steps, and the seconds of each level."""

    def __init__(self, setting: Setting, kernels: str) -> None:
        self.kernels, self.model, self.seconds = kernels, setting.model(1), []
        self.batch_size = setting.config["batch_size"]
        x, y = setting.splits.train
        self.data = lth.datasets.ordered(x, y, batch_size=self.batch_size, seed=1)
        self.loop = lth.training.Loop(self.model, self.data, jit_compile=setting.config["jit_compile"])
        self.test = Evaluation(self.model, setting.splits.test, 1000, None)
        self.accuracy: list[float] = []

    def level(self, start: lth.Snapshot, masks: lth.Masks, steps: int, seed: int) -> None:
        """Train one level."""
        begin = time.perf_counter()
        lth.rewind(self.model, start, masks)
        fitted(self.model, self.kernels, self.batch_size)
        step = 0
        while step < steps:
            count = min(500, steps - step, self.data.steps_per_epoch - step % self.data.steps_per_epoch)
            self.loop.run(step, count, seed)
            step += count
        self.model.trainable_variables[0].numpy()
        self.seconds.append(time.perf_counter() - begin)
        self.accuracy.append(self.test.run()["accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out")
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--levels", type=int, default=15)
    parser.add_argument("--steps", type=int, default=24_000)
    parser.add_argument("--kernels", default="auto", choices=("auto", "sparse"))
    arguments = parser.parse_args()
    setting = Setting(lenet_300_100.get_config(arguments.data).to_dict())
    dense, sparse = Side(setting, "dense"), Side(setting, arguments.kernels)
    start = lth.snapshot(dense.model)
    masks = lth.Masks.ones(lth.prunable(dense.model))
    imp = IMP(T=arguments.steps, rounds=arguments.levels)
    dense.level(start, masks, arguments.steps, 0)
    sparse.seconds.append(dense.seconds[0])
    sparse.accuracy.append(dense.accuracy[0])
    rows: list[dict[str, Any]] = []
    for level in range(1, arguments.levels + 1):
        masks = imp.prune(lth.criteria.Magnitude()(dense.model), masks)
        for side in (dense, sparse) if level % 2 else (sparse, dense):
            side.level(start, masks, arguments.steps, level)
        rows.append(_row(level, masks, dense, sparse))
        print(" ".join(f"{name}={value:.4g}" for name, value in rows[-1].items()), flush=True)
    ratio = sum(sparse.seconds) / sum(dense.seconds)
    spent = f"{sum(sparse.seconds):.0f} s on {arguments.kernels} kernels, {sum(dense.seconds):.0f} s dense"
    print(f"whole run: {spent}, ratio {ratio:.2f}")
    result = {"command": sys.argv[1:], "ratio": ratio, "rows": rows, "machine": timing.machine()}
    timing.write(arguments.out, result)


def _row(level: int, masks: lth.Masks, dense: Side, sparse: Side) -> dict[str, float]:
    return {
        "level": level,
        "density": masks.density,
        "dense s": dense.seconds[-1],
        "sparse s": sparse.seconds[-1],
        "ratio": sparse.seconds[-1] / dense.seconds[-1],
        "dense accuracy": dense.accuracy[-1],
        "sparse accuracy": sparse.accuracy[-1],
    }


if __name__ == "__main__":
    main()
