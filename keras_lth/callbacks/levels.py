"""A finished level of IMP, and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from keras_lth.callbacks.logs import Coming
from keras_lth.imp import at_least
from keras_lth.surgery.metrics import MODES, direction, is_accuracy

_PLACE = ("round", "step", "epoch")
NONE_YET = "No training has finished yet."


@dataclass(frozen=True)
class Level:
    """One training of IMP: level 0 is the dense one.

    ``score`` is the last value of the monitored log, NaN if there is none; ``connected`` is False if the network's
    output no longer depends on its input.
    """

    round: int
    density: float
    remaining: int
    steps: int
    seconds: float
    monitor: str
    score: float
    matching: bool
    connected: bool = True
    logs: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return a form for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Level:
        """Rebuild a level from ``as_dict``; other keys are ignored."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


class Monitor:
    """Which log decides for a training, and whether a higher or a lower value is better.

    Both are fixed once per ``fit``, before its first step. By default a ``val_`` log is preferred to a training log, an
    accuracy to another metric, and a metric to a loss.
    """

    def __init__(self, name: str | None = None, mode: str = "auto") -> None:
        if mode not in MODES:
            raise ValueError(f'mode must be "auto", "max" or "min", not {mode!r}.')
        self._asked, self._mode = name, mode
        self.name, self.less = name or "", False

    def waits(self, coming: Coming) -> bool:
        """Return whether this can be fixed only after the first step, from its logs."""
        if coming.sure or (self._asked or "").startswith("val_"):
            return False
        return bool(self._asked) or not coming.validation

    def settle(self, model: Any, names: Sequence[str], why: str = "") -> None:
        """Choose among the logs that every training will have; ``why`` explains which logs are missing.

        Raises ``ValueError`` that lists the logs if the requested one is not among them, or if it is unknown whether a
        higher or a lower value is better.
        """
        name = self._asked or self._default(model, names)
        if name not in names:
            raise ValueError(f"monitor={name!r} is not among the logs: {', '.join(sorted(names)) or 'none'}.{why}")
        self.less = direction(model, name, self._mode) == "min"
        self.name = name

    def follow(self, name: str, where: Any) -> None:
        """Use the log that the finished levels of a run used. Raises ``ValueError`` if another was requested."""
        if self._asked not in (None, name):
            raise ValueError(
                f"{where} contains another run (monitor: {name!r} there, {self._asked!r} here). Use another "
                "directory, or "
                f"resume=False to overwrite it."
            )
        self._asked = name

    def score(self, logs: Mapping[str, Any]) -> float:
        """Return the monitored value; NaN for a training that ended before it had one."""
        return float(logs.get(self.name, math.nan))

    def _default(self, model: Any, names: Sequence[str]) -> str:
        mine = [n for n in names if n.startswith("val_")] or list(names)
        metrics = [n for n in mine if not n.endswith("loss") and (self._mode != "auto" or _known(model, n))]
        accuracy = [n for n in metrics if is_accuracy(n)]
        loss = [n for n in mine if n.removeprefix("val_") == "loss"]
        return (accuracy or metrics or loss or mine or ["loss"])[0]

    def at_least(self, score: float, dense: float) -> bool:
        """Return whether ``score`` is as good as the dense one: `keras_lth.imp.at_least`."""
        return at_least(score, dense, less=self.less)


def _known(model: Any, name: str) -> bool:
    try:
        direction(model, name)
    except ValueError:
        return False
    return True


def nearest(densities: Sequence[float], density: float) -> int:
    """Return the level nearest to ``density``, within half a cut. Raises ``ValueError`` that lists the levels."""
    if not 0 < density <= 1:
        raise ValueError(f"A density must be in (0, 1], not {density!r}.")
    away = [abs(math.log(d / density)) for d in densities]
    level = away.index(min(away))
    beside = [abs(math.log(densities[level] / densities[i])) for i in (level - 1, level + 1) if 0 <= i < len(densities)]
    if away[level] > max(beside, default=0.0) / 2 + 1e-9:
        listed = ", ".join(f"{i}: {d:.2%}" for i, d in enumerate(densities))
        raise ValueError(f"No level has a density near {density:.2%}. The levels are {listed}.")
    return level


def sparsest_matching(history: Sequence[Level]) -> Level:
    """Return the level with fewest weights that is as good as the first one; the first one if no other is."""
    return max((level for level in history if level.matching), key=lambda level: level.round, default=history[0])


def result_row(level: Level) -> dict[str, Any]:
    """Return a level as a row of the table "results"; ``running_…`` are means over an epoch of training."""
    row = {"density": level.density, "remaining": level.remaining, "steps": level.steps, "seconds": level.seconds}
    numbers = _split(level.logs, level.monitor)
    return {**row, "score": level.score, "matching": level.matching, "connected": level.connected, **numbers}


def curve_rows(rows: Sequence[Mapping[str, Any]], monitor: str) -> list[dict[str, Any]]:
    """Return the epochs of a level as rows of the table "curves"."""
    return [
        {
            "step": row["step"],
            "epoch": row["epoch"],
            **_split({k: v for k, v in row.items() if k not in _PLACE}, monitor),
        }
        for row in rows
    ]


def _split(logs: Mapping[str, float], monitor: str) -> dict[str, float]:
    """Validation numbers under their plain names, means over an epoch of training as ``running_…``."""
    validation = {name.removeprefix("val_"): value for name, value in logs.items() if name.startswith("val_")}
    found = dict(logs)
    if validation:
        found = {**validation, **{f"running_{n}": value for n, value in logs.items() if not n.startswith("val_")}}
    if "accuracy" not in found and is_accuracy(monitor) and monitor in logs:
        found["accuracy"] = logs[monitor]
    return found


def first_name(history: Sequence[Level]) -> str:
    """Return the name of level 0: "dense", unless the model already had masks."""
    return "dense" if history[0].density == 1 else "first"


def summary(history: Sequence[Level]) -> str:
    """Format a table with one row per level."""
    if not history:
        return NONE_YET
    cells = table(history)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in cells)


def table(history: Sequence[Level]) -> list[tuple[str, ...]]:
    """Return the cells of the summary, the heading first."""
    monitor = history[0].monitor if history else "score"
    head = ("round", "density", "weights", monitor, "matching?", "steps", "seconds")
    rows = [
        (
            str(level.round),
            f"{level.density:.2%}",
            f"{level.remaining:,}",
            f"{level.score:.4f}",
            first_name(history) if level.round == 0 else _verdict(level),
            f"{level.steps:,}",
            f"{level.seconds:.1f}",
        )
        for level in history
    ]
    return [head, *rows]


def _verdict(level: Level) -> str:
    if not level.connected:
        return "disconnected"
    return "yes" if level.matching else "no"
