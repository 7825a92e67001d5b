from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keras_lth.files import heartbeat, stores
from tests.files.memory import MemoryStore


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryStore]:
    store = MemoryStore()
    stores.register("mem", store)
    monkeypatch.setattr(heartbeat, "SETTLE", 0.0)
    yield store
    stores.register("mem", None)


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, memory: MemoryStore) -> str:
    return str(tmp_path / "store") if request.param == "local" else "mem://bucket/store"
