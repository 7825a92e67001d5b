"""The values of steps: read from a store, or computed in memory if their kind is not stored."""

from __future__ import annotations

import platform
from collections import OrderedDict
from typing import Any

from keras_lth.plans.step import Step, blaming, filled, resolve
from keras_lth.store.values import Store, Value

_CACHED = 8  # values in memory


class Values:
    """The values of steps, with a cache of the last ones."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._cache: OrderedDict[str, Value] = OrderedDict()

    def value(self, step: Step) -> Value:
        """Return a value. Raises `MissingError` or `DamagedError` for a stored one, `StepError` for one that is
        computed.
        """
        found = self._cache.pop(step.name, None)
        if found is None:
            found = self.store.get(step.name) if step.kind.keep else self.make(step)
        self._cache[step.name] = found
        while len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return found

    def make(self, step: Step) -> Value:
        """Compute a step that is not part of a training."""
        inputs = [self.value(each) for each in step.inputs]
        with blaming(step):
            return resolve(step.kind.make)(*inputs, **filled(step.given, step.kind.defaults))

    def has(self, step: Step) -> bool:
        """Return whether a stored step exists."""
        return self.store.has(step.name)

    def names(self) -> set[str]:
        """Return the names of all stored values."""
        return self.store.names()

    def agreed(self, flag: bool) -> bool:
        """Return whether any host says yes."""
        return self.store.agreed(flag)

    def put(self, step: Step, value: Value, **record: Any) -> None:
        """Store the value of a step, with a record of how it was computed."""
        self.store.put(step.name, value, {**step.record, **record, "host": platform.node()})
        self.store.put_error(step.name, None)

    def drop(self, name: str) -> None:
        """Remove a damaged value."""
        self._cache.pop(name, None)
        self.store.drop(name)
