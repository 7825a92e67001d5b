"""Mean and spread over replicates, level by level, beside the dense network; as CSV, Markdown and cells for HTML."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from keras_lth.report.results import DENSE_ARM, Outcome, Results

# The tables keep six digits of an accuracy: a difference below that is rounding, far below one test example.
ROUNDING = 2e-6
ARMS = {
    "imp": "IMP",
    "reinit": "reinitialised",
    "random_layerwise": "layerwise random",
    "random_global": "global random",
}


@dataclass(frozen=True)
class Cell:
    """An arm at a level: accuracies in [0, 1] over its replicates, those that diverged left out (NaN when all did).

    ``difference`` is the mean's to the dense mean; ``reaches`` says that it is not below 0, after no more steps;
    ``reaching`` of ``compared`` replicates are not below their own dense network.
    """

    arm: str
    level: int
    density: float
    remaining: int
    mean: float
    low: float
    high: float
    values: Mapping[int, float]
    diverged: tuple[int, ...]
    difference: float
    reaches: bool
    reaching: int
    compared: int

    @property
    def spread(self) -> bool:
        """Whether there is a spread to show: two replicates or more."""
        return len(self.values) > 1


@dataclass(frozen=True)
class Summary:
    """The dense network, and each arm's levels from dense to sparse."""

    dense: Cell | None
    arms: Mapping[str, Sequence[Cell]]

    @property
    def levels(self) -> list[int]:
        """Levels that any arm has, from 1."""
        return sorted({cell.level for cells in self.arms.values() for cell in cells})

    def at(self, arm: str, level: int) -> Cell | None:
        """An arm at a level, if it was trained there."""
        return next((cell for cell in self.arms.get(arm, ()) if cell.level == level), None)

    def sparsest(self, arm: str) -> Cell | None:
        """The sparsest level at which the arm's mean reaches the dense one."""
        reached = [cell for cell in self.arms.get(arm, ()) if cell.reaches]
        return max(reached, key=lambda cell: cell.level) if reached else None


def arm_name(arm: str) -> str:
    """Display name of an arm."""
    return ARMS.get(arm, arm)


def not_below(accuracy: float, dense: float) -> bool:
    """At least as accurate, without a margin (thesis 3.2); NaN never is."""
    return accuracy >= dense - ROUNDING


def summarise(results: Results) -> Summary:
    """The cells of all arms."""
    groups: dict[tuple[str, int], list[Outcome]] = {}
    for row in results.outcomes:
        groups.setdefault((row.arm, row.level), []).append(row)
    dense_rows = groups.pop((DENSE_ARM, 0), [])
    dense = _cell(dense_rows, dense_rows) if dense_rows else None
    found = {arm for arm, _ in groups}
    names = [*(arm for arm in ARMS if arm in found), *sorted(found.difference(ARMS))]
    arms = {name: [_cell(groups[key], dense_rows) for key in sorted(groups) if key[0] == name] for name in names}
    return Summary(dense, arms)


def mean(values: Iterable[float]) -> float:
    """The mean, NaN of nothing."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else math.nan


def _cell(rows: Sequence[Outcome], dense_rows: Sequence[Outcome]) -> Cell:
    values = {row.replicate: row.accuracy for row in sorted(rows, key=lambda r: r.replicate) if not row.diverged}
    own = {row.replicate: row.accuracy for row in dense_rows if not row.diverged}
    dense, average = mean(own.values()), mean(values.values())
    in_time = max(row.steps for row in rows) <= max((row.steps for row in dense_rows), default=0)
    return Cell(
        arm=rows[0].arm,
        level=rows[0].level,
        density=mean(row.density for row in rows),
        remaining=round(mean(row.remaining for row in rows)),
        mean=average,
        low=min(values.values(), default=math.nan),
        high=max(values.values(), default=math.nan),
        values=values,
        diverged=tuple(sorted(row.replicate for row in rows if row.diverged)),
        difference=average - dense,
        reaches=in_time and not_below(average, dense),
        reaching=sum(in_time and not_below(value, own[each]) for each, value in values.items() if each in own),
        compared=sum(each in own for each in {row.replicate for row in rows}),
    )


def csv_table(results: Results) -> str:
    """A row a level; per arm ``mean``, ``min``, ``max`` (test accuracy in [0, 1]), ``minus_dense``, ``reaches_dense``
    (1 when the mean does), ``replicates_reaching``, ``replicates``, ``diverged``."""
    summary = summarise(results)
    columns = ("mean", "min", "max", "minus_dense", "reaches_dense", "replicates_reaching", "replicates", "diverged")
    arms = _columns(summary)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["level", "density", "remaining", *(f"{arm}_{column}" for arm in arms for column in columns)])
    rows: list[list[Cell | None]] = [[summary.dense]] if summary.dense else []
    rows += [[summary.at(arm, level) for arm in arms] for level in summary.levels]
    for cells in rows:
        first = next(cell for cell in cells if cell is not None)
        line: list[object] = [first.level, _short(first.density), first.remaining]
        for cell in [*cells, *[None] * (len(arms) - len(cells))]:
            if cell is None:
                line += [""] * len(columns)
            else:
                numbers = (cell.mean, cell.low, cell.high, cell.difference)
                count = len(cell.values) + len(cell.diverged)
                line += [*map(_short, numbers), int(cell.reaches), cell.reaching, count, len(cell.diverged)]
        writer.writerow(line)
    return out.getvalue()


def header(results: Results) -> tuple[list[str], list[str]]:
    """The first columns' names, and the arms' names: an arm spans two columns, accuracy and difference to dense."""
    arms = [arm_name(arm) for arm in _columns(summarise(results))]
    return ["level", "weights remaining", "weights", f"{results.verdict}?"], arms


def text_rows(results: Results) -> list[list[str]]:
    """The table for readers, in per cent and points; under ``header``, the dense network first."""
    summary = summarise(results)
    arms = _columns(summary)
    out: list[list[str]] = []
    if summary.dense:
        dense = summary.dense
        cells = [accuracy(dense), *[""] * (2 * len(arms) - 1)]
        out.append(["dense", percent(dense.density), f"{dense.remaining:,}", "", *cells])
    for level in summary.levels:
        line = [summary.at(arm, level) for arm in arms]
        first = next(cell for cell in line if cell is not None)
        found = summary.at(DENSE_ARM, level)
        verdict = "" if found is None else "yes" if found.reaches else "no"
        row = [str(level), percent(first.density), f"{first.remaining:,}", verdict]
        for cell in line:
            row += ["", ""] if cell is None else [accuracy(cell), difference(cell)]
        out.append(row)
    return out


def _columns(summary: Summary) -> list[str]:
    """The arms that have columns: IMP's first, which the dense network shares."""
    return [DENSE_ARM, *(arm for arm in summary.arms if arm != DENSE_ARM)]


def markdown(results: Results) -> str:
    """The table as Markdown, with what its columns mean."""
    first, arms = header(results)
    heads = first + [text for arm in arms for text in (f"{arm}, %", "− dense")]
    rows = [heads, ["---:"] * len(heads), *text_rows(results)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return f"**{results.title}**\n\n{legend(results)}\n\n" + "\n".join(lines) + "\n"


def legend(results: Results) -> str:
    """What the columns of the table mean."""
    many = len(results.replicates) > 1
    spread = "mean over replicates (least to greatest)" if many else "one replicate, no spread"
    good = "matching" if results.verdict == "matching" else "a winning ticket"
    return (
        f"Test accuracy in % after the last step: {spread}. Beside it the difference to the dense network in points, "
        f"and in brackets the replicates that are at least as accurate as their own dense network. A subnetwork is "
        f"{good} when its mean accuracy is at least the dense one's after no more steps."
    )


def accuracy(cell: Cell) -> str:
    """``89.07 (88.95–89.20)``, in per cent."""
    lost = f", {len(cell.diverged)} diverged" if cell.diverged else ""
    if not cell.values:
        return "diverged"
    spread = f" ({100 * cell.low:.2f}–{100 * cell.high:.2f})" if cell.spread else ""
    return f"{100 * cell.mean:.2f}{spread}{lost}"


def difference(cell: Cell) -> str:
    """``+0.12 (2/3)``, in points."""
    if not math.isfinite(cell.difference):
        return ""
    return f"{signed(cell.difference)} ({cell.reaching}/{cell.compared})"


def signed(share: float) -> str:
    """A difference of accuracies in points, with its sign."""
    return f"{100 * share:+.2f}".replace("-", "−")


def percent(density: float) -> str:
    """A density in per cent, three digits as a reader needs them: 100 %, 51.2 %, 8.6 %, 0.92 %."""
    value = 100 * density
    if value >= 99.95:
        return "100 %"
    return f"{value:.1f} %" if value >= 0.995 else f"{value:.2g} %"


def _short(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""
