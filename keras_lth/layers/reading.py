"""A layer reads other values than its variables hold: masked ones, or ones that are computed from other variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

__all__ = ["Reading"]


class Reading(keras.StatelessScope):
    """Inside, a layer reads ``function(value)`` of variables; `settle` applies what it assigns and loses meanwhile.

    Args:
        read: variables, each with a function of its value.
    """

    def __init__(self, read: Sequence[tuple[keras.Variable, Callable[[Any], Any]]]) -> None:
        super().__init__(collect_losses=True)
        self.read = read
        self.updates: dict[int, tuple[keras.Variable, Any]] = {}

    def __enter__(self) -> Reading:
        super().__enter__()
        outer = self.original_scope
        if outer is not None:
            self.state_mapping = dict(outer.state_mapping)
            self.collect_losses, self.losses = outer.collect_losses, outer.losses
            self.initialize_variables = outer.initialize_variables
        for variable, function in self.read:
            value = self.state_mapping.get(id(variable), variable._value)
            # Directly into the mapping, at full precision: the layer casts when it reads.
            self.state_mapping[id(variable)] = function(variable.value if value is None else value)
        return self

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        """Note an assignment."""
        super().add_update(update)
        self.updates[id(update[0])] = update

    def settle(self, layer: keras.layers.Layer) -> None:
        """After the scope, assign statistics and seeds and pass losses on; an outer scope takes them if there is
        one.
        """
        for variable, value in self.updates.values():
            variable.assign(value)
        if self.original_scope is None:
            for loss in self.losses:
                layer.add_loss(loss)
