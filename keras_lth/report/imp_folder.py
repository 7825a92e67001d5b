"""The rows of the folder of `IMPCallback`: ``levels.json``, ``metrics.jsonl``, ``tickets/``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from keras_lth import files
from keras_lth.tickets import Ticket


def rows_of_imp(here: files.RunPath) -> dict[str, pd.DataFrame]:
    """Its tables "results", "curves" and "layers", of arm "imp", replicate 0.

    Raises ``ValueError`` for a file that is not JSON, or that has no accuracy.
    """
    try:
        levels = json.loads((here / "levels.json").read_text())
        epochs = [json.loads(line) for line in files.read_lines(here / "metrics.jsonl")]
    except ValueError as error:
        raise ValueError(f"{here / 'levels.json'} or metrics.jsonl beside it is not JSON: {error}") from error
    if not levels:
        return {}
    name = _accuracy(here, levels[0]["logs"])
    of = {level["round"]: {"arm": "imp", "replicate": 0, "level": level["round"]} for level in levels}
    results = [
        {**of[level["round"]], **_numbers(level["logs"], name), **{key: level[key] for key in ("density", "remaining")}}
        for level in levels
    ]
    curves = [
        {**of[epoch["round"]], "step": epoch["step"], **_numbers(epoch, name)}
        for epoch in epochs
        if name in epoch and epoch["round"] in of
    ]
    layers = [
        {"replicate": 0, "level": level, **{key: getattr(row, key) for key in ("path", "size", "remaining", "density")}}
        for level in of
        if (ticket := here / "tickets" / f"level_{level:02d}.ticket").exists()
        for row in Ticket.load(ticket).masks.table()
    ]
    tables = {"results": results, "curves": curves, "layers": layers}
    return {table: pd.DataFrame(rows) for table, rows in tables.items() if rows}


def _accuracy(here: files.RunPath, logs: Mapping[str, Any]) -> str:
    """The log that is a test accuracy, or a training one where nothing was tested."""
    names = sorted((name for name in logs if "acc" in name), key=lambda name: (not name.startswith("val_"), name))
    if not names:
        raise ValueError(
            f"{here / 'levels.json'} holds no accuracy, only {', '.join(sorted(logs)) or 'nothing'}: compile the model "
            f'with metrics=["accuracy"] and give fit validation_data.'
        )
    return names[0]


def _numbers(logs: Mapping[str, Any], name: str) -> dict[str, Any]:
    plain = name.removeprefix("val_")
    loss = logs.get("loss" if name == plain else "val_loss")
    return {"accuracy": logs[name], "train_accuracy": logs.get(plain)} | ({} if loss is None else {"loss": loss})
