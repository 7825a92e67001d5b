"""Fixtures that these tests share."""

from __future__ import annotations

from tests.files.memory import memory

__all__ = ["memory"]
