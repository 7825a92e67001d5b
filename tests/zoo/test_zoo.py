"""Models that others made are masked, trained, pruned to tickets, saved and loaded: a step a column, a model a row."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.zoo.kinds import Kind
from tests.zoo.walk import NAMES, OK, REFUSED, walk

# One of each group, which every run of the tests walks; `make proof` walks all.
SHORT = {"applications": ("MobileNet",), "hub": ("BERT classifier",), "examples": ("GAN",)}


def _kinds(group: str) -> dict[str, Kind]:
    return importlib.import_module(f"tests.zoo.{group}").KINDS


ALL = [(group, name) for group in SHORT for name in _kinds(group)]
ONE_OF_EACH = [(group, name) for group, names in SHORT.items() for name in names]


def _right(kind: Kind) -> dict[str, str]:
    return {step: REFUSED if step in kind.refused else OK for step in NAMES}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("group", "name"), ONE_OF_EACH)
def test_one_of_each(group: str, name: str, tmp_path: Path) -> None:
    kind = _kinds(group)[name]
    assert walk(kind, tmp_path) == _right(kind)


@pytest.mark.proof
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("group", "name"), ALL)
def test_all(group: str, name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    kind = _kinds(group)[name]
    outcomes = walk(kind, tmp_path)
    record_property("zoo", (group, name, outcomes))
    assert outcomes == _right(kind)
