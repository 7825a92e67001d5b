"""Tidy tables of rows: one CSV file per value of the label ``table``, with numbers at full precision."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from keras_lth import files
from keras_lth.files.stores import AnyPath


def write_tables(rows: Iterable[Mapping[str, Any]], folder: AnyPath) -> dict[str, int]:
    """Write ``folder/TABLE.csv`` for each table of ``rows``; remove files of tables without rows.

    A row without the label ``table`` goes to ``rows.csv``. Lists are JSON. Returns the number of rows by file name.
    """
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name = re.sub(r"\W+", "_", str(row.get("table", "rows"))) + ".csv"
        tables.setdefault(name, []).append({key: value for key, value in row.items() if key != "table"})
    for name, listed in tables.items():
        text = io.StringIO()
        writer = csv.DictWriter(text, dict.fromkeys(key for row in listed for key in row), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in listed)
        files.write_atomic(files.join(folder, name), text.getvalue().encode())
    for name in files.list_names(folder):
        if name.endswith(".csv") and name not in tables:
            files.remove(files.join(folder, name))
    return {name: len(listed) for name, listed in tables.items()}


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value
