"""The walked models as a table: printed after the tests, and written by `make proof`."""

from __future__ import annotations

import datetime
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

from tests.zoo.walk import NAMES

PATH = Path(__file__).parents[2] / "docs" / "results" / "proof" / "zoo.md"
GROUPS = {"applications": "keras.applications", "hub": "keras-hub", "examples": "in the manner of keras.io's examples"}
PACKAGES = ("keras", "keras-hub", "tensorflow", "numpy")
HEAD = """# Models of others

Written by `make proof` on {date} with {versions}. {right} of {count} models are right in every step.
Shapes are small, no weights are downloaded, and the last batch of each epoch holds one example. The steps are those of
`tests/zoo/walk.py`:

- **prunable**: every weight of rank 2 or more is of a known kind, but for those that only the model's author knows.
- **mask**: half of each prunable weight, by magnitude; pruned ones are 0.
- **fit**: an epoch; pruned weights stay 0, others move, all are finite.
- **rewind**: a snapshot, an epoch, back to it with the optimiser's slots, bit by bit.
- **report**: `lth.sparsity` counts and names every masked weight.
- **save**: `.keras` files of the model, or of its parts where it has no configuration; all values are read back.
- **IMP**: two rounds of a fifth inside `fit`, rewound to step 1 of an epoch of 3; exact counts.
- **ticket**: written, read, applied to the other instance, bit by bit, and trained.

"""

Row = tuple[str, str, dict[str, str]]


def table(rows: Iterable[Row]) -> str:
    """Markdown: a row a model, a column a step."""
    lines = ["| | model | " + " | ".join(NAMES) + " |", "|---" * (len(NAMES) + 2) + "|"]
    for group, name, outcomes in rows:
        cells = [outcomes[step].replace("|", "\\|").replace("\n", " ")[:120] for step in NAMES]
        lines.append(f"| {GROUPS[group]} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(rows: list[Row]) -> Path:
    """Write the table with its date and versions."""
    right = sum(set(outcomes.values()) <= {"ok"} for _, _, outcomes in rows)
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES)
    date = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}"
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(HEAD.format(date=date, versions=versions, right=right, count=len(rows)) + table(rows) + "\n")
    return PATH
