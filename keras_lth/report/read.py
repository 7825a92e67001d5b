"""The rows of workdirs as pandas frames, one frame per table, and a list of what is missing."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn

import pandas as pd

from keras_lth import files
from keras_lth.files.stores import AnyPath, is_local
from keras_lth.plans import tidy
from keras_lth.store import DamagedError, MissingError, Store, Value
from keras_lth.titles import title

Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Results:
    """All data of a report.

    Args:
        tables: one frame per table. The column ``run`` has the name of the workdir that a row comes from.
        settings: the configs, by run; by "run, plan" if the plans of a run have different ones.
        missing: the labels of the rows whose values do not exist yet.
        waiting: the plans that wait for a value before they can name more rows.
    """

    tables: Mapping[str, pd.DataFrame]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing: Sequence[Mapping[str, Any]] = ()
    waiting: Sequence[str] = ()

    def table(self, name: str, *columns: str) -> pd.DataFrame | None:
        """Return a copy of a table; None if it does not exist or lacks one of ``columns``."""
        frame = self.tables.get(name)
        return None if frame is None or not {*columns} <= {*frame.columns} else frame.copy()

    @property
    def runs(self) -> list[str]:
        """Return the names of the workdirs that have rows."""
        return list(dict.fromkeys(run for frame in self.tables.values() for run in frame["run"].unique()))

    @property
    def title(self) -> str:
        """Return network and data if all runs share them, else the names of the runs."""
        found = {
            " on ".join(title(str(s[key]), s.get(f"{key}_options")) for key in ("model", "data") if s.get(key))
            for s in self.settings.values()
        }
        same = len(found) == 1 and "" not in found and len(self.settings) >= len(self.runs)
        return found.pop() if same else ", ".join(self.runs)


def read(*workdirs: AnyPath) -> Results:
    """Read the rows that are ready: from stores, also during a run, or from folders with ``rows/*.csv``.

    Raises ``FileNotFoundError`` if a workdir has no rows; the message says how to make some. Raises ``ValueError`` that
    names a file that cannot be read.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    missing: list[Mapping[str, Any]] = []
    waiting: list[str] = []
    for run, workdir in zip(_names(workdirs), workdirs, strict=True):
        here = files.RunPath(workdir)
        if (here / "store.json").exists():
            rows, known, left, waits = _of_store(here)
            missing += [{"run": run, **labels} for labels in left]
            waiting += waits
        elif (here / "rows").names("*.csv"):
            rows, known = _of_csv(here / "rows")
        else:
            _refuse(here)
        if not rows:
            more = f"; {len(missing)} are missing" if missing else ""
            raise FileNotFoundError(f"{here} has no rows yet{more}: wait for its run, or start the same run again.")
        for name, frame in rows.items():
            tables.setdefault(name, []).append(_of_run(frame, run, alone=len(workdirs) == 1))
        settings |= {run if len(known) == 1 else f"{run}, {plan}": setting for plan, setting in known.items()}
    whole = {name: pd.concat(frames, ignore_index=True) for name, frames in tables.items()}
    return Results(whole, settings, missing, sorted({*waiting}))


def of_rows(rows: Rows, run: str) -> Results:
    """Make `Results` from rows in memory that have a label ``table``, for a run with this name."""
    return Results({name: _of_run(frame, run, alone=True) for name, frame in frames_of(rows).items()})


def _refuse(here: files.RunPath) -> NoReturn:
    """Say how to make rows; refuse a folder with other contents as `Store` does."""
    command = f"python -m keras_lth.bin.run --config=demo --workdir={here}"
    with suppress(FileNotFoundError):
        Store(here, create=False)
    raise FileNotFoundError(f"{here} contains no store and no rows/*.csv: create one with {command}.")


def _names(workdirs: Sequence[AnyPath]) -> list[str]:
    """The last part of each path; the whole path if two are the same."""
    paths = [os.path.abspath(path) if is_local(path) else os.fspath(path).rstrip("/") for path in workdirs]
    short = [files.RunPath(path).name for path in paths]
    return [name if short.count(name) == 1 else path for name, path in zip(short, paths, strict=True)]


def _of_run(frame: pd.DataFrame, run: str, *, alone: bool) -> pd.DataFrame:
    """Add the column ``run`` first; rows that have this label already keep it."""
    own = frame["run"].map(str) if "run" in frame else None
    name = run if own is None else own if alone else f"{run}: " + own
    return pd.concat([pd.Series(name, frame.index, name="run"), frame.drop(columns="run", errors="ignore")], axis=1)


def _of_store(here: files.RunPath) -> tuple[dict[str, pd.DataFrame], dict[str, Any], list[dict[str, Any]], list[str]]:
    store = Store(here, create=False)
    plans, there = store.plans(), store.names()

    @cache
    def value(name: str) -> Value | None:
        try:
            return Value({}, store.get(name).meta) if name in there else None
        except (MissingError, DamagedError):  # the run computes it again
            return None

    # A row that two plans name appears once in the table.
    rows = {json.dumps(row, sort_keys=True): row for plan in plans.values() for row in plan["rows"]}
    found = tidy([(labels, names) for labels, names in rows.values()], value)
    waiting = [name for name, plan in plans.items() if {*plan.get("awaited", ())} - there]
    given = {name: given.get("config", given) for name, plan in plans.items() if (given := plan.get("arguments"))}
    distinct = {json.dumps(setting, sort_keys=True): name for name, setting in reversed(given.items())}
    return frames_of(found.rows), {name: given[name] for name in distinct.values()}, found.missing, waiting


def frames_of(rows: Rows) -> dict[str, pd.DataFrame]:
    """Return one frame per table; rows without the label ``table`` go to "rows"."""
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        tables.setdefault(str(row.get("table", "rows")), []).append(row)
    return {name: pd.DataFrame(each).drop(columns="table", errors="ignore") for name, each in tables.items()}


def _of_csv(here: files.RunPath) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Read a table that ``keras_lth.bin.run`` wrote: lists are JSON, numbers have all their digits."""
    frames = {}
    for name in here.names("*.csv"):
        rows = list(csv.DictReader(io.StringIO((here / name).read_text(), newline="")))
        if any(None in row or None in row.values() for row in rows):
            raise ValueError(
                f"{here / name} has a line with a different number of columns: remove the file and run its plan again."
            )
        if rows:
            frames[name.removesuffix(".csv")] = pd.DataFrame(rows).map(_cell)
    setting = json.loads((here / "setting.json").read_text()) if (here / "setting.json").exists() else None
    return frames, {"rows": setting} if setting else {}


def _cell(cell: str) -> Any:
    """A number, a truth value, a list, NaN for an empty cell; otherwise the text."""
    if cell in ("True", "False"):
        return cell == "True"
    try:
        return json.loads(cell.replace("nan", "NaN").replace("inf", "Infinity")) if cell else math.nan
    except ValueError:
        return cell
