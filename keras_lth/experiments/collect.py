"""The tables of a lottery run, from what its trainings left: ``results.csv``, ``curves.csv``, ``layers.csv``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_lth import files
from keras_lth.callbacks.journal import Journal

RESULTS = (
    "arm", "replicate", "level", "density", "remaining", "steps",
    "accuracy", "loss", "train_accuracy", "train_loss", "seconds",
)  # fmt: skip
CURVES = ("arm", "replicate", "level", "density", "epoch", "step", "accuracy", "loss")
LAYERS = ("replicate", "level", "path", "size", "remaining", "density")
# Column → log of a Keras epoch.
_LOGS = {"accuracy": "val_accuracy", "loss": "val_loss", "train_accuracy": "accuracy", "train_loss": "loss"}


def collect(workdir: files.RunPath, steps_per_epoch: int) -> None:
    """Write the three tables of ``workdir``. Test accuracy is ``accuracy``; the training one is Keras' running mean
    over the last epoch."""
    results: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    layers: list[dict[str, Any]] = []
    for replicate in sorted(int(name.split("_")[1]) for name in workdir.names("replicate_*")):
        replicate_folder = workdir / f"replicate_{replicate}"
        for arm_folder in (replicate_folder / name for name in replicate_folder.names() if not name.startswith(".")):
            name: dict[str, Any] = {"arm": arm_folder.name, "replicate": replicate}
            for row, epochs in _trainings(arm_folder, steps_per_epoch):
                results.append({**name, **row, **_named(epochs[-1])})
                tested = [e for e in epochs if "val_accuracy" in e]
                level = {**name, "level": row["level"], "density": row["density"]}
                curves += [{**level, "epoch": e["epoch"] + 1, "step": e["step"], **_named(e)} for e in tested]
            if arm_folder.name == "imp":
                layers += [{"replicate": replicate, **row} for row in _layers(arm_folder)]
    for table, columns, rows in (("results", RESULTS, results), ("curves", CURVES, curves), ("layers", LAYERS, layers)):
        files.write_atomic(workdir / f"{table}.csv", _csv(columns, rows).encode())


def _trainings(arm: files.RunPath, steps_per_epoch: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each finished training of an arm: its row, and its epochs with ``step`` counted within the training 0 … T."""
    if arm.name == "imp":
        journal = Journal(arm)
        epochs = journal.metrics()
        for row in json.loads((arm / "levels.json").read_text()):
            mine = [e for e in epochs if e["round"] == row["round"]]
            kept = {name: row[name] for name in ("density", "remaining", "steps", "seconds")}
            yield {"level": row["round"], **kept}, mine
        return
    for name in arm.names("level_*.json"):
        row = json.loads((arm / name).read_text())
        epochs = row.pop("epochs")
        yield row, [{**e, "step": (e["epoch"] + 1) * steps_per_epoch} for e in epochs]


def _layers(arm: files.RunPath) -> Iterator[dict[str, Any]]:
    journal = Journal(arm)
    for row in json.loads((arm / "levels.json").read_text()):
        for layer in journal.ticket(row["round"]).masks.table():
            yield {
                "level": row["round"], "path": layer.path, "size": layer.size,
                "remaining": layer.remaining, "density": layer.density,
            }  # fmt: skip


def _named(epoch: Mapping[str, Any]) -> dict[str, Any]:
    return {column: epoch.get(log, float("nan")) for column, log in _LOGS.items()}


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({c: _short(row[c]) for c in columns} for row in rows)
    return out.getvalue()


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
