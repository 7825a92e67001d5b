"""What a report is made of: plain rows, and the two readers that find them in a run's folder."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from keras_lth import files
from keras_lth.schedules import Duration
from keras_lth.tickets import Ticket

R = TypeVar("R")
DENSE_ARM = "imp"


@dataclass(frozen=True)
class Outcome:
    """A finished training. Level 0 of arm ``imp`` is the dense network; accuracies lie in [0, 1], NaN when diverged."""

    arm: str
    replicate: int
    level: int
    density: float
    remaining: int
    steps: int
    accuracy: float
    loss: float | None = None
    train_accuracy: float | None = None
    train_loss: float | None = None
    seconds: float | None = None

    @property
    def diverged(self) -> bool:
        """Whether the accuracy or the loss at the end is no finite number."""
        return not math.isfinite(self.accuracy) or (self.loss is not None and not math.isfinite(self.loss))


@dataclass(frozen=True)
class Curve:
    """A test after an epoch: one point of a training curve. ``step`` counts the training's batches."""

    arm: str
    replicate: int
    level: int
    density: float
    epoch: int
    step: int
    accuracy: float
    loss: float | None = None


@dataclass(frozen=True)
class Layer:
    """How much of a layer IMP's mask keeps at a level."""

    replicate: int
    level: int
    path: str
    size: int
    remaining: int
    density: float


@dataclass(frozen=True)
class ErrorPath:
    """The error, a share in [0, 1], along the line between two trainings from one fork (thesis 4.1.1)."""

    network: str
    level: int
    density: float
    replicate: int
    fork_step: int
    pair: tuple[int, int]
    data: str
    alphas: tuple[float, ...]
    errors: tuple[float, ...]
    barrier: float
    stable: bool = False
    statistics: str | None = None

    @property
    def whole(self) -> bool:
        """Whether every number is finite: one that is not must not count as low."""
        return all(map(math.isfinite, (*self.errors, self.barrier)))


@dataclass(frozen=True)
class Results:
    """All that a report says: the rows and the setting they were made in."""

    outcomes: Sequence[Outcome]
    curves: Sequence[Curve] = ()
    layers: Sequence[Layer] = ()
    paths: Sequence[ErrorPath] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def replicates(self) -> list[int]:
        """The replicates that have a training."""
        return sorted({row.replicate for row in self.outcomes})

    @property
    def title(self) -> str:
        """Network, data and number of replicates, as a figure's title names them."""
        n = len(self.replicates)
        names = [_pretty(self.config[key]) for key in ("model", "data") if self.config.get(key)]
        what = " on ".join(names) or _pretty(self.config.get("name") or "lottery tickets")
        return f"{what}, {n} replicate{'' if n == 1 else 's'}"

    @property
    def verdict(self) -> str:
        """What a subnetwork that reaches the dense accuracy is called: "winning ticket" when it starts from step 0
        (thesis 3.2), "matching" when it starts later (thesis 4.2.2)."""
        start = self.config.get("rewind_to", self.config.get("rewind_step")) or 0
        return "matching" if Duration.parse(start).amount else "winning ticket"


def read(workdir: str | os.PathLike[str]) -> Results:
    """The rows of a run's folder: one of ``keras_lth.bin.lottery``, or ``IMPCallback``'s own ``directory``.

    Raises ``FileNotFoundError`` when there is no finished training, with the command that makes one; ``ValueError``
    that names file and line for a row that cannot be read.
    """
    here = files.RunPath(workdir)
    config = _json(here / "config.json") if (here / "config.json").exists() else {}
    if not isinstance(config, dict):
        raise ValueError(f"{here / 'config.json'} holds no object with the run's settings.")
    if (here / "results.csv").exists():
        outcomes = _table(here / "results.csv", _outcome)
        curves = _table(here / "curves.csv", _curve)
        layers = _table(here / "layers.csv", _layer)
    elif (here / "levels.json").exists():
        outcomes, curves, layers = _imp_folder(here)
    else:
        outcomes, curves, layers = [], [], []
    if not outcomes:
        raise FileNotFoundError(
            f"{here / 'results.csv'} {'holds no training' if (here / 'results.csv').exists() else 'does not exist'}. "
            f"This makes it: python -m keras_lth.bin.lottery --config=configs/demo.py --workdir={here}"
        )
    return Results(outcomes, curves, layers, _paths(here / "instability.json"), config)


def _table(path: files.RunPath, row: Callable[[Mapping[str, str]], R]) -> list[R]:
    if not path.exists():
        return []
    lines = csv.DictReader(io.StringIO(path.read_text(), newline=""))
    return [_parsed(row, cells, f"{path}, line {number}") for number, cells in enumerate(lines, 2)]


def _parsed(row: Callable[[Any], R], cells: Any, where: str) -> R:
    try:
        return row(cells)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{where} cannot be read: {reason}.") from error


def _outcome(cells: Mapping[str, str]) -> Outcome:
    return Outcome(
        cells["arm"], int(cells["replicate"]), int(cells["level"]), float(cells["density"]), int(cells["remaining"]),
        int(cells["steps"]), _number(cells["accuracy"]), *(_maybe(cells.get(name)) for name in
        ("loss", "train_accuracy", "train_loss", "seconds")),
    )  # fmt: skip


def _curve(cells: Mapping[str, str]) -> Curve:
    return Curve(
        cells["arm"], int(cells["replicate"]), int(cells["level"]), float(cells["density"]), int(cells["epoch"]),
        int(cells["step"]), _number(cells["accuracy"]), _maybe(cells.get("loss")),
    )  # fmt: skip


def _layer(cells: Mapping[str, str]) -> Layer:
    return Layer(
        int(cells["replicate"]), int(cells["level"]), cells["path"], int(cells["size"]), int(cells["remaining"]),
        float(cells["density"]),
    )  # fmt: skip


def _paths(path: files.RunPath) -> list[ErrorPath]:
    rows = _json(path) if path.exists() else []
    return [_parsed(_path, row, f"{path}, row {number}") for number, row in enumerate(rows)]


def _path(row: Mapping[str, Any]) -> ErrorPath:
    alphas, errors = tuple(map(_number, row["alphas"])), tuple(map(_number, row["errors"]))
    if len(alphas) != len(errors):
        raise ValueError(f"{len(alphas)} alphas, but {len(errors)} errors")
    first, second = row["pair"]
    return ErrorPath(
        network=row["network"],
        level=int(row["level"]),
        density=float(row["density"]),
        replicate=int(row["replicate"]),
        fork_step=int(row["fork_step"]),
        pair=(int(first), int(second)),
        data=row["data"],
        alphas=alphas,
        errors=errors,
        barrier=_number(row["barrier"]),
        stable=bool(row.get("stable", False)),
        statistics=row.get("statistics"),
    )


def _imp_folder(here: files.RunPath) -> tuple[list[Outcome], list[Curve], list[Layer]]:
    """``IMPCallback``'s own folder: ``levels.json``, ``metrics.jsonl``, ``tickets/``."""
    levels = _json(here / "levels.json")
    if not levels:
        return [], [], []
    name = _accuracy_of(here, levels[0]["logs"])
    outcomes = [_parsed(lambda each: _level(each, name), row, f"{here / 'levels.json'}, a level") for row in levels]
    densities = {row.level: row.density for row in outcomes}
    layers = [
        Layer(0, level, each.path, each.size, each.remaining, each.density)
        for level in densities
        if (ticket := here / "tickets" / f"level_{level:02d}.ticket").exists()
        for each in Ticket.load(ticket).masks.table()
    ]
    epochs = [json.loads(line) for line in files.read_lines(here / "metrics.jsonl")]
    curves = [
        Curve(
            arm=DENSE_ARM,
            replicate=0,
            level=epoch["round"],
            density=densities[epoch["round"]],
            epoch=epoch["epoch"] + 1,
            step=epoch["step"],
            accuracy=_number(epoch[name]),
            loss=_maybe(epoch.get("val_loss")),
        )
        for epoch in epochs
        if name in epoch and epoch["round"] in densities
    ]
    return outcomes, curves, layers


def _level(row: Mapping[str, Any], name: str) -> Outcome:
    logs, plain = row["logs"], name.removeprefix("val_")
    return Outcome(
        arm=DENSE_ARM,
        replicate=0,
        level=int(row["round"]),
        density=float(row["density"]),
        remaining=int(row["remaining"]),
        steps=int(row["steps"]),
        accuracy=_number(logs[name]),
        loss=_maybe(logs.get("loss" if name == plain else "val_loss")),
        train_accuracy=_maybe(logs.get(plain)),
        train_loss=_maybe(logs.get("loss")),
        seconds=_maybe(row.get("seconds")),
    )


def _accuracy_of(here: files.RunPath, logs: Mapping[str, Any]) -> str:
    """The log that is a test accuracy, or a training one where nothing was tested."""
    names = sorted((name for name in logs if "acc" in name), key=lambda name: (not name.startswith("val_"), name))
    if not names:
        raise ValueError(
            f"{here / 'levels.json'} holds no accuracy, only {', '.join(sorted(logs)) or 'nothing'}: compile the model "
            f'with metrics=["accuracy"] and give fit validation_data.'
        )
    return names[0]


def _json(path: files.RunPath) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def _number(cell: Any) -> float:
    return math.nan if cell in ("", None) else float(cell)


def _maybe(cell: Any) -> float | None:
    return None if cell in ("", None) else float(cell)


def _pretty(name: Any) -> str:
    known = {
        "lenet_300_100": "LeNet-300-100",
        "digits": "digits",
        "mnist": "MNIST",
        "fashion_mnist": "Fashion-MNIST",
        "cifar10": "CIFAR-10",
    }
    return known.get(str(name), str(name))
