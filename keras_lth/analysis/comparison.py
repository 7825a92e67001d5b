"""Instability to SGD noise (thesis 4.1.1, Algorithm 3): compare pairs of trainings from one state."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_lth.analysis.connectivity import TREATMENTS, Path, is_stable, linear_path
from keras_lth.analysis.distances import Network, cosine, l2, weights_of
from keras_lth.analysis.predictions import Differences, differences

if TYPE_CHECKING:
    from keras_lth.analysis.evaluation import Evaluator


@dataclass(frozen=True)
class Comparison:
    """Two trainings from one state under two samples of SGD noise, on one data set.

    Attributes:
        pair: the two trainings; the path's alpha = 1 is the first of them.
        data: name of the data set.
        path: the error along the line between their ends.
        l2, cosine: distances of their weights.
        differences: how differently they treat the examples; None for a model that names no classes.
    """

    pair: tuple[int, int]
    data: str
    path: Path
    l2: float
    cosine: float
    differences: Differences | None = None

    @property
    def barrier(self) -> float:
        """Return the error barrier height of the path."""
        return self.path.barrier

    def stable(self, threshold: float = 0.02) -> bool:
        """Return whether the barrier is below ``threshold``."""
        return self.path.stable(threshold)

    def as_dict(self) -> dict[str, Any]:
        """Return a form for JSON."""
        return {
            "pair": list(self.pair),
            "data": self.data,
            "path": self.path.as_dict(),
            "l2": self.l2,
            "cosine": self.cosine,
            "differences": None if self.differences is None else list(self.differences),
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Comparison:
        """Rebuild a comparison from ``as_dict``."""
        first, second = row["pair"]
        apart = row.get("differences")
        return cls(
            (int(first), int(second)), row["data"], Path.from_dict(row["path"]), row["l2"], row["cosine"],
            None if apart is None else Differences(*apart),
        )  # fmt: skip


def compare(
    ends: Sequence[Network],
    model: Any,
    data: Mapping[str, Any],
    *,
    points: int = 30,
    statistics: str = "interpolate",
    metric: str | None = None,
    mode: str = "auto",
    batch_size: int | None = None,
    train_data: Any = None,
) -> list[Comparison]:
    """Compare all pairs of ``ends``, the networks trained from one state, on each data set (name → data).

    The other arguments are those of ``linear_path``.
    """
    from keras_lth.analysis.evaluation import Evaluator

    again = train_data if statistics == "reestimate" else None
    results: list[Comparison] = []
    for name, examples in data.items():
        evaluator = Evaluator(model, examples, metric=metric, mode=mode, batch_size=batch_size, train_data=again)
        results += compare_on(ends, evaluator, name, points=points, statistics=statistics)
    return results


def compare_on(
    ends: Sequence[Network], evaluator: Evaluator, name: str, *, points: int = 30, statistics: str = "interpolate"
) -> list[Comparison]:
    """Compare all pairs of ``ends`` with an evaluator, on data with this name."""
    results = []
    with evaluator as evaluate:
        said = [evaluate.predictions(weights_of(end)) for end in ends]
        for i, j in itertools.combinations(range(len(ends)), 2):
            path = linear_path(ends[i], ends[j], evaluate, points=points, statistics=statistics)
            one, other = said[i], said[j]
            apart = None if one is None or other is None else differences(one, other)
            results.append(Comparison((i, j), name, path, l2(ends[i], ends[j]), cosine(ends[i], ends[j]), apart))
    return results


def mean_barriers(results: Sequence[Comparison]) -> dict[str, float]:
    """Return data set → instability, the mean of the barriers of its pairs."""
    names = dict.fromkeys(result.data for result in results)
    found = {name: [result.barrier for result in results if result.data == name] for name in names}
    return {name: sum(barriers) / len(barriers) for name, barriers in found.items()}


def verdict(barrier: float, threshold: float) -> str:
    """Return ``"stable (< 0.02)"``, ``"unstable (≥ 0.02)"``, or ``"not known (NaN on the line)"``."""
    if math.isnan(barrier):
        return "not known (NaN on the line)"
    return f"stable (< {threshold:g})" if is_stable(barrier, threshold) else f"unstable (≥ {threshold:g})"


def table(results: Sequence[Comparison], threshold: float = 0.02) -> list[tuple[str, ...]]:
    """Return the cells of the summary's table, the heading first: one row per pair and data set."""
    head = ("data", "pair", "error at the ends", "highest", "at alpha", "barrier", "stable?", "L2", "cosine")
    rows = [
        (
            result.data,
            f"{result.pair[0]}–{result.pair[1]}",
            f"{result.path.endpoints[1]:.4f} {result.path.endpoints[0]:.4f}",
            f"{result.path.highest[1]:.4f}",
            f"{result.path.highest[0]:.2f}",
            f"{result.barrier:.4f}",
            "yes" if result.stable(threshold) else "no",
            f"{result.l2:.4g}",
            f"{result.cosine:.4g}",
        )
        for result in results
    ]
    return [head, *rows]


def verdicts(results: Sequence[Comparison], threshold: float = 0.02) -> list[str]:
    """Return one line per data set with the mean over its pairs, and a line that explains the error."""
    if not results:
        return ["No two trainings have been compared yet."]
    lines = []
    for name, barrier in mean_barriers(results).items():
        pairs = sum(result.data == name for result in results)
        mean = f"mean of {pairs} pairs" if pairs > 1 else "1 pair"
        lines.append(f"{name}: barrier {barrier:.4f}, {mean}: {verdict(barrier, threshold)}")
    path = results[0].path
    lines.append(
        f"Error is {path.measure}, at {len(path.alphas)} points; batch-norm statistics {TREATMENTS[path.statistics]}."
    )
    return lines


def summary(results: Sequence[Comparison], threshold: float = 0.02) -> str:
    """Return a table with one row per pair and data set, then one line per data set with the mean over its pairs."""
    cells = table(results, threshold) if results else []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join([*lines, *verdicts(results, threshold)])


def figure(results: Sequence[Comparison], *, fork: str = "", threshold: float = 0.02) -> Any:
    """Draw the error along the path, one panel per data set, one line per pair (thesis, figure 4-2).

    ``fork`` names the state at which the trainings forked, such as ``"step 500"``. Returns a Matplotlib ``Figure``; the
    global state of pyplot does not change. Raises ``ValueError`` if there are no results.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not results:
        raise ValueError("No two trainings have been compared, so there is nothing to draw: run fit first.")
    barriers = mean_barriers(results)
    drawn = Figure(figsize=(0.8 + 5.2 * len(barriers), 5.4), layout="constrained")
    FigureCanvasAgg(drawn)
    panels = drawn.subplots(1, len(barriers), squeeze=False)[0]
    for panel, (name, barrier) in zip(panels, barriers.items(), strict=True):
        mine = [result for result in results if result.data == name]
        for result in mine:
            _draw(panel, result, alone=len(mine) == 1)
        panel.set_title(f"{name}: barrier {barrier:.4f}, {verdict(barrier, threshold)}", fontsize=10)
        panel.set_ylabel(f"error on {name} ({mine[0].path.measure})")
        first, second = mine[0].pair if len(mine) == 1 else ("first", "second")
        panel.set_xlabel(f"weights α · W({first}) + (1 − α) · W({second}); large dots: the ends")
        panel.grid(alpha=0.25)
        panel.margins(x=0.1, y=0.22)
        panel.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    path = results[0].path
    since = f" from {fork}" if fork else ""
    drawn.suptitle(
        f"Error between ends of trainings{since} on different data orders\n"
        f"{len(path.alphas)} points; batch-norm statistics {TREATMENTS[path.statistics]}",
        fontsize=10,
    )
    return drawn


def _draw(panel: Any, result: Comparison, *, alone: bool) -> None:
    path = result.path
    label = f"trainings {result.pair[0]} (α = 1) and {result.pair[1]} (α = 0): barrier {path.barrier:.4f}"
    (line,) = panel.plot(path.alphas, path.errors, marker=".", label=label)
    panel.plot((0, 1), path.endpoints, "o", color=line.get_color(), markersize=8)
    if not alone:
        return
    # The barrier: from the mean of the ends up to the highest point.
    (alpha, error), mean = path.highest, (path.endpoints[0] + path.endpoints[1]) / 2
    panel.plot((0, 1), (mean, mean), "--", color="0.5", label=f"mean of the ends {mean:.4f}")
    panel.plot((alpha, alpha), (mean, error), color="tab:red", linewidth=2, label=f"barrier, up to {error:.4f}")
    first, second = result.pair
    for at, value, text in ((0, path.endpoints[0], f"W({second})"), (1, path.endpoints[1], f"W({first})")):
        panel.annotate(f"{text}\n{value:.4f}", (at, value), (0, -12), textcoords="offset points", ha="center", va="top")


def png(drawn: Any, dpi: int = 150) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
