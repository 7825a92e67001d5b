"""Gradual pruning: the density follows a schedule while ``fit`` trains (M. Zhu and S. Gupta, 2017; thesis, 5.1)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_lth.arguments import round_half_up
from keras_lth.callbacks.batches import batch_at
from keras_lth.callbacks.mover import Mover
from keras_lth.criteria import described, named, needs_data, scored
from keras_lth.layers import Learning
from keras_lth.masks import Masks, differences
from keras_lth.schedules import Function, Schedule, Time
from keras_lth.selection import keep_counts, select
from keras_lth.structures import Structure, Structured
from keras_lth.surgery.roles import Filter

__all__ = ["GradualPruning"]


class GradualPruning(Mover):
    """Prune while training: at each step of a schedule the lowest scores go, until the density is that of the schedule.

    ``model.fit(…, callbacks=[GradualPruning(Polynomial(1.0, 0.1, begin=2_000, end=20_000))])`` works in any ``fit`` and
    in `keras_lth.training.fit`. The masks stay on afterwards. A weight that is pruned is 0 with fresh slots, and comes
    back only if the schedule's density grows (`Periodic`). If the model already has masks, pruning begins from them.

    Args:
        schedule: of `keras_lth.schedules` (`Polynomial`, `Constant`, `OneShot`, `Periodic`), or a function of the step
            that returns the density. Densities are of all weights that can be pruned.
        criterion: what scores weights, as in `keras_lth.IMPCallback`: a name, one of `keras_lth.criteria`, or a
            function of (model) or (model, x, y); x and y are a batch. Or what `keras_lth.layers.learn_masks` returned:
            the density of each layer whose masks are learned follows the schedule (movement pruning, straight-through).
        scope: "global": one ranking over all layers; "layer": the density in each layer.
        structure: as in `keras_lth.select`. Of "n:m" the schedule must end at n/m; on the way there, more of every m
            remain.
        min_per_layer: as in `keras_lth.select`, with scope="global".
        every: how often a schedule that is a function is asked.
        include, exclude, also: which weights, as in `keras_lth.prunable`.
        verbose: as in `Mover`.

    Raises ``ValueError`` at the start of ``fit`` for a schedule that does not fit the training or the model: one that
    begins or ends after the training, that asks for more than the model has, or that leaves nothing.
    """

    def __init__(
        self,
        schedule: Schedule | Callable[[int], float],
        criterion: Any = "magnitude",
        *,
        scope: str = "global",
        structure: Structure = None,
        min_per_layer: float | None = None,
        every: Time = 100,
        include: Filter = None,
        exclude: Filter = None,
        also: Filter = None,
        verbose: int = 1,
    ) -> None:
        super().__init__(include=include, exclude=exclude, also=also, verbose=verbose)
        if scope not in ("global", "layer"):
            raise ValueError(f'scope must be "global" or "layer", not {scope!r}')
        self.schedule = schedule if isinstance(schedule, Schedule) else Function(schedule, every=every)
        self.learning = criterion if isinstance(criterion, Learning) else None
        if self.learning is not None:
            criterion, scope = "magnitude", "layer"
        options = {**self.filters, **({"seed": 0} if criterion == "random" else {})}
        self.criterion = named(criterion, **(options if isinstance(criterion, str) else {}))
        self.scope, self.structure, self.min_per_layer = scope, structure, min_per_layer
        self._units = Structured(structure)

    def _plan(self, steps_per_epoch: int | None, epochs: int, masks: Masks) -> Schedule:
        found = self.schedule.in_steps(steps_per_epoch, epochs)
        final, size, now = found.last_density, self._count(Masks.ones(masks)), self._count(masks)
        if self._units.n_of_m:
            n, m = self._units.n_of_m
            if final is None or not math.isclose(final, n / m):
                raise ValueError(
                    f"structure {self.structure!r} has density {n / m:g}: end the schedule there, not at {final}"
                )
        elif final is not None and round_half_up(final, size) == 0:
            raise ValueError(
                f"a density of {final:g} leaves none of {size:,} {self._units.unit}: use at least {1 / size:.2g}"
            )
        elif final is not None and (round_half_up(final, size) > now or round_half_up(final, size) == size):
            raise ValueError(
                f"the model already has a density of {now / size:.4g}, and the schedule ends at {final:g}: nothing "
                "would be pruned. Use a lower density, or keras_lth.unmask(model) first"
            )
        return found

    def _weights(self) -> list[str]:
        return super()._weights() if self.learning is None else list(self.learning.masks())

    def _hold(self, masks: Masks) -> Any:
        return super()._hold(masks) if self.learning is None else _Followed(masks)

    def _next(self, step: int, masks: Masks) -> Masks:
        if self.learning is not None:
            self.learning.set_density(self.updates(step))
            return self.learning.masks()
        density, now = self.updates(step), self._count(masks)
        if self._units.n_of_m:
            n, m = self._units.n_of_m
            kept = max(n, math.ceil(round(density * m, 9)))
            return masks if kept == m else select(self._scores(step), structure=f"{kept}:{m}", within=masks)
        revives = getattr(self.criterion, "revives", False)
        wanted = self._counts(density, self.start)
        shrinks = sum(wanted.values()) <= now
        if sum(wanted.values()) == now and not revives:
            return masks
        within = masks if shrinks and not revives else self.start
        return keep_counts(
            self._scores(step), within, self._counts(density, within), self.min_per_layer, self.structure
        )

    def _described(self) -> str:
        begin, end, every = self.updates.begin, self.updates.end, self.updates.every
        last = self.updates.last_density
        span = f"from step {begin.amount:,}" + (
            "" if end is None or end == begin else f" to {end.amount:,}, every {every.amount:,}"
        )
        to = "" if last is None else f" to a density of {last:.1%}"
        what = described(self.criterion) if self.learning is None else type(self.learning.rule).__name__
        return f"{self.scope} {what}, {self._density()}{to}, {span}"

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Say what was done."""
        super().on_train_end(logs)
        if not self.changes and self._done is None:
            warnings.warn(
                f"{self._name} pruned nothing: the training ended at step {self._step:,}, before the schedule begins "
                f"({self.updates.begin})",
                stacklevel=2,
            )

    def _counts(self, density: float, within: Masks) -> dict[str, int]:
        """How many units remain of those in ``within``: in total, or by layer."""
        if self.scope == "global":
            return {"": min(round_half_up(density, self._count(Masks.ones(within))), self._count(within))}
        sizes = {path: self._units.count(np.ones(mask.shape, bool)) for path, mask in within.items()}
        return {p: min(round_half_up(density, sizes[p]), self._units.count(mask)) for p, mask in within.items()}

    def _count(self, masks: Mapping[str, np.ndarray]) -> int:
        return sum(self._units.count(mask) for mask in masks.values())

    def _scores(self, step: int) -> dict[str, np.ndarray]:
        data = batch_at(self, step)[:2] if needs_data(self.criterion) else ()
        found = scored(self.criterion, self.model, *data)
        shapes = {path: array.shape for path, array in found.items() if path in self.start}
        if lines := differences(shapes, {path: mask.shape for path, mask in self.start.items()}):
            raise ValueError(
                f"the criterion {described(self.criterion)} does not score the weights to prune: {'; '.join(lines)}. "
                "Give both the same include, exclude and also"
            )
        return {path: found[path] for path in self.start}


class _Followed:
    """Masks that the model learns itself: those of the last change, which are only told."""

    stored = False

    def __init__(self, masks: Masks) -> None:
        self._masks = masks

    def masks(self) -> Masks:
        return self._masks

    def set(self, masks: Masks) -> None:
        self._masks = masks
