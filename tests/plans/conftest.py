from __future__ import annotations

from pathlib import Path

import pytest

from keras_lth.store import Store


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the toy counts what it does."""
    path = tmp_path / "log"
    monkeypatch.setenv("TOY_LOG", str(path))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
