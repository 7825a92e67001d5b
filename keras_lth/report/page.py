"""The report of a run: figures, tables and one HTML page that needs nothing but the figures beside it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from keras_lth import files
from keras_lth.report import figures, instability, sentences, style, tables
from keras_lth.report.results import Results, read

Draw = Callable[[Results], "Figure | None"]
# Name, what it shows, how it is drawn, and which file it lacks when it is not there.
_FIGURES: tuple[tuple[str, str, Draw, str], ...] = (
    ("accuracy", "Test accuracy against weights remaining", figures.accuracy, "results.csv"),
    ("curves", "Test accuracy through training", figures.curves, "curves.csv"),
    ("layers", "Density of each layer", figures.layers, "layers.csv"),
    ("path", "Error on the line between two trainings", figures.path, "instability.json"),
    ("barrier", "Instability against the step of the fork", figures.barrier, "instability.json"),
)
_STYLE = """
body { font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #222; max-width: 900px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; } h2 { font-size: 1.2em; margin-top: 2em; }
p.sub { color: #555; margin-top: .2em; }
figure { margin: 1.5em 0; } img { width: 100%; height: auto; } figcaption { color: #444; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums; }
td { white-space: nowrap; line-height: 1.25; } td small { color: #555; font-size: 10.5px; }
th, td { padding: .25em .45em; text-align: right; border-bottom: 1px solid #e3e3e3; }
thead th { border-bottom: 1px solid #888; vertical-align: bottom; } th.arm { text-align: center; }
th.arm, td.arm { border-left: 1px solid #ccc; } tr.reaches td { background: #eef5fa; }
table.setting { font-size: 14px; }
table.setting th, table.setting td { white-space: normal; text-align: left; vertical-align: top; }
"""


def write(workdir: str | os.PathLike[str]) -> files.RunPath:
    """Make ``workdir/report/``: figures (PNG), ``table.csv``, ``table.md`` and ``index.html``; the page's path.

    ``workdir`` is a run of ``keras_lth.bin.lottery`` or ``IMPCallback``'s ``directory``. A figure whose input is
    missing is left out, and the page says so. Raises as ``results.read``.
    """
    results = read(workdir)
    here = files.RunPath(workdir) / "report"
    drawn: dict[str, bool] = {}
    for name, _, draw, _ in _FIGURES:
        figure = draw(results)
        drawn[name] = figure is not None
        if figure is None:
            (here / f"{name}.png").remove()
        else:
            files.write_atomic(here / f"{name}.png", style.png(figure))
    files.write_atomic(here / "table.csv", tables.csv_table(results).encode())
    files.write_atomic(here / "table.md", tables.markdown(results).encode())
    files.write_atomic(here / "index.html", page(results, drawn).encode())
    return here / "index.html"


def page(results: Results, drawn: Mapping[str, bool]) -> str:
    """The HTML page; ``drawn`` says which figures are beside it."""
    captions = {
        "accuracy": sentences.accuracy_findings(results)[1:2],
        "curves": sentences.curve_findings(results),
        "layers": sentences.layer_findings(results)[:1],
        "path": [_path_note(results)] if results.paths else [],
        "barrier": sentences.path_findings(results),
    }
    shown = [_figure(name, title, captions[name]) for name, title, _, _ in _FIGURES if drawn[name]]
    left_out = [f"“{title}” needs {lacks}" for name, title, _, lacks in _FIGURES if not drawn[name]]
    said = "".join(f"<li>{escape(text)}</li>\n" for text in sentences.findings(results))
    missing = f"<p>Left out: {escape('; '.join(left_out))}, which this run has not (yet).</p>\n" if left_out else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(results.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>Lottery tickets</h1>\n<p class="sub">{escape(results.title)}</p>\n'
        f"<h2>What the curves say</h2>\n<ul>\n{said}</ul>\n"
        f"<h2>Figures</h2>\n{''.join(shown)}{missing}"
        f"<h2>Table</h2>\n<p>{escape(tables.legend(results))} Shaded rows: IMP does. The numbers are in "
        f'<a href="table.csv">table.csv</a>.</p>\n'
        f'<div class="wide">{_table(results)}</div>\n'
        f"<h2>Setting</h2>\n{_setting(results.config)}</body>\n</html>\n"
    )


def _figure(name: str, title: str, sentences: Sequence[str]) -> str:
    text = " ".join(sentences)
    return (
        f'<figure><img src="{name}.png" alt="{escape(f"{title}. {text}".strip())}">\n'
        f"<figcaption>{escape(text)}</figcaption></figure>\n"
    )


def _path_note(results: Results) -> str:
    treated = sorted({row.statistics for row in results.paths if row.statistics})
    note = f" Normalisation statistics on the line: {', '.join(treated)}." if treated else ""
    forks = sorted({row.fork_step for row in results.paths})
    shown = instability.shown_forks(results.paths)
    some = f" Shown are {len(shown)} of {len(forks)} fork steps." if len(shown) < len(forks) else ""
    errors = [error for row in results.paths for error in row.errors if math.isfinite(error)]
    most = f"The highest error on any line is {100 * max(errors):.2f} %." if errors else ""
    return f"{most}{some}{note}".strip()


def _table(results: Results) -> str:
    first, arms = tables.header(results)
    top = "".join(f'<th rowspan="2">{escape(name)}</th>' for name in first)
    top += "".join(f'<th class="arm" colspan="2">{escape(name)}</th>' for name in arms)
    below = '<th class="arm">%</th><th>−&nbsp;dense</th>' * len(arms)
    rows = []
    begins = range(len(first), len(first) + 2 * len(arms), 2)
    for cells in tables.text_rows(results):
        shade = ' class="reaches"' if cells[len(first) - 1] == "yes" else ""
        opened = ['<td class="arm">' if i in begins else "<td>" for i in range(len(cells))]
        line = "".join(f"{td}{_two_lines(cell)}</td>" for td, cell in zip(opened, cells, strict=True))
        rows.append(f"<tr{shade}>{line}</tr>\n")
    return f"<table><thead><tr>{top}</tr><tr>{below}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody></table>\n"


def _two_lines(cell: str) -> str:
    """What stands in brackets, below the number."""
    number, opened, rest = cell.partition(" (")
    below = escape(opened.strip() + rest).replace("), ", ")<br>")
    return f"{escape(number)}<br><small>{below}</small>" if opened else escape(cell)


def _setting(config: Mapping[str, Any]) -> str:
    if not config:
        return "<p>The run has no config.json.</p>\n"
    lines = [f"<tr><th>{escape(str(key))}</th><td>{escape(_value(config[key]))}</td></tr>\n" for key in sorted(config)]
    rows = "".join(lines)
    return f'<table class="setting"><tbody>\n{rows}</tbody></table>\n'


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_value(each)}" for key, each in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(each) for each in value) or "–"
    return json.dumps(value, default=str)
