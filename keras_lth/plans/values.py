"""The values of steps: read from a store, or made in memory where a kind is not kept."""

from __future__ import annotations

import platform
from collections import OrderedDict
from typing import Any

from keras_lth.plans.step import Step, blaming, filled, resolve
from keras_lth.store.values import Store, Value

_CACHED = 8  # values in memory


class Values:
    """The values of steps, the last ones read or made in memory."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._cache: OrderedDict[str, Value] = OrderedDict()

    def value(self, step: Step) -> Value:
        """Raises `MissingError` or `DamagedError` of a kept one, `StepError` of one that is made."""
        found = self._cache.pop(step.name, None)
        if found is None:
            found = self.store.get(step.name) if step.kind.keep else self.make(step)
        self._cache[step.name] = found
        while len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return found

    def make(self, step: Step) -> Value:
        """Make a step that is not part of a training."""
        inputs = [self.value(each) for each in step.inputs]
        with blaming(step):
            return resolve(step.kind.make)(*inputs, **filled(step.given, step.kind.defaults))

    def has(self, step: Step) -> bool:
        """Whether a kept step is there."""
        return self.store.has(step.name)

    def names(self) -> set[str]:
        """The names of all that is kept."""
        return self.store.names()

    def agreed(self, flag: bool) -> bool:
        """Whether any host says so."""
        return self.store.agreed(flag)

    def put(self, step: Step, value: Value, **record: Any) -> None:
        """Keep the value of a step, with what is known of its making."""
        self.store.put(step.name, value, {**step.record, **record, "host": platform.node()})
        self.store.put_error(step.name, None)

    def drop(self, name: str) -> None:
        """Remove a value that is damaged."""
        self._cache.pop(name, None)
        self.store.drop(name)
