"""Fixtures that these tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.files.memory import MemoryStore, memory

__all__ = ["folder", "memory"]


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, memory: MemoryStore) -> str:
    return str(tmp_path / "store") if request.param == "local" else "mem://bucket/store"
