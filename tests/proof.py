"""What `make proof` found of the long tests: a row a file of tests, kept when the run ends; other files keep theirs."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "proof"
HEAD = """# The long form of the tests

Written by `make proof`. A row is the last run of a test file. Seconds are the time of the tests, two at a time on
two cores. The tests are those with the mark `proof`; their docstrings describe them.

| tests | passed | failed | seconds | run |
|---|---|---|---|---|
"""


class Found:
    """A plugin of pytest: counts outcomes by file, in the process that starts the others."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = {}
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test once; keep what was found of a model of others as soon as it is found."""
        file = report.nodeid.partition("::")[0]
        self.seconds[file] += report.duration
        if report.failed or (report.when == "call" and report.passed):
            self.outcomes.setdefault(file, Counter())["failed" if report.failed else "passed"] += 1
        for name, value in report.user_properties if report.when == "call" else ():
            if name == "zoo":
                from tests.zoo.table import keep

                keep(*value)

    def pytest_sessionfinish(self) -> None:
        """Write ``tests.json`` and ``tests.md``."""
        if not self.outcomes:
            return
        kept = FOLDER / "tests.json"
        rows = json.loads(kept.read_text()) if kept.exists() else {}
        date = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
        for file, found in self.outcomes.items():
            numbers = {"passed": found["passed"], "failed": found["failed"], "seconds": round(self.seconds[file])}
            rows[file] = {**numbers, "date": date}
        rows = dict(sorted(rows.items()))
        FOLDER.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(rows, indent=1) + "\n")
        lines = [
            f"| `{file}` | {row['passed']} | {row['failed']} | {row['seconds']} | {row['date']} |\n"
            for file, row in rows.items()
        ]
        (FOLDER / "tests.md").write_text(HEAD + "".join(lines))
