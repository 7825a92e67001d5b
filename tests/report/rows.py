"""Rows of a lottery run whose numbers the tests derive, in a store and as frames; no training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_lth.report import Results
from keras_lth.report.read import _of_run, frames_of
from keras_lth.store import Store, Value

ARMS = ("imp", "reinit", "random_layerwise", "random_global")
# Points lost a level.
LOSS = {"imp": 0.1, "reinit": 0.4, "random_layerwise": 0.8, "random_global": 3.0}
SIZES = {"hidden_1/kernel": (235_200, 0.78), "hidden_2/kernel": (30_000, 0.86), "output/kernel": (1000, 0.95)}
SETTING = {"model": "lenet_300_100", "data": "fashion_mnist", "levels": 4}
LABELS = ("table", "arm", "replicate", "level", "network", "fork", "pair")
Row = dict[str, Any]


def accuracy(arm: str, level: int, replicate: int) -> float:
    return 0.9 - LOSS[arm] / 100 * level + 0.001 * (replicate - 1)


def lottery(replicates: int = 3, levels: int = 4, lost: Iterable[tuple[str, int, int]] = ()) -> list[Row]:
    """Tables "results", "curves" and "layers"; ``lost`` are (arm, level, replicate) that diverged."""
    rows: list[Row] = []
    for arm in ARMS:
        for replicate in range(replicates):
            for level in range(0 if arm == "imp" else 1, levels + 1):
                diverged = (arm, level, replicate) in set(lost)
                found = math.nan if diverged else accuracy(arm, level, replicate)
                of = {"arm": arm, "replicate": replicate, "level": level, "density": 0.8**level}
                rows.append({"table": "results", **of, "accuracy": found, "loss": math.nan if diverged else 0.3})
                rows += [
                    {"table": "curves", **of, "step": 100 * epoch, "accuracy": found * (1 - 2.0**-epoch)}
                    for epoch in range(1, 9)
                ]
                if arm == "imp":
                    rows += [
                        {"table": "layers", "replicate": replicate, "level": level, "path": path, "size": size,
                         "remaining": round(size * kept**level), "density": kept**level}
                        for path, (size, kept) in SIZES.items()
                    ]  # fmt: skip
    return rows


def lines(replicates: int = 1, forks: Iterable[int] = (0, 500, 2000)) -> list[Row]:
    """The table "instability": parabolas whose height falls with the fork and differs by the pair."""
    alphas = [float(alpha) for alpha in np.linspace(0, 1, 30)]
    rows: list[Row] = []
    for replicate in range(replicates):
        for network, height in (("dense", 0.1), ("ticket", 0.03)):
            for fork in forks:
                for number, pair in enumerate(("0-1", "0-2", "1-2")):
                    top = height * (1 + 0.1 * number) / (1 + fork / 100)
                    errors = [0.1 + 4 * top * alpha * (1 - alpha) for alpha in alphas]
                    rows.append({
                        "table": "instability", "replicate": replicate, "network": network, "fork": fork, "pair": pair,
                        "data": "test", "alphas": alphas, "errors": errors, "barrier": max(errors) - 0.1,
                        "density": 1.0 if network == "dense" else 0.5,
                    })  # fmt: skip
    return rows


def results(rows: Iterable[Row], run: str = "lenet", setting: Mapping[str, Any] = SETTING) -> Results:
    """As `report.read` gives them."""
    return Results(
        {name: _of_run(frame, run, alone=True) for name, frame in frames_of(rows).items()}, {run: dict(setting)}
    )


def store(folder: Path, rows: Iterable[Row], missing: int = 0, plan: str = "lottery", **known: Any) -> Path:
    """A store whose plan names these rows, those with the same labels as one; the last ``missing`` have no value."""
    made, values = Store(folder), dict[tuple[Any, ...], list[Row]]()
    for row in rows:
        labels = tuple((key, row[key]) for key in LABELS if key in row)
        values.setdefault(labels, []).append({key: value for key, value in row.items() if key not in LABELS})
    named = [[dict(labels), [f"numbers-{plan}-{place}"]] for place, labels in enumerate(values)]
    for (_, (name,)), numbers in list(zip(named, values.values(), strict=True))[: len(named) - missing]:
        made.put(name, Value({}, {"rows": numbers}), {})
    names = [name for _, (name,) in named]
    made.put_plan(plan, {"names": names, "wanted": names, "sources": {}, "keys": [], "rows": named, **known})
    return folder
