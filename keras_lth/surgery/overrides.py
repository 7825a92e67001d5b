"""One attribute of an object replaced, and given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Override"]


class Override:
    """Replaces ``owner.name`` by ``wrap(before)`` on this one object, past every attribute tracking.

    Keras and TensorFlow must not see it: a tracked attribute is saved with the model, or refused by a locked layer.
    """

    def __init__(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        self.owner, self.name = owner, name
        self._previous = vars(owner).get(name)
        vars(owner)[name] = wrap(getattr(owner, name))

    def undo(self) -> None:
        """Give the object its own attribute back."""
        del vars(self.owner)[self.name]
        if self._previous is not None:
            vars(self.owner)[self.name] = self._previous
