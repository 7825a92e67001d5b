"""Prose keeps to the words that the style asks for (CONTRIBUTING.md); codespell, in `make test`, reads its spelling."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("keras_lth", "cc", "configs", "docs", "scripts", "bazel", "benchmarks", "tests")
READ = {".py", ".md", ".h", ".cc", ".inc", ".sh", ".yaml"}
# Each with what to write: the standard word, or a clause that has a noun.
AVOIDED = {
    r"\bwho comes?\b": "a reader, a caller",
    r"\b(?:gone?|goes|going|went) on with\b": "continue, resume",
    r"\bbegin of\b": "start of",
    r"\banew\b": "again",
    r"\bfor ever\b": "always, without end",
    r"\b(?:is|are|was|were) told\b": "receives, learns, is notified",
    # "There is no mask" and "is no longer" are English.
    r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|fewer\b|better\b|worse\b)\w+": "is not a …",
}


def prose() -> list[Path]:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in READ]
    return [*files, *ROOT.glob("*.md")]


@pytest.mark.parametrize("words", AVOIDED)
def test_words_that_stumble(words: str) -> None:
    found = []
    for path in prose():
        if path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            lines = [text.count("\n", 0, match.start()) + 1 for match in re.finditer(words, text, re.I)]
            found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert not found, f"write {AVOIDED[words]!r} instead: {', '.join(found)}"


def test_the_patterns_find_what_they_are_for() -> None:
    bad = "Who comes here is told that the begin of it is no mask; it goes on with it for ever, anew."
    assert all(re.search(words, bad, re.I) for words in AVOIDED)
    good = "There is no mask. It is no longer there, and is no more accurate. It goes on."
    assert not any(re.search(words, good, re.I) for words in AVOIDED)


def test_no_path_of_a_machine() -> None:
    """Neither this clone's folder nor the home folder or the Python of whoever runs the tests."""
    folders = {ROOT, Path.home(), Path(sys.base_prefix)} - {Path("/"), Path("/usr"), Path("/usr/local")}
    local = [f"{folder}/" for folder in folders]
    texts = {path: path.read_text(encoding="utf-8") for path in prose()}
    assert [path.name for path, text in texts.items() if any(folder in text for folder in local)] == []
