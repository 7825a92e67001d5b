"""Fixtures that the tests of files share."""

from __future__ import annotations

import threading
from collections.abc import Iterator

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
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lock of")]
