"""The gallery's programs run from the first line to the last, in a short form; the site lists each."""

from __future__ import annotations

import runpy
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "docs" / "gallery").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_LTH_QUICK", "1")
    runpy.run_path(str(example))
    keras.backend.clear_session()


def test_the_site_lists_them() -> None:
    assert all(f"gallery/{path.stem}.md" in (ROOT / "mkdocs.yml").read_text() for path in EXAMPLES)
