"""What the numbers say, in sentences: whatever they say, also when no subnetwork reaches the dense accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from keras_lth.report.curves import averaged, compared_level
from keras_lth.report.instability import STABLE, barriers, networks
from keras_lth.report.results import DENSE_ARM, Results
from keras_lth.report.tables import Cell, Summary, arm_name, mean, percent, signed, summarise

_SUBJECT = {"imp": "IMP tickets", "reinit": "reinitialised ones", "random_layerwise": "layerwise random ones",
            "random_global": "global random ones"}  # fmt: skip


def findings(results: Results) -> list[str]:
    """All sentences: accuracy, layers, instability, then what to know before they are believed."""
    return [
        *accuracy_findings(results),
        *layer_findings(results),
        *path_findings(results),
        *caveats(results),
    ]


def accuracy_findings(results: Results) -> list[str]:
    """How far each arm reaches the dense accuracy, and what is lost at the sparsest level."""
    summary = summarise(results)
    dense = summary.dense
    if dense is None:
        return ["No dense training is finished: nothing to compare with."]
    if not dense.values:
        return ["Every dense training diverged: nothing to compare with."]
    out = [f"The dense network has {_accuracy(dense)} test accuracy."]
    arms = [arm for arm, cells in summary.arms.items() if any(cell.values for cell in cells)]
    if not arms:
        return [*out, "No pruned network is finished."]
    out.append(_reach(summary, arms, results))
    best = max((c for c in summary.arms.get(DENSE_ARM, ()) if c.values), key=lambda c: c.mean, default=None)
    if best is not None and best.difference > 0.5e-4:
        gain, at = signed(best.difference).lstrip("+"), percent(best.density)
        out.append(f"The best IMP tickets, with {at} of the weights, are {gain} points above the dense network.")
    out += _sparsest(summary, arms)
    return out


def _reach(summary: Summary, arms: Sequence[str], results: Results) -> str:
    reached = {arm: summary.sparsest(arm) for arm in arms}
    if not any(reached.values()):
        return f"No subnetwork reaches the dense accuracy: there is no {_noun(results)}."
    parts: list[str] = []
    for arm in arms:
        cell = reached[arm]
        verb = " reach the dense accuracy" if not parts else ""
        if cell is None:
            parts.append(f"{_subject(arm)}{verb} at no density")
            continue
        missed = [c for c in summary.arms[arm] if c.level < cell.level and not c.reaches]
        but = ""
        if missed:
            but = (
                f" (but not at {', '.join(percent(c.density) for c in missed)})"
                if len(missed) <= 3
                else f" (but not at {len(missed)} of the {len([c for c in summary.arms[arm] if c.level < cell.level])} "
                f"denser levels)"
            )
        of = " of the weights" if not any("of the weights" in part for part in parts) else ""
        parts.append(f"{_subject(arm)}{verb} down to {percent(cell.density)}{of}{but}")
    text = "; ".join(parts) + "."
    return text[0].upper() + text[1:]


def _sparsest(summary: Summary, arms: Sequence[str]) -> list[str]:
    last = summary.levels[-1]
    cells = [cell for arm in arms if (cell := summary.at(arm, last)) and cell.values]
    if not cells:
        return []
    cells.sort(key=lambda cell: -cell.mean)
    listed = ", ".join(f"{arm_name(c.arm)} {100 * c.mean:.2f} % ({signed(c.difference)})" for c in cells)
    at = percent(cells[0].density)
    out = [f"At the sparsest level, {at} of the weights: {listed}; in brackets the points to dense."]
    above: list[str] = []
    for arm in arms:
        both = [(a, b) for b in summary.arms[arm] if (a := summary.at(DENSE_ARM, b.level)) and a.values and b.values]
        if arm != DENSE_ARM and both:
            above.append(f"{arm_name(arm)} at {sum(a.mean > b.mean for a, b in both)} of {len(both)}")
    return [*out, f"IMP is more accurate than {', '.join(above)} levels."] if above else out


def curve_findings(results: Results) -> list[str]:
    """What the compared level's curves end at."""
    level = compared_level(results)
    if level is None:
        return []
    density = next(row.density for row in results.curves if row.level == level)
    ends: list[str] = []
    for name, arm, at in [("dense", DENSE_ARM, 0)] + [(arm_name(a), a, level) for a in summarise(results).arms]:
        line = averaged(results.curves, arm, at)
        if line:
            ends.append(f"{name} at {100 * line[-1][1]:.2f} %")
    return [f"With {percent(density)} of the weights the curves end: {', '.join(ends)}."]


def layer_findings(results: Results) -> list[str]:
    """The layers that keep most and least at the sparsest level, and the empty ones."""
    last = max((row.level for row in results.layers), default=0)
    if not last:
        return []
    rows = [row for row in results.layers if row.level == last]
    kept = {path: mean(r.density for r in rows if r.path == path) for path in dict.fromkeys(r.path for r in rows)}
    overall = sum(row.remaining for row in rows) / sum(row.size for row in rows)
    least, most = min(kept, key=lambda path: kept[path]), max(kept, key=lambda path: kept[path])
    out = [
        f"Where IMP leaves {percent(overall)} of all weights, {most} keeps the largest share ({percent(kept[most])}) "
        f"and {least} the smallest ({percent(kept[least])})."
    ]
    for path in kept:
        emptied = [row.level for row in results.layers if row.path == path and row.remaining == 0]
        if emptied:
            out.append(f"{path} has no weight left from level {min(emptied)} on, in one replicate or more.")
    return out


def path_findings(results: Results) -> list[str]:
    """From which fork step each network is stable: mean instability below 2 points (thesis 4.1.1)."""
    out: list[str] = []
    for name, rows in networks(results.paths).items():
        parts: list[str] = []
        named = ""
        for data in sorted({row.data for row in rows}):
            means = {fork: mean(values) for fork, values in barriers(rows, data).items() if values}
            if not means:
                parts.append(f"on {data} data every pair diverged")
                continue
            points = ", ".join(f"{100 * value:.2f}" for value in means.values())
            steps = f" from step{'' if len(means) == 1 else 's'} {', '.join(f'{fork:,}' for fork in means)}"
            parts.append(f"on {data} data {points} points{steps if steps != named else ''}, {_stable(means)}")
            named = steps
        out.append(f"Instability of the {name}: {'; '.join(parts)}.")
    return out


def _stable(means: dict[int, float]) -> str:
    stable = [fork for fork, value in means.items() if value < STABLE]
    one = len(means) == 1
    if len(stable) == len(means):
        return "stable (below 2)" if one else "stable (below 2) from every step tried"
    if not stable:
        return "unstable (2 or more)" if one else "unstable (2 or more) from every step tried"
    if stable == list(means)[-len(stable) :]:
        return f"stable (below 2) from step {stable[0]:,} on"
    return f"stable (below 2) only from step {', '.join(f'{fork:,}' for fork in stable)}"


def caveats(results: Results) -> list[str]:
    """What a reader must know: one replicate, replicates that are missing, trainings that diverged."""
    out: list[str] = []
    summary = summarise(results)
    n = len(results.replicates)
    if n == 1:
        out.append("There is one replicate: no spread is shown, and small differences may be chance.")
    cells = [*([summary.dense] if summary.dense else []), *(cell for line in summary.arms.values() for cell in line)]
    short = [cell for cell in cells if len(cell.values) + len(cell.diverged) < n]
    if short:
        listed = ", ".join(f"{_where(cell)} ({len(cell.values) + len(cell.diverged)})" for cell in short[:6])
        more = f" and {len(short) - 6} more" if len(short) > 6 else ""
        out.append(f"Fewer than the {n} replicates are finished at: {listed}{more}.")
    lost = [f"{_where(cell)}, replicate {each}" for cell in cells for each in cell.diverged]
    if lost:
        out.append(f"Diverged and left out of the means: {'; '.join(lost)}.")
    lines = sorted({(row.network, row.fork_step, row.pair) for row in results.paths if not row.whole})
    if lines:
        listed = "; ".join(f"{network} from step {fork:,}, pair {a}–{b}" for network, fork, (a, b) in lines)
        out.append(f"Paths with points that are no number, left out: {listed}.")
    return out


def _where(cell: Cell) -> str:
    return "dense" if cell.level == 0 else f"{arm_name(cell.arm)} at {percent(cell.density)}"


def _accuracy(cell: Cell) -> str:
    text = f"{100 * cell.mean:.2f} %"
    if cell.spread:
        text += f" ({100 * cell.low:.2f} to {100 * cell.high:.2f} over {len(cell.values)} replicates)"
    return text


def _subject(arm: str) -> str:
    return _SUBJECT.get(arm, arm_name(arm))


def _noun(results: Results) -> str:
    return "winning ticket" if results.verdict == "winning ticket" else "matching subnetwork"
