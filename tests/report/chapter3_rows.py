"""Rows of a run in which every finding of the thesis' chapter 3 holds, and ways in which it would not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Row = dict[str, Any]
LEVELS, REPLICATES = 20, 3
ARMS = ("imp", "imp_one_shot", "lrr", "reinit", "random_layerwise", "random_global", "signs", "shuffled")
# The last level that matches, and the points lost at each level after it; on test and on training data.
TEST = {
    "imp": (16, 1.0), "imp_one_shot": (8, 1.2), "lrr": (14, 1.0), "reinit": (0, 0.4), "random_layerwise": (0, 0.8),
    "random_global": (0, 3.0), "signs": (16, 1.1), "shuffled": (0, 0.45),
}  # fmt: skip
TRAIN = {**TEST, "imp": (15, 1.0), "random_global": (2, 3.0)}
STOPS = {"imp": 300, "dense": 500}
LEAST = {"dense": 0.9, "imp": 0.5, "reinit": 0.9}
SIZES = {"hidden_1/kernel": 235_200, "hidden_2/kernel": 30_000, "output/kernel": 1000}


def accuracy(
    table: Mapping[str, tuple[int, float]], dense: float, arm: str, level: int, replicate: int, won: float
) -> float:
    last, loss = table[arm]
    gain = won if level and level <= last else 0.0
    return dense + gain - loss / 100 * max(0, level - last) * bool(level) + 0.0005 * (replicate - 1)


def world(swap: Mapping[str, str] | None = None, **changed: Any) -> list[Row]:
    """All rows; ``swap`` gives the numbers of an arm to another one, ``changed`` replaces constants of this module."""
    of = {arm: arm for arm in (*ARMS, "dense")} | dict(swap or {})
    test, train = ({**table, **changed.get(name, {})} for name, table in (("TEST", TEST), ("TRAIN", TRAIN)))
    stops, least = ({**table, **changed.get(name, {})} for name, table in (("STOPS", STOPS), ("LEAST", LEAST)))
    rows: list[Row] = []
    for arm in ARMS:
        for replicate in range(REPLICATES):
            for level in range(0 if arm == "imp" else 1, LEVELS + 1):
                labels = {"arm": arm, "replicate": replicate, "level": level, "density": 0.8**level}
                source = of[arm]
                found = accuracy(test, 0.9, source, level, replicate, changed.get("gain", 0.002))
                gap = 0.04 if source == "lrr" else 0.0
                trained = accuracy(train, 0.95, source, level, replicate, changed.get("gain", 0.002)) + (
                    gap if level else 0
                )
                rows.append({"table": "results", **labels, "accuracy": found, "train_accuracy": trained, "loss": 0.3})
                stop = stops.get(source, 700) if level else stops["dense"]
                for step in range(100, 1001, 100):
                    rows.append(
                        {"table": "curves", **labels, "step": step, "accuracy": found * (1 - 0.5 ** (step / 20))}
                    )
                    loss = 0.3 + (step - stop) ** 2 / 1e6
                    rows.append({"table": "holdout", **labels, "step": step, "holdout_loss": loss})
    for arm in ("dense", "imp", "reinit", "random_layerwise"):
        for level in (0,) if arm == "dense" else (1, 6, 11):
            for replicate in range(REPLICATES):
                for factor in (0.3, 0.5, 0.7, 0.9, 1.0, 1.5):
                    reached = factor >= (least.get(of[arm], 0.9 if level == 1 else 9.0))
                    rows.append({
                        "table": "dilation", "arm": arm, "level": level, "replicate": replicate, "density": 0.8**level,
                        "dilation": factor, "accuracy": 0.9 if reached else 0.89,
                    })  # fmt: skip
    rng = np.random.default_rng(0)
    for replicate in range(REPLICATES):
        for level in range(1, LEVELS + 1):
            for path, size in SIZES.items():
                shares = {"imp": 0.8**level * (0.9 if path == "hidden_1/kernel" else 1.0), "random_global": 0.8**level}
                for arm in shares:
                    share = shares.get(of[arm], shares[arm]) + changed.get("by_replicate", 0) * replicate
                    left = rng.binomial(size, share) if of[arm] == "random_global" else round(size * share)
                    left = 0 if path == changed.get("emptied") and level == LEVELS else max(left, 1)
                    rows.append({
                        "table": "layers", "arm": arm, "replicate": replicate, "level": level, "path": path,
                        "size": size, "remaining": left, "density": left / size,
                    })  # fmt: skip
        image = np.full((28, 28), changed.get("border", 0))
        image[4:-4, 4:-4] = 5
        rows.append({
            "table": "degrees", "level": LEVELS, "replicate": replicate, "path": "hidden_1/kernel",
            "inputs": image.ravel().tolist(), "outputs": [1],
        })  # fmt: skip
    return rows
