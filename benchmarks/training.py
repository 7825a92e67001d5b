"""Measure one training with the thesis' setting, and what a round of IMP adds to it.

LeNet-300-100 on Fashion-MNIST: 24 000 steps of Adam at batch 60 through ``fit``, plain and with masks at a density of
20 %, tested after each epoch; then choosing the next masks, and rewinding, each the median of several.

    python benchmarks/training.py --out training.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timing
from setting import Setting

import keras_lth as lth
from keras_lth import datasets, training
from keras_lth.configs import lenet_300_100


def milliseconds(call: Callable[[], object], repeats: int = 15) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data", default="fashion_mnist")
    arguments = parser.parse_args()

    config = lenet_300_100.get_config(arguments.data).to_dict()
    setting = Setting(config)
    data = datasets.ordered(*setting.splits.train, batch_size=config["batch_size"], seed=1)
    steps = setting.epochs * setting.steps_per_epoch
    seconds = {}
    for name in ("plain", "masked, density 20 %"):
        model = setting.model(1)
        start = lth.snapshot(model)
        masks = lth.select(lth.criteria.Random(0)(model), density=0.2)
        if name != "plain":
            lth.mask(model, masks)
        begin = time.perf_counter()
        training.fit(model, data, epochs=setting.epochs, validation_data=setting.test)
        seconds[name] = time.perf_counter() - begin

    def prune() -> lth.Masks:
        return lth.prune(lth.criteria.Magnitude()(model), masks, 0.2)

    def rewind() -> None:
        lth.mask(model, masks)
        lth.rewind(model, start, masks)

    rows = {
        **{f"{steps} steps, {name}, s": value for name, value in seconds.items()},
        **{f"steps/s, {name}": steps / value for name, value in seconds.items()},
        "prune: scores and masks, ms": milliseconds(prune),
        "mask and rewind, ms": milliseconds(rewind),
    }
    for name, value in rows.items():
        print(f"{name:45} {value:10.1f}")
    if arguments.out:
        timing.write(arguments.out, {"machine": timing.machine(), "rows": rows})


if __name__ == "__main__":
    main()
