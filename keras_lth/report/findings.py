"""Findings of the thesis, decided by rows: what it found, what this run shows, and whether the finding holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from keras_lth.imp import at_least
from keras_lth.report.numbers import percent
from keras_lth.report.read import Results

HOLDS, DOES_NOT, UNKNOWN = "holds", "does not hold", "cannot be said"


Decide = Callable[["Facts"], "Verdict"]


class Verdict(NamedTuple):
    """What a run shows, and whether a finding holds there; None if that cannot be said."""

    holds: bool | None
    shown: str


@dataclass(frozen=True)
class Finding:
    """A finding of the thesis.

    Args:
        id: its number in the report: the chapter, and its place in it.
        text: what the thesis found.
        source: the section or figure of the thesis.
        decide: judges the rows of a run.
    """

    id: str
    text: str
    source: str
    decide: Decide


class Findings:
    """The findings of a chapter, in the order of their numbers; a function that decides one is added by a decorator."""

    def __init__(self) -> None:
        self._found: list[Finding] = []

    def __call__(self, number: str, text: str, source: str) -> Callable[[Decide], Decide]:
        """Add the decorated function as the judge of a finding."""

        def add(decide: Decide) -> Decide:
            self._found.append(Finding(number, text, source, decide))
            return decide

        return add

    def __iter__(self) -> Iterator[Finding]:
        return iter(sorted(self._found, key=lambda each: each.id))


class NotThereError(Exception):
    """The rows that decide a finding do not exist."""


class Curve(NamedTuple):
    """The replicates of an arm, as frames of level × replicate, without the dense network: values and densities."""

    values: pd.DataFrame
    densities: pd.Series

    @property
    def means(self) -> pd.Series:
        """Return the mean by level, of the replicates that did not diverge."""
        return self.values.mean(axis=1)


class Least(NamedTuple):
    """The least density at which an arm matches; ``open`` if no sparser level was trained, where it might match too."""

    density: float
    open: bool

    def __str__(self) -> str:
        return f"{percent(self.density)}{', the sparsest level trained' if self.open else ''}"

    def down_to(self, density: float) -> bool | None:
        """Return whether it is at most a number; None if levels that were not trained decide."""
        return True if self.density <= density else None if self.open else False

    def below(self, other: Least, times: float = 1.0) -> bool | None:
        """Return whether this is less than another one times a number; None if levels that were not trained decide."""
        less = self.density < other.density * times
        if other.open:
            return None if less or self.open else False
        return None if self.open and not less else less

    def within(self, other: Least, ratio: float) -> bool | None:
        """Return whether two differ by at most this ratio; None if levels that were not trained decide."""
        if self.open or other.open:
            return None
        return max(self.density, other.density) <= ratio * min(self.density, other.density)


class Difference(NamedTuple):
    """Two arms level by level: means of the differences, and twice their standard errors."""

    means: pd.Series
    noise: float

    @property
    def above(self) -> list[int]:
        """Return the levels at which the first is above the second by more than the noise."""
        return [level for level, mean in self.means.items() if mean > self.noise]

    @property
    def below(self) -> list[int]:
        """Return the levels at which the first is below the second by more than the noise."""
        return [level for level, mean in self.means.items() if mean < -self.noise]


def difference(first: Curve, second: Curve) -> Difference:
    """Compare two arms at the levels that both have.

    Raises `NotThereError` if they share no level, or have one replicate, which has no spread.
    """
    a, b = first.values, second.values
    levels = a.index.intersection(b.index)
    if levels.empty:
        raise NotThereError("they share no level")
    return Difference(a.loc[levels].mean(axis=1) - b.loc[levels].mean(axis=1), noise(first, second))


def noise(*curves: Curve) -> float:
    """Return twice the standard error of the difference of two means over replicates.

    The deviation of replicates is the median over levels and arms, so that networks that fail now and then do not hide
    all other differences. Raises `NotThereError` for one replicate.
    """
    if (counts := min(each.values.shape[1] for each in curves)) < 2:
        raise NotThereError("one replicate has no spread")
    deviations = pd.concat([each.values.std(axis=1, ddof=1) for each in curves])
    return 2 * float(deviations.median()) * math.sqrt(2 / counts)


class Facts:
    """The numbers of one run, by which findings are decided. All raise `NotThereError` for missing rows."""

    def __init__(self, results: Results, run: str) -> None:
        self.run = run
        # Plans of one run may have different settings, each under "run, plan".
        mine = [setting for key, setting in results.settings.items() if key == run or key.startswith(f"{run}, ")]
        self.setting = dict(mine[0]) if mine else {}
        self._tables = {name: frame[frame["run"] == run] for name, frame in results.tables.items()}

    def table(self, name: str, *columns: str) -> pd.DataFrame:
        """Return the rows of a table that has these columns."""
        frame = self._tables.get(name)
        if frame is None or frame.empty or not {*columns} <= {*frame.columns}:
            raise NotThereError(f"no rows {name} with {', '.join(columns)}" if columns else f"no rows {name}")
        return frame

    def curve(self, arm: str, what: str = "accuracy") -> Curve:
        """Return the results of an arm; a training that diverged is NaN."""
        frame = self.table("results", "arm", "level", "replicate", "density", what)
        mine = frame[(frame["arm"] == arm) & (frame["level"] > 0)]
        if mine.empty:
            raise NotThereError(f"no results of {arm}")
        values = mine.pivot_table(index="level", columns="replicate", values=what, dropna=False, aggfunc="first")
        return Curve(values.astype(float).sort_index(), mine.groupby("level")["density"].mean())

    def dense(self, what: str = "accuracy") -> pd.Series:
        """Return the results of the dense networks, by replicate."""
        frame = self.table("results", "level", "replicate", what)
        found = frame[frame["level"] == 0].drop_duplicates("replicate").set_index("replicate")[what].astype(float)
        if found.empty:
            raise NotThereError("no dense network")
        return found

    def matching(self, arm: str, what: str = "accuracy") -> list[int]:
        """Return the levels whose mean is at least the mean of the dense networks (thesis 3.2), in float32's digits."""
        dense = float(self.dense(what).mean())
        return [n for n, mean in self.curve(arm, what).means.items() if at_least(round(mean, 6), round(dense, 6))]

    def sparsest(self, arm: str, what: str = "accuracy") -> Least:
        """Return the least density that matches; 1 if none does."""
        levels, densities = self.matching(arm, what), self.curve(arm, what).densities
        found = float(min((densities[level] for level in levels), default=1.0))
        return Least(found, bool(levels) and found <= float(densities.min()))

    def between(self, first: str, second: str, what: str = "accuracy") -> Difference:
        """Compare two arms at the levels that both have."""
        try:
            return difference(self.curve(first, what), self.curve(second, what))
        except NotThereError as error:
            raise NotThereError(f"{first} and {second}: {error}") from None

    def noise(self, arm: str, what: str = "accuracy") -> float:
        """Return the noise of an arm, as in `difference`."""
        return noise(self.curve(arm, what))

    @cached_property
    def name(self) -> str:
        """Return the name of the network."""
        return str(self.setting.get("model", ""))


def both(*holds: bool | None) -> bool | None:
    """Return whether all hold: false if one does not, None if one cannot be said."""
    return False if False in holds else None if None in holds else True


def decided(results: Results, findings: Iterable[Finding]) -> pd.DataFrame:
    """Return one row per run and finding: id, finding, source, what the run shows, verdict."""
    rows: list[dict[str, Any]] = []
    for run in results.runs:
        facts = Facts(results, run)
        for finding in findings:
            try:
                holds, shown = finding.decide(facts)
            except NotThereError as error:
                holds, shown = None, f"{error}"
            verdict = UNKNOWN if holds is None else HOLDS if holds else DOES_NOT
            rows.append({
                "run": run, "id": finding.id, "finding": finding.text, "source": finding.source, "shown": shown,
                "verdict": verdict,
            })  # fmt: skip
    return pd.DataFrame(rows)


def points(difference: float) -> str:
    """Format a difference of shares in points."""
    return f"{100 * difference:+.2f}".replace("-", "−") if np.isfinite(difference) else "–"
