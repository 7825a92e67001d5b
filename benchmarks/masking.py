"""Measure what masking costs a training step: LeNet-300-100 at batch 60 with Adam, plain and masked in one run.

Plain and masked take turns every few milliseconds, calling the training function that ``fit`` calls. ``fit``'s own
Python between steps is the same for both and is not measured. The ratio of two neighbouring blocks cancels other load
on the machine; the median over the pairs is reported.

    python benchmarks/masking.py --out masking.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import surgery

MODES: dict[str, dict[str, Any]] = {
    "as compiled by default": {},
    "jit_compile, 50 steps per execution": {"jit_compile": True, "steps_per_execution": 50},
}


def lenet(masked: bool, density: float, options: dict[str, Any]) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(300, activation="relu"),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.Adam(1.2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    if masked:
        random = np.random.default_rng(1)
        weights = surgery.prunable(model)
        surgery.mask(model, {path: random.random(tuple(v.shape)) < density for path, v in weights.items()})
    return model


def seconds_per_step(model: keras.Model, batches: Iterator[Any], executions: int) -> float:
    begin = time.perf_counter()
    for _ in range(executions):
        model.train_function(batches)
    return (time.perf_counter() - begin) / (executions * model.steps_per_execution)


def compare(options: dict[str, Any], *, steps: int, pairs: int, batch: int, density: float) -> dict[str, float]:
    random = np.random.default_rng(0)
    x = random.random((batch * 100, 784), np.float32)
    y = random.integers(0, 10, batch * 100).astype(np.int32)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch, drop_remainder=True).cache().repeat()
    models = {masked: lenet(masked, density, options) for masked in (False, True)}
    batches = {masked: iter(data) for masked in models}
    executions = max(1, steps // models[False].steps_per_execution)
    for masked, model in models.items():
        model.fit(data, epochs=1, steps_per_epoch=100, verbose=0)  # traces and compiles
        seconds_per_step(model, batches[masked], 4 * executions)
    times: dict[bool, list[float]] = {False: [], True: []}
    for pair in range(pairs):
        for masked in (False, True) if pair % 2 == 0 else (True, False):
            times[masked].append(seconds_per_step(models[masked], batches[masked], executions))
    ratios = [b / a for a, b in zip(times[False], times[True], strict=True)]
    return {
        "plain_steps_per_second": 1 / statistics.median(times[False]),
        "masked_steps_per_second": 1 / statistics.median(times[True]),
        "ratio": statistics.median(ratios),
        "ratio_quartile_1": statistics.quantiles(ratios, n=4)[0],
        "ratio_quartile_3": statistics.quantiles(ratios, n=4)[2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=25, help="steps per block; one execution if that is longer")
    parser.add_argument("--pairs", type=int, default=400, help="pairs of blocks per mode")
    parser.add_argument("--batch", type=int, default=60)
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    args = parser.parse_args()

    results = {}
    print(f"{'mode':38}{'plain steps/s':>15}{'masked steps/s':>16}{'masked/plain time':>19}{'quartiles':>16}")
    for mode, options in MODES.items():
        row = compare(options, steps=args.steps, pairs=args.pairs, batch=args.batch, density=args.density)
        results[mode] = row
        quartiles = f"{row['ratio_quartile_1']:.3f} – {row['ratio_quartile_3']:.3f}"
        print(
            f"{mode:38}{row['plain_steps_per_second']:>15.0f}{row['masked_steps_per_second']:>16.0f}"
            f"{row['ratio']:>19.3f}{quartiles:>16}",
            flush=True,
        )
    if args.out:
        about = {
            "model": "LeNet-300-100",
            "optimizer": "Adam",
            "batch": args.batch,
            "density": args.density,
            "steps_per_block": args.steps,
            "pairs": args.pairs,
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        }
        args.out.write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
