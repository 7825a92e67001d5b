"""The report of workdirs: one HTML page, its figures also as PNG files, and the table as CSV and Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from html import escape
from typing import Any

import pandas as pd

from keras_lth import files
from keras_lth.files.stores import AnyPath
from keras_lth.report import (
    chapter3,
    chapter4,
    chapter5,
    chapter6,
    figures,
    figures_chapter3,
    figures_chapter4,
    figures_chapter5,
    figures_chapter6,
    findings,
    numbers,
    style,
)
from keras_lth.report.read import Results, read
from keras_lth.report.style import Drawing

# Name, and the table that it is drawn from.
FIGURES: Mapping[str, tuple[str, Callable[[Results], Drawing | None]]] = {
    "accuracy": ("results", figures.accuracy),
    "curves": ("curves", figures.curves),
    "one_shot": ("results", figures_chapter3.one_shot),
    "retrained": ("results", figures_chapter3.retrained),
    "early_stopping": ("holdout", figures_chapter3.early_stopping),
    "dilation": ("dilation", figures_chapter3.dilation),
    "pixels": ("degrees", figures_chapter3.pixels),
    "ablations": ("early", figures_chapter5.ablations),
    "steps": ("early", figures_chapter5.steps),
    "step_ablations": ("early", figures_chapter5.step_ablations),
    "neurons": ("neurons", figures_chapter5.neurons),
    "method_layers": ("neurons", figures_chapter5.method_layers),
    "cost": ("early", figures_chapter5.cost),
    "dynamic": ("dynamic", figures_chapter6.dynamic),
    "layers": ("layers", figures.layers),
    "path": ("instability", figures.path),
    "barrier": ("instability", figures.barrier),
    "errors": ("copies", figures_chapter4.errors),
    "throughout": ("throughout", figures_chapter4.throughout),
    "stable_matching": ("copies", figures_chapter4.stable_matching),
    "density_choice": ("copies", figures_chapter4.density_choice),
    "distances": ("instability", figures_chapter4.distances),
    "state": ("state", figures_chapter4.state),
    "plane": ("plane", figures_chapter4.plane),
    "matching": ("matching", figures_chapter4.matching),
}
_SHOWN = 200  # rows of a table that has no figure
_LEGEND = (
    "Test accuracy in % after the last step: mean over replicates (least to greatest). Below it, in points, the mean "
    "difference to the replicate's own dense network, and in brackets how many replicates match. A network matches "
    "when its accuracy is at least that of its own dense network. A level matches (✓) when the mean difference is at "
    "least 0. A matching network that starts from step 0 is a winning ticket."
)
_INSTABILITY = (
    "In points of error, over pairs of trainings that share their first k steps and then differ: the highest error on "
    "the line between the two, minus the mean of its ends. Stable below 2."
)
_UNKNOWN = "means that contain it are not known, and are gaps in the figures."
_FINDINGS = (
    "What the thesis found, what these rows show, and whether the finding holds here. A difference counts if it is "
    "above the noise: twice the standard error of the difference of two means."
)
_STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #555; --rule: #ddd; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --soft: #aaa; --rule: #3a3a3a; --paper: #141414; } }
body { font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; color: var(--ink); background: var(--paper);
  max-width: 920px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; } h2 { font-size: 1.2em; margin-top: 2em; }
p.sub { color: var(--soft); margin-top: .2em; } p.missing { border-left: 4px solid #d55e00; padding: 0 .8em; }
figure { margin: 1.5em 0; } svg { width: 100%; height: auto; }
.tip { fill: transparent; } .tip:hover { stroke: var(--ink); stroke-width: 1.5; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .55em; text-align: right; border-bottom: 1px solid var(--rule); white-space: pre; }
th:first-child, td:first-child, .setting * { text-align: left !important; }
td { line-height: 1.3; } .setting td, .findings td { white-space: pre-wrap; }
.findings * { text-align: left !important; vertical-align: top; }
thead th { white-space: pre-line; vertical-align: bottom; border-bottom-color: var(--soft); }
button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; text-align: inherit; }
th button { font-weight: inherit; white-space: inherit; } th button::after { content: "\\a0↕"; color: var(--soft); }
th[aria-sort=ascending] button::after { content: "\\a0↑"; } th[aria-sort=descending] button::after { content: "\\a0↓"; }
figure button { font-size: 13px; color: var(--soft); text-decoration: underline; }
:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
"""
# Without it, as in some viewers of files, the page lacks two things only: sorting, and saving a figure.
_SCRIPT = """
const number = text => {
  const found = text.replace(/−/g, "-").match(/-?[0-9]+([.][0-9]+)?/);
  return found && +found[0];
};
const compare = (a, b) => {
  const [x, y] = [number(a), number(b)];
  return x === null && y === null ? a.localeCompare(b) : x === null ? 1 : y === null ? -1 : x - y;
};
for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending", body = head.closest("table").tBodies[0];
    for (const each of head.parentNode.children) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const cell = row => row.children[head.cellIndex].textContent.trim();
    const full = [...body.rows].filter(row => cell(row)), empty = [...body.rows].filter(row => !cell(row));
    full.sort((a, b) => compare(cell(a), cell(b)) * (up ? 1 : -1));
    body.append(...full, ...empty);
  });
}
for (const figure of document.querySelectorAll("figure")) {
  const button = document.createElement("button");
  button.textContent = "Save as SVG";
  button.addEventListener("click", () => {
    const copy = figure.querySelector("svg").cloneNode(true), style = getComputedStyle(document.documentElement);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.style.background = getComputedStyle(document.body).backgroundColor;
    const text = new XMLSerializer().serializeToString(copy);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(
      [text.replace(/var[(](--[a-z0-9]+)[)]/g, (_, name) => style.getPropertyValue(name))], {type: "image/svg+xml"}));
    link.download = figure.id + ".svg";
    link.click();
  });
  figure.append(button);
}
"""


def write(*workdirs: AnyPath, out: AnyPath | None = None) -> files.RunPath:
    """Write the report of workdirs to ``out``, by default ``WORKDIR/report``, and return the path of its page.

    Raises as `read` does, and ``ValueError`` for several workdirs without ``out``.
    """
    if len(workdirs) != 1 and out is None:
        raise ValueError(f"{len(workdirs)} workdirs have no common folder for their report: pass out.")
    return write_results(read(*workdirs), files.RunPath(workdirs[0]) / "report" if out is None else out)


def write_results(results: Results, out: AnyPath) -> files.RunPath:
    """Write ``out/index.html``, with the figures (PNG), ``table.csv`` and ``table.md`` beside it; return its path.

    A figure whose rows are missing is left out.
    """
    here = files.RunPath(out)
    drawn = {name: figure for name, (_, draw) in FIGURES.items() if (figure := draw(results)) is not None}
    made = {f"{name}.png": figure.png() for name, figure in drawn.items()}
    if (found := numbers.networks(results)) is not None:
        levels = numbers.summary(found)
        table = f"**{results.title}**\n\n{_LEGEND}\n\n{_markdown(numbers.by_level(levels))}"
        made |= {"table.csv": levels.to_csv(index=False).encode(), "table.md": table.encode()}
    if len(said := judged(results)):
        made["findings.csv"] = said.to_csv(index=False).encode()
    made["index.html"] = page(results, drawn).encode()
    for name in {*(f"{name}.png" for name in FIGURES), "table.csv", "table.md", "findings.csv"} - {*made}:
        (here / name).remove()
    for name, data in made.items():
        files.write_atomic(here / name, data)
    return here / "index.html"


def page(results: Results, drawn: Mapping[str, Drawing]) -> str:
    """Return the HTML page."""
    parts = [f'<h1>Lottery tickets</h1>\n<p class="sub">{escape(results.title)}</p>\n']
    if said := missing(results, drawn):
        parts.append(f'<p class="missing">{escape(" ".join(said))}</p>\n')
    found, pairs = numbers.networks(results), numbers.pairs(results)
    levels = None if found is None else numbers.summary(found)
    if found is not None and levels is not None:
        parts.append(_section("Verdict", numbers.verdicts(levels), *sentences(found)))
    if pairs is not None:
        lost = int(pairs["unknown"].sum())
        gaps = f"{lost} of {len(pairs)} pairs have an error on the line that is NaN or infinite: {_UNKNOWN}"
        parts.append(_section("Instability", numbers.stability(pairs), _INSTABILITY, *[gaps] * bool(lost)))
    if len(said_of := judged(results)):
        shown_findings = said_of.drop(columns=[] if len(results.runs) > 1 else "run")
        parts.append(_section("Findings of the thesis", shown_findings, _FINDINGS, look="wide findings"))
    pictures = {name: figure.svg() for name, figure in drawn.items()}
    if pictures:
        parts.append(_section("Figures", None, "Point at a marker or a line to read its numbers."))
    parts += [f'<figure id="{name}">{picture}</figure>\n' for name, picture in pictures.items()]
    if levels is not None:
        parts.append(_section("Level by level", numbers.by_level(levels), _LEGEND))
    shown = {FIGURES[name][0] for name in drawn} | ({"results"} if found is not None else set())
    for name, frame in results.tables.items():
        if name not in shown:
            cells = frame.drop(columns=[] if len(results.runs) > 1 else "run").head(_SHOWN).map(_cell)
            more = [f"The first {_SHOWN} of {len(frame)} rows."] if len(frame) > _SHOWN else []
            parts.append(_section(f"Table {name}", cells, *more))
    settings = pd.DataFrame(results.settings).sort_index().map(_cell).rename_axis("key").reset_index()
    parts.append(
        _section("Setting", settings, *([] if len(settings) else ["No setting was saved."]), look="wide setting")
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(results.title)}</title>\n<style>{_STYLE}{style.colours_css(pictures.values())}</style>\n"
        f"</head>\n<body>\n<main>\n{''.join(parts)}</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def judged(results: Results) -> pd.DataFrame:
    """Return the findings of the chapters of the thesis of which the rows decide any."""
    made = [findings.decided(results, chapter.FINDINGS) for chapter in (chapter3, chapter4, chapter5, chapter6)]
    told = [found for found in made if not (found["verdict"] == findings.UNKNOWN).all()]
    return pd.concat(told, ignore_index=True) if told else made[0][0:0]


def missing(results: Results, drawn: Collection[str] = FIGURES) -> list[str]:
    """Return sentences on missing rows, and on figures that are not in ``drawn``."""
    said = []
    if results.missing:
        counts = Counter(str(labels.get("table", "rows")) for labels in results.missing)
        listed = ", ".join(f"{count} of {table}" for table, count in counts.items())
        said.append(f"{len(results.missing)} rows are missing: {listed}.")
    said += [f"The plan {name} needs a value before it can name more rows." for name in results.waiting]
    tables = {str(labels.get("table", "rows")) for labels in results.missing}
    if said and (left_out := [name for name, (table, _) in FIGURES.items() if name not in drawn and table in tables]):
        said.append(f"Figures left out for lack of rows: {', '.join(left_out)}.")
    return said


def sentences(found: pd.DataFrame) -> list[str]:
    """Return what to know besides the verdicts: the dense network, and replicates that are few or diverged."""
    said = []
    dense = numbers.dense(found)
    for run, row in dense.iterrows():
        of = f" of {run}" if len(dense) > 1 else ""
        spread = f" ({100 * row['min']:.2f} to {100 * row['max']:.2f})" if row["count"] > 1 else ""
        text = f"has {100 * row['mean']:.2f} %{spread} test accuracy" if row["count"] else "diverged in every replicate"
        said.append(f"The dense network{of} {text}.")
    if dense.empty:
        said.append("No dense network has been trained yet, so there is nothing to compare with.")
    if found["replicate"].nunique() == 1:
        said.append("There is only one replicate: no spread is shown, and small differences may be due to chance.")
    lost = [f"{each.name} level {row.level} replicate {row.replicate}"
            for each in numbers.series(found[found["diverged"]]) for row in each.rows.itertuples()]  # fmt: skip
    return [*said, f"Diverged and left out of the means: {'; '.join(lost)}."] if lost else said


def _markdown(frame: pd.DataFrame) -> str:
    """A frame of texts as a table in Markdown."""
    rows = [list(frame.columns), ["---:"] * len(frame.columns), *frame.to_numpy().tolist()]
    lines = [" | ".join(cell.replace("\n", ", ").replace("|", "\\|") for cell in row) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def _section(title: str, frame: pd.DataFrame | None, *texts: str, look: str = "wide") -> str:
    """A heading, paragraphs, and a frame of texts as a table."""
    out = f"<h2>{escape(title)}</h2>\n" + "".join(f"<p>{escape(text)}</p>\n" for text in texts)
    if frame is None or frame.empty:
        return out
    rows = [frame.columns, *frame.to_numpy().tolist()]
    head, *body = ("".join(f"<@>{escape(str(cell))}</@>" for cell in row) for row in rows)
    lines = "".join(f"<tr>{row.replace('@>', 'td>')}</tr>\n" for row in body)
    top = f"<thead><tr>{head.replace('@>', 'th>')}</tr></thead>\n"
    # Reached by the keyboard, because a narrow screen scrolls it.
    region = f'<div class="{look}" role="region" aria-label="{escape(title)}" tabindex="0">'
    return f"{out}{region}<table>{top}<tbody>\n{lines}</tbody></table></div>\n"


def _cell(value: Any) -> str:
    """A value for readers."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_cell(each)}" for key, each in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(each) for each in value[:12]) + (" …" if len(value) > 12 else "") or "–"
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
