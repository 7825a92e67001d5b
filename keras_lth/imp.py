"""Iterative magnitude pruning as a value: what is cut, what a training starts from, and under which noise.

Frankle's thesis, Algorithms 1, 2 and 4. A *round* prunes, rewinds and trains; *level* n is the subnetwork after n
rounds, level 0 the dense one. A driver, such as a callback inside ``fit`` or a plan, asks `IMP` at each level, so there
is one definition of a cut, of a start and of a seed. No Keras and no TensorFlow here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from keras_lth.masks import Masks
from keras_lth.names import assigned
from keras_lth.rounds import noise_seed
from keras_lth.schedules import cut_to, levels
from keras_lth.seeds import seed_of
from keras_lth.selection import round_half_up, select
from keras_lth.structures import Structure, Structured

Fraction = float | Mapping[str, float]
Counts = dict[str, int]
# A threshold over the whole network has one group of weights, of this name.
WHOLE = ""


class Noise(NamedTuple):
    """The seeds of a training: data order, augmentation, and what dropout's own seeds are moved by (0: not at all)."""

    order: int = 0
    augment: int = 0
    dropout: int = 0

    @classmethod
    def of(cls, seed: int, number: int = 0) -> Noise:
        """The noise of the training with this number; number 0 takes ``seed`` itself."""
        order = noise_seed(seed, number)
        return cls(order, order, number)

    def moved(self, seed: int) -> int:
        """The seed that dropout draws with, where the state to start from has ``seed``."""
        return noise_seed(seed, self.dropout)


class Start(NamedTuple):
    """What a training starts from: three choices that do not depend on each other.

    Attributes:
        values: "k": the weights of step k; "trained": those that the level before ended with; "fresh": newly sampled
            ones; "signs": newly sampled magnitudes under the signs of step k (Zhou et al. 2019).
        clock: where the learning-rate schedule and the data order start: "k", "zero", or "end", the lowest rate, at
            which "trained" values are fine-tuned (Renda et al. 2020).
        slots: of the optimizer: "fresh", with the bias correction restarted; or "k", those of step k.
    """

    values: Literal["k", "trained", "fresh", "signs"] = "k"
    clock: Literal["k", "zero", "end"] = "k"
    slots: Literal["fresh", "k"] = "fresh"

    def check(self) -> None:
        """Raise ``ValueError`` for a choice that does not exist, or slots that do not belong to the other two."""
        for name, given, known in (
            ("values", self.values, ("k", "trained", "fresh", "signs")),
            ("clock", self.clock, ("k", "zero", "end")),
            ("slots", self.slots, ("fresh", "k")),
        ):
            if given not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {given!r}.")
        if self.slots == "k" and (self.values, self.clock) != ("k", "k"):
            raise ValueError(
                f'slots="k" belong to the weights and the clock of step k, not to values={self.values!r} and '
                f'clock={self.clock!r}: use slots="fresh".'
            )


AT_K = Start()


@dataclass(frozen=True)
class IMP:
    """Iterative magnitude pruning, or pruning by another criterion, with rewinding.

    Args:
        k: the step of the dense training that is rewound to.
        T: the steps of the dense training.
        rounds: cuts after the dense training; None where ``target_density`` ends them.
        fraction: share of the remaining weights that a cut removes; with ``scope="layer"`` also a mapping from regex to
            share, first match wins.
        target_density: share of the prunable weights that remain at the end; the last cut is shortened to hit it.
        scope: "global": one ranking over the network; "layer": one in each weight.
        criterion: the name of what scores the weights.
        structure: what is cut as one, as `select` takes it.
        rewind: what a round starts from.
        seed: of the noise.

    Raises ``ValueError`` for what cannot work, with what would.
    """

    k: int = 0
    T: int = 1
    rounds: int | None = None
    fraction: Fraction = 0.2
    target_density: float | None = None
    scope: str = "global"
    criterion: str = "magnitude"
    structure: Structure = None
    rewind: Start = AT_K
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.k < self.T:
            raise ValueError(f"k is a step before the end of the dense training: 0 ≤ k < T = {self.T}, not {self.k}.")
        if self.rounds is None and self.target_density is None:
            raise ValueError("Give rounds, target_density, or both.")
        if self.rounds is not None and (not _whole(self.rounds) or self.rounds < 0):
            raise ValueError(f"rounds is a whole number ≥ 0, not {self.rounds!r}.")
        if self.target_density is not None and not 0 < self.target_density < 1:
            raise ValueError(f"target_density lies between 0 and 1 (0.05 keeps 5 %), not {self.target_density!r}.")
        shares = list(self.fraction.values()) if isinstance(self.fraction, Mapping) else [self.fraction]
        # A share of 1 removes everything: only a target can stop it, which is pruning in one shot.
        most = 1.0 if self.target_density is not None else np.nextafter(1.0, 0.0)
        if not shares or any(not 0 <= share <= most for share in shares) or not any(shares):
            raise ValueError(f"fraction lies between 0 and 1 (0.2 removes a fifth of the rest), not {self.fraction!r}.")
        if self.scope not in ("global", "layer"):
            raise ValueError(f'scope is "global" or "layer", not {self.scope!r}.')
        if isinstance(self.fraction, Mapping) and self.scope != "layer":
            raise ValueError('A fraction for each layer needs scope="layer": one global threshold has one fraction.')
        if Structured(self.structure).n_of_m and self.rounds != 1:
            raise ValueError(f"structure={self.structure!r} is one cut: use rounds=1, not {self.rounds}.")
        self.rewind.check()

    # What a training is.
    def noise(self, level: int) -> Noise:
        """The noise under which a level is trained: another sample of it for each level."""
        return Noise.of(self.seed, level)

    def clock(self, level: int) -> int:
        """The step at which the training of a level starts, of the schedule and of the data order."""
        return {"k": self.k, "zero": 0, "end": self.T}[self.rewind.clock] if level else 0

    def end(self, level: int) -> int:
        """The step at which it ends; a level that is fine-tuned takes as many steps as a rewound one, T − k."""
        return self.T + (self.T - self.k) * (self.rewind.clock == "end" and level > 0)

    def start(self, level: int) -> dict[str, Any]:
        """What the training of a level ≥ 1 starts from: values, step and slots; with newly sampled values, a seed."""
        found: dict[str, Any] = {"values": self.rewind.values, "step": self.clock(level), "slots": self.rewind.slots}
        if self.rewind.values in ("fresh", "signs"):
            found["seed"] = seed_of(self.seed, "start", level)
        return found

    # What a cut is.
    def cut(self) -> dict[str, Any]:
        """What determines a cut beside scores and masks, for JSON; `IMP.of_cut` makes it an IMP again."""
        fraction = dict(self.fraction) if isinstance(self.fraction, Mapping) else self.fraction
        structure = list(self.structure) if isinstance(self.structure, tuple) else self.structure
        return {
            "fraction": fraction,
            "target_density": self.target_density,
            "scope": self.scope,
            "structure": structure,
        }

    @classmethod
    def of_cut(cls, **cut: Any) -> IMP:
        """The IMP that makes this cut; the rest of it is arbitrary."""
        structure = cut.get("structure")
        return cls(rounds=1, **{**cut, "structure": tuple(structure) if isinstance(structure, list) else structure})

    def count(self, masks: Masks) -> Counts:
        """What remains of ``masks`` after one cut: a number for each path, or one under `WHOLE`; in units of the
        structure."""
        groups = self._groups(masks)
        return cut_to(groups, self._fractions(groups), self._target(self._size(masks)))

    def counts(self, masks: Masks) -> list[Counts]:
        """What remains at each level from that of ``masks`` on, the last included.

        Raises ``ValueError`` where the rounds cannot reach the density, or the cuts would no longer remove a weight.
        """
        groups = self._groups(masks)
        return levels(
            groups,
            self._fractions(groups),
            rounds=self.rounds,
            target_density=self.target_density,
            total=self._size(masks),
        )

    def prune(self, scores: Mapping[str, np.ndarray], masks: Masks) -> Masks:
        """One cut: of the weights that ``masks`` keep, those of lowest score go.

        Raises ``ValueError`` for scores of other weights, a NaN, or a cut that would leave nothing.
        """
        if Structured(self.structure).n_of_m:
            return select(scores, structure=self.structure, within=masks)
        counts = self.count(masks)
        if sum(counts.values()) < 1:
            raise ValueError(f"A cut of {self.fraction} would leave none of {masks.remaining:,} weights.")
        if self.scope == "global":
            return select(scores, k=counts[WHOLE], within=masks, structure=self.structure)
        kept: dict[str, np.ndarray] = {}
        for path in masks:
            mine = Masks({path: masks[path]})
            kept |= select({path: scores[path]}, k=counts[path], within=mine, structure=self.structure)
        return Masks(kept)

    def _groups(self, masks: Masks) -> Counts:
        structured = Structured(self.structure)
        remaining = {path: int(structured.count(mask)) for path, mask in masks.items()}
        return remaining if self.scope == "layer" else {WHOLE: sum(remaining.values())}

    def _size(self, masks: Masks) -> int:
        structured = Structured(self.structure)
        return sum(int(structured.count(np.ones_like(mask))) for mask in masks.values())

    def _target(self, size: int) -> int | None:
        return None if self.target_density is None else round_half_up(self.target_density, size)

    def _fractions(self, groups: Mapping[str, int]) -> dict[str, float]:
        if not isinstance(self.fraction, Mapping):
            return dict.fromkeys(groups, self.fraction)
        return assigned(self.fraction, groups, "fraction", among=groups)


def at_least(score: float, dense: float, *, less: bool = False) -> bool:
    """Judge whether a network matches: it is as good as its own dense network, without a margin (thesis 3.2).

    The one rule of `IMPCallback`, of plans and of reports. ``less``: a lower score is better. NaN never matches.
    """
    return bool(score <= dense if less else score >= dense)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
