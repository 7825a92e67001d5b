"""The walked models as a table, which `make proof` keeps: a part of them run again replaces its own rows."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
from pathlib import Path

from tests.zoo.walk import NAMES, OK

FOLDER = Path(__file__).parents[2] / "docs" / "results" / "proof"
GROUPS = {"applications": "keras.applications", "hub": "keras-hub", "examples": "keras.io examples"}
PACKAGES = ("keras", "keras-hub", "tensorflow", "numpy")
HEAD = """# Third-party models

Written by `make proof` with {versions}. {right} of {count} models pass every step.
Shapes are small, no weights are downloaded, and the last batch of each epoch holds one example. The steps are those of
`tests/zoo/walk.py`:

- **prunable**: every weight of rank 2 or more is of a known kind.
- **mask**: half of each prunable weight, by magnitude; pruned ones are 0.
- **fit**: an epoch; pruned weights stay 0, the others change, all are finite.
- **rewind**: a snapshot, an epoch, back to it with the optimizer's slots, bit by bit.
- **report**: `lth.sparsity` counts and names every masked weight.
- **save**: `.keras` files of the model, or of its parts if it has no configuration; all values are read back.
- **IMP**: two rounds that prune a fifth each inside `fit`, rewound to step 1 of an epoch of 3; exact counts.
- **ticket**: written, read, applied to the other instance, bit by bit, and trained.

"""


def keep(group: str, model: str, steps: dict[str, str]) -> None:
    """Write the outcomes of a model beside those of the others."""
    kept = FOLDER / "zoo.json"
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    date = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
    rows = json.loads(kept.read_text())["models"] if kept.exists() else []
    rows = [row for row in rows if (row["group"], row["model"]) != (group, model)]
    rows.append({"group": group, "model": model, "date": date, "steps": steps})
    rows.sort(key=lambda row: (list(GROUPS).index(row["group"]), row["model"]))
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"versions": versions, "models": rows}, indent=1) + "\n")

    right = sum(set(row["steps"].values()) == {OK} for row in rows)
    named = ", ".join(f"{package} {version}" for package, version in versions.items())
    lines = [f"| | model | {' | '.join(NAMES)} | run |", "|---" * (len(NAMES) + 3) + "|"]
    for row in rows:
        cells = [row["steps"][step].replace("|", "\\|").replace("\n", " ")[:120] for step in NAMES]
        lines.append(f"| {GROUPS[row['group']]} | {row['model']} | {' | '.join(cells)} | {row['date']} |")
    (FOLDER / "zoo.md").write_text(HEAD.format(versions=named, right=right, count=len(rows)) + "\n".join(lines) + "\n")
