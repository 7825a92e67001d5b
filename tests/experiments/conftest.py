"""Fixtures that these tests share."""

from __future__ import annotations

from typing import Any

import pytest

from keras_lth.experiments.kinds import Trainer
from tests.files.memory import memory

__all__ = ["loads", "memory"]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The step at which each training begins."""
    found: list[int] = []
    load = Trainer.load

    def counted(self: Trainer, state: Any, *rest: Any, **more: Any) -> None:
        found.append(state.meta["step"])
        load(self, state, *rest, **more)

    monkeypatch.setattr(Trainer, "load", counted)
    return found
