"""Early-bird tickets: prune channels once their masks hardly change any more (H. You et al., 2020; thesis, 5.1)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lth.arguments import real, whole
from keras_lth.callbacks.gradual import GradualPruning
from keras_lth.callbacks.state import within
from keras_lth.masks import Masks
from keras_lth.schedules import Constant, Time
from keras_lth.structures import Structure

__all__ = ["EarlyBird"]


class EarlyBird(GradualPruning):
    """Choose masks again and again while the dense network trains, and prune when they have settled.

    They have settled when the last ``window`` masks differ from each other in less than ``tolerance`` of all weights.

    Args:
        density: of the masks, in (0, 1].
        tolerance: the greatest share of weights in which two masks may differ; 0.1 in the paper.
        window: how many masks are compared; 5 in the paper.
        every: between two of them.
        stop: whether to end the training then, to train the ticket in a fit of its own.
        criterion, structure, **options: as in `GradualPruning`; the structure is "output", channels and neurons, by
            default.

    Attributes:
        settled: the step at which the masks had settled; None before.
    """

    settled: int | None = None
    _seen: tuple[Masks, ...] = ()

    def __init__(
        self,
        density: float,
        *,
        tolerance: float = 0.1,
        window: int = 5,
        every: Time = "1 epoch",
        stop: bool = False,
        criterion: Any = "magnitude",
        structure: Structure = "output",
        **options: Any,
    ) -> None:
        super().__init__(Constant(density, begin=every, every=every), criterion, structure=structure, **options)
        self.window, self.tolerance, self.stop = whole(window, "window", 2), real(tolerance, "tolerance"), stop
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must lie in (0, 1), not {tolerance!r}")

    def _next(self, step: int, masks: Masks) -> Masks:
        if self.settled is not None:
            return masks
        self._seen = (*self._seen, super()._next(step, self.start))[-self.window :]
        if len(self._seen) < self.window or self.distance() >= self.tolerance:
            return masks
        self.settled = step
        self.model.stop_training = self.model.stop_training or self.stop
        return self._seen[-1]

    def distance(self) -> float:
        """Return the greatest share of weights in which two of the last masks differ, in [0, 1]."""
        pairs = [(a, b) for number, a in enumerate(self._seen) for b in self._seen[:number]]
        changed = [sum(int(np.count_nonzero(a[path] != b[path])) for path in a) for a, b in pairs]
        return max(changed, default=0) / self.start.size

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Say what was done; warn if the masks have not settled."""
        super().on_train_end(logs)
        if self.settled is None:
            warnings.warn(
                f"{self._name} pruned nothing: the last {len(self._seen)} masks differ in up to {self.distance():.1%} "
                f"of the weights, and {self.window} are to differ in less than {self.tolerance:.1%}. Train longer, or "
                "use a greater tolerance",
                stacklevel=2,
            )

    def get_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the position, and the masks that are compared."""
        state, arrays = super().get_state()
        seen = {f"seen/{number}/{path}": mask for number, one in enumerate(self._seen) for path, mask in one.items()}
        return {**state, "settled": self.settled, "seen": len(self._seen)}, {**arrays, **seen}

    def set_state(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from an earlier `get_state`; call it after ``on_train_begin``."""
        super().set_state({name: value for name, value in state.items() if name != "seen"}, arrays)
        self._seen = tuple(Masks(within(f"seen/{number}", arrays)) for number in range(state["seen"]))

    def _forget(self) -> None:
        super()._forget()
        self.settled, self._seen = None, ()
