"""Lines of the benchmark: our time, another library's, the floor, and whether it is met; as markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line. `ratio` is said in words by `of`; it has to be at least `floor`, or at most it where `at_most`."""

    work: str
    ours: float
    peer: str
    theirs: float
    ratio: float
    floor: float | None = None
    at_most: bool = False
    unit: str = "ms"
    of: str = "×"
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.floor is None:
            return None
        return self.ratio <= self.floor if self.at_most else self.ratio >= self.floor

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def from_json(line: dict[str, Any]) -> Row:
    """The line that `Row.json` wrote."""
    return Row(**{name: value for name, value in line.items() if name != "met"})


def faster(work: str, ours: float, peer: str, theirs: float, floor: float | None = None, note: str = "") -> Row:
    """The line of two times in ms: how many times faster ours is."""
    return Row(work, ours, peer, theirs, theirs / ours, floor, note=note)


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def markdown(head: Sequence[str], body: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A table whose first `left` columns are words and the others numbers, aligned for a terminal too."""
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        sides = ["<"] * left + [">"] * (len(cells) - left)
        return "| " + " | ".join(f"{c:{s}{w}}" for c, s, w in zip(cells, sides, widths, strict=True)) + " |"

    rules = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(head), "| " + " | ".join(rules) + " |", *map(line, body)])


def table(rows: Sequence[Row]) -> str:
    """Every line with its floor; a missed one says **no**."""
    body = []
    for row in rows:
        floor = "" if row.floor is None else f"{'≤' if row.at_most else '≥'} {number(row.floor)} {row.of}".rstrip()
        met = {None: "", True: "yes", False: "**no**"}[row.met]
        unit = "" if row.unit == "ms" else f" {row.unit}"
        body.append(
            [
                row.work + (f" ({row.note})" if row.note else ""),
                row.peer,
                number(row.ours) + unit,
                number(row.theirs) + unit,
                f"{number(row.ratio)} {row.of}".rstrip(),
                floor,
                met,
            ]
        )
    return markdown(["work", "peer", "ours, ms", "peer, ms", "ratio", "floor", "met?"], body, left=2)


def verdict(rows: Sequence[Row]) -> str:
    """How many floors there are, and the ones that were missed."""
    judged = [row for row in rows if row.met is not None]
    missed = [row for row in judged if not row.met]
    lines = [f"- {row.work}, beside {row.peer}: {number(row.ratio)} {row.of}".rstrip() for row in missed]
    head = f"{len(judged) - len(missed)} of {len(judged)} floors met" + (", missed:" if missed else ".")
    return "\n".join([head, *lines])
