"""The page about plans: its code runs as it is printed, and keeps what the page says of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.two_devices import ROOT

PAGE = (ROOT / "docs" / "plans.md").read_text()


def test_the_code_of_the_page(tmp_path: Path) -> None:
    code, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(code.splitlines()) < 40
    (tmp_path / "mine.py").write_text(code)

    def run(*arguments: str) -> list[str]:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.splitlines()

    rows = [line for line in run("mine.py") if line.startswith("{")]
    assert len(rows) == 8 and all("'accuracy': 0." in row and "'density': " in row for row in rows)
    # Again: nothing is trained, and the rows are the same.
    assert run("mine.py") == rows
    (tmp_path / "look.py").write_text(
        "import functools, json, sys, mine\n"
        "from keras_lth.plans import estimate\n"
        "more = functools.partial(mine.pruned_at_init, replicates=3)\n"
        "found = {line.kind: line.missing for line in estimate(more, 'runs/mine').lines}\n"
        "done = estimate(mine.pruned_at_init, 'runs/mine').seconds\n"
        "print(json.dumps([found, done, 'tensorflow' in sys.modules]))\n"
    )
    (line,) = run("look.py")
    assert json.loads(line) == [{"state": 4, "evaluate": 4, "select": 4}, 0, False]
