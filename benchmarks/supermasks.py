"""Learn masks of untrained networks, and train what they found: LeNet-300-100 on Fashion-MNIST.

Zhou et al. (2019) learn a probability of each weight (`Supermask`), with and without rescaling, Ramanujan et al. (2020)
a score for each weight, of which each layer keeps the highest (`EdgePopup`). The accuracy "untrained" is that of the
initial weights under the mask; "trained" that of the same subnetwork after its weights were trained as the dense
network's. Seeds are three initialisations and data orders.

A run is a line of ``--out``; the same command continues where it stopped.

    python benchmarks/supermasks.py --out docs/results/moving_masks/supermasks.csv
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import pandas as pd

import keras_lth as lth
from keras_lth import datasets, models
from keras_lth.layers import EdgePopup, Supermask

BATCH, RATE = 60, 1.2e-3
# Of scores: Bernoulli probabilities need the larger one.
SUPERMASK_RATE, POPUP_RATE = 1e-2, 1e-3
RULES: dict[str, Any] = {
    "dense": lambda seed: None,
    "supermask": lambda seed: Supermask(),
    "supermask, rescaled": lambda seed: Supermask(rescale=True),
    "edge-popup, 50 %": lambda seed: EdgePopup(0.5, seed=seed),
    "edge-popup, 30 %": lambda seed: EdgePopup(0.3, seed=seed),
    "edge-popup, 10 %": lambda seed: EdgePopup(0.1, seed=seed),
}


def trained(model: keras.Model, splits: Any, seed: int, steps: int, rate: float) -> float:
    """Train, and return the test accuracy."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate, epsilon=1e-8), loss, metrics=["accuracy"])
    data = datasets.ordered(*splits.train, batch_size=BATCH, seed=seed)
    lth.training.fit(model, data, epochs=max(1, round(steps / data.steps_per_epoch)), verbose=0)
    return tested(model, splits)


def tested(model: keras.Model, splits: Any) -> float:
    if not model.compiled:
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return float(model.evaluate(*splits.test, batch_size=1000, verbose=0, return_dict=True)["accuracy"])


def run(name: str, seed: int, steps: int) -> dict[str, Any]:
    """Learn a mask, and train what it found."""
    splits = datasets.load("fashion_mnist")
    model = models.lenet_300_100(splits.train[0].shape[1:], splits.classes, seed=seed)
    begin, rule = time.perf_counter(), RULES[name](seed)
    found: dict[str, Any] = {"rule": name, "seed": seed, "steps": steps, "density": 1.0, "untrained": None}
    if rule is None:
        found["trained"] = trained(model, splits, seed, steps, RATE)
    else:
        learning = lth.layers.learn_masks(model, rule)
        trained(model, splits, seed, steps, POPUP_RATE if isinstance(rule, EdgePopup) else SUPERMASK_RATE)
        found["density"] = learning.finish().density
        found["untrained"] = tested(model, splits)
        found["trained"] = trained(model, splits, seed, steps, RATE)
    return found | {"seconds": round(time.perf_counter() - begin, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("supermasks.csv"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12_000)
    arguments = parser.parse_args()
    rows = pd.read_csv(arguments.out) if arguments.out.exists() else pd.DataFrame(columns=["rule", "seed"])
    for name in RULES:
        for seed in range(arguments.seeds):
            if ((rows["rule"] == name) & (rows["seed"] == seed)).any():
                continue
            rows = pd.concat([rows, pd.DataFrame([run(name, seed, arguments.steps)])], ignore_index=True)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            rows.to_csv(arguments.out, index=False)
    table = rows.groupby("rule", sort=False)[["density", "untrained", "trained"]].agg(["mean", "min", "max"])
    print((100 * table).round(2).to_string())


if __name__ == "__main__":
    main()
