"""Small tables: as text, and as HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Sequence

__all__ = ["html_table", "text_table"]

# A notebook shows this many rows; the text form has all of them.
_ROWS = 30


def text_table(cells: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Format aligned columns, those in `left` flush left, the others flush right; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        columns = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(columns).rstrip())
    return "\n".join(lines)


def html_table(cells: Sequence[Sequence[str]], note: str = "") -> str:
    """Format an escaped table with the first row as heading and `note` above; long tables omit rows in the middle."""
    heading, *rows = cells
    if len(rows) > _ROWS:
        left_out = len(rows) - _ROWS + 1
        rows = [*rows[: _ROWS - 2], [f"… {left_out} more", *[""] * (len(heading) - 1)], rows[-1]]
    parts = [f"<p>{html.escape(note)}</p>"] if note else []
    parts += ["<table><thead>", _row(heading, "th"), "</thead><tbody>", *(_row(row, "td") for row in rows)]
    return "".join([*parts, "</tbody></table>"])


def _row(cells: Sequence[str], tag: str) -> str:
    first, *rest = (html.escape(cell) for cell in cells)
    aligned = "".join(f'<{tag} style="text-align:right">{cell}</{tag}>' for cell in rest)
    return f'<tr><{tag} style="text-align:left">{first}</{tag}>{aligned}</tr>'
