"""Sparse-to-sparse training: masks of an exact number of weights that move while ``fit`` trains (thesis, 6.2.2).

An update drops weights of each layer and grows as many. What is dropped, kept and grown is a partition: a weight grows
where the mask had none before the update. A grown weight is 0, unless a deviation is given, with fresh slots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lth import surgery
from keras_lth.arguments import real, round_half_up, whole
from keras_lth.callbacks.batches import batch_at
from keras_lth.callbacks.mover import Mover
from keras_lth.densities import ERK, ByName, Densities
from keras_lth.masks import Masks
from keras_lth.schedules import Duration, Time, Updates
from keras_lth.seeds import seed_of
from keras_lth.selection import keep_counts, uniform
from keras_lth.surgery.roles import Filter

__all__ = ["DSR", "SET", "SNFS", "RigL", "SparseTraining", "StaticSparse"]

Counts = dict[str, int]
Scores = Mapping[str, np.ndarray]


class SparseTraining(Mover):
    """Keep the number of weights of each layer and, at each update, drop some and grow as many.

    A subclass says which grow (`_growth`), and may say how many each layer drops (`_dropped`) and grows (`_grown`).

    Args:
        density: share of the prunable weights that remain, in (0, 1]: `keras_lth.densities.ERK` divides them among the
            layers. Or another rule of `keras_lth.densities`, or a mapping from name or regex to density. None for a
            model that has masks: training begins with these, as it does if they have the wanted counts already.
        fraction: share of the remaining weights of a layer that an update drops, at the beginning.
        decay: "cosine" lets the fraction fall to 0 at ``until``, as half a cosine; "constant".
        every: between two updates; the first is after this time.
        until: no updates at this time or later.
        deviation: grown weights are drawn from a normal distribution with this standard deviation. SET's code uses 0.1,
            RigL 0.
        seed: of the first masks, of random growth, and of the values of grown weights.
        include, exclude, also: which weights, as in `keras_lth.prunable`; the others stay dense.
        verbose: as in `Mover`.
    """

    _loss: surgery.Loss | None = None
    _until = 0

    def __init__(
        self,
        density: float | Densities | Mapping[str, float] | None = 0.1,
        *,
        fraction: float = 0.3,
        decay: str = "cosine",
        every: Time = 100,
        until: Time = "75%",
        deviation: float = 0.0,
        seed: int = 0,
        include: Filter = None,
        exclude: Filter = None,
        also: Filter = None,
        verbose: int = 1,
    ) -> None:
        super().__init__(include=include, exclude=exclude, also=also, verbose=verbose)
        if not 0 < real(fraction, "fraction") <= 1:
            raise ValueError(f"fraction must lie in (0, 1], not {fraction!r}")
        if decay not in ("cosine", "constant"):
            raise ValueError(f'decay must be "cosine" or "constant", not {decay!r}')
        if real(deviation, "deviation") < 0:
            raise ValueError(f"deviation must be at least 0, not {deviation!r}")
        self.deviation = float(deviation)
        self.density: Densities | None
        if isinstance(density, Densities) or density is None:
            self.density = density
        else:
            self.density = ByName(density) if isinstance(density, Mapping) else ERK(density)
        self.fraction, self.decay, self.seed = real(fraction, "fraction"), decay, whole(seed, "seed")
        self.every, self.until = Duration.parse(every), Duration.parse(until)

    # What Mover asks.
    def _plan(self, steps_per_epoch: int | None, epochs: int, masks: Masks) -> Any:
        if self.density is None and masks.remaining == masks.size:
            raise ValueError(f"{self._name}(density=None) begins with the masks of the model, which has none")
        if self.density is not None and masks.remaining < masks.size and not self._fits(masks):
            raise ValueError(
                f"the model already has masks (density {masks.density:.4g}): use {self._name}(density=None) to begin "
                "with them, or keras_lth.unmask(model) first"
            )
        every = max(1, self.every.steps(steps_per_epoch, epochs))
        until = self.until.steps(steps_per_epoch, epochs)
        total = until + 1 if steps_per_epoch is None else steps_per_epoch * epochs
        last = (min(until, total) - 1) // every * every
        if until > total:
            raise ValueError(f"until={self.until} is after the training, which ends at step {total:,}")
        if last < every:
            raise ValueError(
                f"{self._name} would never move a weight: the first update, at step {every:,}, is not before until, "
                f"step {until:,} of {total:,}. Use a smaller every, or a later until"
            )
        self._until = until
        return Updates(every, last, every).in_steps(steps_per_epoch, epochs)

    def _first(self, masks: Masks) -> Masks:
        if self.density is None or self._fits(masks):
            return masks
        return keep_counts({p: uniform(self.seed, p, m.shape) for p, m in masks.items()}, masks, self._wanted(masks))

    def _wanted(self, masks: Masks) -> Counts:
        assert self.density is not None
        return self.density.counts({path: mask.shape for path, mask in masks.items()})

    def _fits(self, masks: Masks) -> bool:
        """Whether a model has as many weights in each layer as are wanted, as after an earlier fit."""
        return {path: _count(mask) for path, mask in masks.items()} == self._wanted(masks)

    def _next(self, step: int, masks: Masks) -> Masks:
        held = surgery.variables(self.model)
        weights = {path: np.abs(held[path].numpy()) for path in masks}
        dropped = self._dropped(self._share(step), weights, masks)
        kept = keep_counts(weights, masks, {path: _count(mask) - dropped[path] for path, mask in masks.items()})
        scores = self._growth(step, masks)
        return kept | keep_counts(scores, ~masks, self._grown(dropped, scores, kept, masks))

    def _changed(self, step: int, before: Masks, after: Masks) -> None:
        if not self.deviation:
            return
        held = surgery.variables(self.model)
        for path, mask in after.items():
            random, grown = np.random.default_rng(seed_of(self.seed, "values", step, path)), mask & ~before[path]
            values = np.array(held[path].numpy())
            values[grown] = random.normal(scale=self.deviation, size=np.count_nonzero(grown))
            held[path].assign(values)

    def _described(self) -> str:
        begin, end, every = (
            Duration.parse(t).amount for t in (self.updates.begin, self.updates.end, self.updates.every)
        )
        how = (
            ""
            if self.updates == _NEVER
            else f"; {self.fraction:.0%} move every {every:,} steps, from {begin:,} to {end:,}"
        )
        return f"{self._density()}{how}"

    # The method.
    def _growth(self, step: int, masks: Masks) -> Scores:
        """Return scores of all weights; the highest outside of ``masks`` grow. Random by default."""
        return {path: uniform(seed_of(self.seed, "grow", step), path, mask.shape) for path, mask in masks.items()}

    def _dropped(self, share: float, weights: Scores, masks: Masks) -> Counts:
        """Return how many weights each layer drops, those of the lowest magnitude."""
        return {path: min(round_half_up(share, _count(mask)), _free(mask)) for path, mask in masks.items()}

    def _grown(self, dropped: Counts, scores: Scores, kept: Masks, masks: Masks) -> Counts:
        """Return how many weights each layer grows; as many as were dropped in all."""
        return dropped

    def _share(self, step: int) -> float:
        part = 0.5 * (1 + math.cos(math.pi * step / self._until)) if self.decay == "cosine" else 1.0
        # As it prints: the count is a function of the printed decimal.
        return round(self.fraction * part, 12)

    def _gradients(self, step: int, masks: Masks, batches: int = 1) -> list[dict[str, np.ndarray]]:
        """Return the dense gradients of the batches from this step on, at the weights of this step."""
        held = surgery.variables(self.model)
        # A stored kernel is whole in another variable at each update.
        if self._loss is None or self._was_stored:
            self._loss = surgery.Loss(self.model, {path: held[path] for path in masks})
        return [self._loss.gradient([_tensors(batch_at(self, step + number))]) for number in range(batches)]

    def _forget(self) -> None:
        super()._forget()
        self._loss, self._until = None, 0


class StaticSparse(SparseTraining):
    """Train with random masks that do not move: the comparison that every other method must win."""

    def __init__(
        self,
        density: float | Densities | Mapping[str, float] | None = 0.1,
        *,
        seed: int = 0,
        include: Filter = None,
        exclude: Filter = None,
        also: Filter = None,
        verbose: int = 1,
    ) -> None:
        super().__init__(density, seed=seed, include=include, exclude=exclude, also=also, verbose=verbose)

    def _plan(self, steps_per_epoch: int | None, epochs: int, masks: Masks) -> Any:
        return _NEVER

    def _next(self, step: int, masks: Masks) -> Masks:
        return masks


class SET(SparseTraining):
    """Drop the lowest magnitudes of each layer and grow as many at random (D. Mocanu et al., 2018).

    The paper drops 30 % after every epoch, without decay: the defaults. It drops that share of the positive and of the
    negative weights; here, as in the thesis, of all.
    """

    def __init__(
        self,
        density: float | Densities | Mapping[str, float] | None = 0.1,
        *,
        fraction: float = 0.3,
        decay: str = "constant",
        every: Time = "1 epoch",
        until: Time = "100%",
        **options: Any,
    ) -> None:
        super().__init__(density, fraction=fraction, decay=decay, every=every, until=until, **options)


class RigL(SparseTraining):
    """Drop the lowest magnitudes of each layer and grow where the dense gradient is largest (U. Evci et al., 2020).

    The gradient is that of the next batch at the weights before the update.
    """

    def _growth(self, step: int, masks: Masks) -> Scores:
        (gradient,) = self._gradients(step, masks)
        return {path: np.abs(array) for path, array in gradient.items()}


class SNFS(SparseTraining):
    """Grow where averaged gradients are largest, more in layers where they are larger (Dettmers and Zettlemoyer, 2019).

    A layer's share of the growth is that of its mean |m| over the weights that it keeps. The paper keeps dense momenta
    in every step; here m is the exponential average of the gradients of the next batches at the weights of the update.

    Args:
        batches: in the average.
        momentum: of the average.
        …: as in `SparseTraining`.
    """

    def __init__(
        self,
        density: float | Densities | Mapping[str, float] | None = 0.1,
        *,
        batches: int = 8,
        momentum: float = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(density, **options)
        self.batches, self.momentum = whole(batches, "batches", 1), real(momentum, "momentum")

    def _growth(self, step: int, masks: Masks) -> Scores:
        found = self._gradients(step, masks, self.batches)
        powers = [self.momentum**number for number in reversed(range(self.batches))]
        return {p: np.abs(sum(w * g[p] for w, g in zip(powers, found, strict=True))) for p in masks}

    def _grown(self, dropped: Counts, scores: Scores, kept: Masks, masks: Masks) -> Counts:
        means = {p: float(np.mean(scores[p][kept[p]])) if kept[p].any() else 0.0 for p in masks}
        return divided(sum(dropped.values()), means, {path: _free(mask) for path, mask in masks.items()})


class DSR(SparseTraining):
    """Drop the lowest magnitudes of the network, grow at random where many remain (H. Mostafa and X. Wang, 2019).

    A layer's share of the growth is that of the weights that it keeps. The paper adapts a threshold until about a
    wanted number falls below it; here that number falls exactly.
    """

    def _dropped(self, share: float, weights: Scores, masks: Masks) -> Counts:
        most = sum(_free(mask) for mask in masks.values())
        rest = masks.remaining - min(round_half_up(share, masks.remaining), most)
        # One weight of each layer stays, so that no layer is lost for good.
        kept = keep_counts(weights, masks, {"": rest}, min_per_layer=1)
        return {path: _count(mask) - _count(kept[path]) for path, mask in masks.items()}

    def _grown(self, dropped: Counts, scores: Scores, kept: Masks, masks: Masks) -> Counts:
        sizes = {path: float(_count(mask)) for path, mask in kept.items()}
        return divided(sum(dropped.values()), sizes, {path: _free(mask) for path, mask in masks.items()})


def divided(total: int, shares: Mapping[str, float], room: Mapping[str, int]) -> Counts:
    """Divide ``total`` in proportion to ``shares``, none above its ``room``: whole parts, then largest remainders.

    Raises:
        ValueError: more than all room.
    """
    if total > sum(room.values()):
        raise ValueError(f"{total:,} weights cannot grow in {sum(room.values()):,} free places")
    found = dict.fromkeys(shares, 0)
    while (left := total - sum(found.values())) > 0:
        open_ = {path: shares[path] for path in shares if found[path] < room[path]}
        norm = sum(open_.values())
        exact = {path: left * (share / norm if norm > 0 else 1 / len(open_)) for path, share in open_.items()}
        parts = {path: min(math.floor(part), room[path] - found[path]) for path, part in exact.items()}
        if not any(parts.values()):
            order = sorted(open_, key=lambda path: math.floor(exact[path]) - exact[path])
            parts = dict.fromkeys(order[:left], 1)
        for path, part in parts.items():
            found[path] += part
    return found


# The masks are chosen at the beginning, and never again.
_NEVER = Updates(0, 0, 1)


def _tensors(batch: Any) -> Any:
    (found,) = surgery.batches(*batch)
    return found


def _count(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))


def _free(mask: np.ndarray) -> int:
    return mask.size - _count(mask)
