"""The documentation site is built without a network, every link leads somewhere, and every program has its pages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.proof
def test_the_site_is_built(tmp_path: Path) -> None:
    """Strict: a warning is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "IMPCallback" in (tmp_path / "reference" / "package.html").read_text()
    for program in (ROOT / "docs" / "gallery").glob("*.py"):
        assert (tmp_path / "gallery" / f"{program.stem}.html").stat().st_size > 5_000
        assert json.loads((tmp_path / "gallery" / f"{program.stem}.ipynb").read_text())["nbformat"] == 4
