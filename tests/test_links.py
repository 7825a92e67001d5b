"""Every link and picture of the pages leads somewhere, every program they name exists, and the results stay small."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
PROGRAM = re.compile(r"python3? -m ([\w.]+)")
SCRIPT = re.compile(r"python3? ((?:benchmarks|scripts)/[\w/.]+)")


def anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    text = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower())
    return text.strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, part = target.partition("#")
        there = page if not path else (page.parent / path).resolve()
        assert there.exists(), f"{target} in {page.relative_to(ROOT)}"
        if part and there.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.M)
            assert part in map(anchor, headings), f"{target} in {page.relative_to(ROOT)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_programs_exist(page: Path) -> None:
    text = page.read_text()
    for name in PROGRAM.findall(text):
        assert importlib.util.find_spec(name) is not None, name
    for name in SCRIPT.findall(text):
        assert (ROOT / name).exists(), name


def test_results_are_small() -> None:
    """A chapter's outputs are at most 5 MB."""
    for chapter in (ROOT / "docs" / "results").iterdir():
        size = sum(path.stat().st_size for path in (chapter, *chapter.rglob("*")) if path.is_file())
        assert 0 < size <= 5_000_000, chapter
