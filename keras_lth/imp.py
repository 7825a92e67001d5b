"""Iterative magnitude pruning as a value: what is cut, what a training starts from, and which noise it uses.

Frankle's thesis, Algorithms 1, 2 and 4. A *round* prunes, rewinds and trains; *level* n is the subnetwork after n
rounds, and level 0 is the dense one. A driver (a callback inside ``fit``, or a plan) asks `IMP` at each level, so there
is one definition of a cut, of a start and of a seed. This module needs neither Keras nor TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from keras_lth.arguments import real, round_half_up, whole
from keras_lth.keeping import floors, refuse_below_floor
from keras_lth.masks import Masks
from keras_lth.names import assigned, listed
from keras_lth.rounds import noise_seed
from keras_lth.schedules import Rounding, cut_to, levels
from keras_lth.seeds import seed_of
from keras_lth.selection import keep_counts, select
from keras_lth.structures import Structure, Structured

Fraction = float | Mapping[str, float]
Counts = dict[str, int]
# The name of the single group of weights under a global threshold.
WHOLE = ""


class Noise(NamedTuple):
    """The seeds of a training: data order, augmentation, and the offset of dropout's own seeds (0: unchanged)."""

    order: int = 0
    augment: int = 0
    dropout: int = 0

    @classmethod
    def of(cls, seed: int, number: int = 0) -> Noise:
        """Return the noise of the training with this number; number 0 uses ``seed`` itself."""
        order = noise_seed(seed, number)
        return cls(order, order, number)

    def moved(self, seed: int) -> int:
        """Return the seed that dropout draws with, given that the starting state has ``seed``."""
        return noise_seed(seed, self.dropout)


class Start(NamedTuple):
    """What a training starts from: three independent choices.

    Attributes:
        values: "k": the weights of step k; "trained": the final weights of the level before; "fresh": newly sampled
            ones; "signs": newly sampled magnitudes with the signs of step k (Zhou et al. 2019).
        clock: where the learning-rate schedule and the data order start: "k", "zero", or "end", the lowest rate, for
            fine-tuning "trained" values (Renda et al. 2020).
        slots: of the optimizer: "fresh", with the bias correction restarted; or "k", those of step k.
    """

    values: Literal["k", "trained", "fresh", "signs"] = "k"
    clock: Literal["k", "zero", "end"] = "k"
    slots: Literal["fresh", "k"] = "fresh"

    def check(self) -> None:
        """Raise ``ValueError`` for an unknown choice, or for slots that do not match values and clock."""
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
        k: the step of the dense training to which a round rewinds.
        T: the steps of the dense training.
        rounds: cuts after the dense training; None if ``target_density`` ends them.
        fraction: share of the remaining weights that each cut removes; with ``scope="layer"`` also a mapping from regex
            to share, first match wins.
        target_density: share of the prunable weights that remain at the end; the last cut is shortened to hit it.
        scope: "global": one ranking over the network; "layer": one in each weight.
        criterion: what scores the weights: the name of one of `keras_lth.criteria`, or a function of (model) or of
            (model, x, y) that returns ``{weight path: array}``.
        structure: what is pruned as a unit, as in `select`.
        min_per_layer: the least number (≥ 1) or share (< 1) that remains in each layer, with ``scope="global"``.
        rewind: what a round starts from, a `Start`.
        seed: the seed of the noise.
        compat: "open_lth": count as the public code of the papers does. A cut removes one weight more, and the fraction
            also counts the weights of layers that are never pruned. For comparing levels with published ones.
        ignored: the number of those weights, with ``compat``.

    Raises ``ValueError`` for settings that cannot work; the message says which would.
    """

    k: int = 0
    T: int = 1
    rounds: int | None = None
    fraction: Fraction = 0.2
    target_density: float | None = None
    scope: str = "global"
    criterion: Any = "magnitude"
    structure: Structure = None
    min_per_layer: float | None = None
    rewind: Start = AT_K
    seed: int = 0
    compat: str | None = None
    ignored: int = 0

    def __post_init__(self) -> None:
        self._as_python()
        if not 0 <= self.k < self.T:
            raise ValueError(
                f"k must be a step before the end of the dense training, 0 ≤ k < T = {self.T}, not {self.k}."
            )
        if self.rounds is None and self.target_density is None:
            raise ValueError("Give rounds, target_density, or both.")
        if self.target_density is not None and not 0 < self.target_density < 1:
            raise ValueError(f"target_density must be between 0 and 1 (0.05 keeps 5 %), not {self.target_density!r}.")
        shares = list(self.fraction.values()) if isinstance(self.fraction, Mapping) else [self.fraction]
        # A share of 1 removes everything unless a target stops it, which is one-shot pruning.
        most = 1.0 if self.target_density is not None else np.nextafter(1.0, 0.0)
        if not shares or any(not 0 <= share <= most for share in shares) or not any(shares):
            raise ValueError(
                f"fraction must be between 0 and 1 (0.2 prunes a fifth of the rest), not {self.fraction!r}."
            )
        if self.scope not in ("global", "layer"):
            raise ValueError(f'scope must be "global" or "layer", not {self.scope!r}.')
        if isinstance(self.fraction, Mapping) and self.scope != "layer":
            raise ValueError('Fractions per layer need scope="layer"; scope="global" takes one fraction.')
        if self.min_per_layer is not None:
            floors({}, self.min_per_layer)
            if self.scope == "layer":
                raise ValueError('min_per_layer needs scope="global"; with scope="layer" each layer has its own count.')
        if Structured(self.structure).n_of_m and self.rounds != 1:
            raise ValueError(f"structure={self.structure!r} prunes only once: use rounds=1, not {self.rounds}.")
        if self.compat is not None and (self.compat != "open_lth" or self.scope != "global" or self.structure):
            raise ValueError(
                f'compat must be None, or "open_lth" with scope="global" and structure=None, not {self.compat!r}.'
            )
        self.rewind.check()

    def _as_python(self) -> None:
        """Convert NumPy numbers to Python's, because settings are compared and written as JSON."""
        for name in ("k", "T", "seed"):
            object.__setattr__(self, name, whole(getattr(self, name), name))
        if self.rounds is not None:
            object.__setattr__(self, "rounds", whole(self.rounds, "rounds", 0))
        for name in ("target_density", "min_per_layer"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, real(getattr(self, name), name))
        given = self.fraction
        shares = {key: real(f, "fraction") for key, f in given.items()} if isinstance(given, Mapping) else None
        object.__setattr__(self, "fraction", real(given, "fraction") if shares is None else shares)

    # What a training is.
    def noise(self, level: int) -> Noise:
        """Return the noise of the training of a level; each level has a different sample."""
        return Noise.of(self.seed, level)

    def clock(self, level: int) -> int:
        """Return the step at which the schedule and the data order start in the training of a level."""
        return {"k": self.k, "zero": 0, "end": self.T}[self.rewind.clock] if level else 0

    def end(self, level: int) -> int:
        """Return the step at which the training of a level ends; fine-tuning takes T − k steps, as many as a rewound
        level.
        """
        return self.T + (self.T - self.k) * (self.rewind.clock == "end" and level > 0)

    def start(self, level: int) -> dict[str, Any]:
        """Return what the training of a level ≥ 1 starts from: values, step and slots, and a seed for newly sampled
        values.
        """
        found: dict[str, Any] = {"values": self.rewind.values, "step": self.clock(level), "slots": self.rewind.slots}
        if self.rewind.values in ("fresh", "signs"):
            found["seed"] = seed_of(self.seed, "start", level)
        return found

    # What a cut is.
    def cut(self) -> dict[str, Any]:
        """Return, for JSON, what determines a cut besides scores and masks; `IMP.of_cut` makes an IMP of it again."""
        fraction = dict(self.fraction) if isinstance(self.fraction, Mapping) else self.fraction
        structure = list(self.structure) if isinstance(self.structure, tuple) else self.structure
        return {
            "fraction": fraction,
            "target_density": self.target_density,
            "scope": self.scope,
            "structure": structure,
            "min_per_layer": self.min_per_layer,
            "compat": self.compat,
            "ignored": self.ignored,
        }

    @classmethod
    def of_cut(cls, **cut: Any) -> IMP:
        """Return an IMP that makes this cut; its other settings are arbitrary."""
        structure = cut.get("structure")
        return cls(rounds=1, **{**cut, "structure": tuple(structure) if isinstance(structure, list) else structure})

    def count(self, masks: Masks) -> Counts:
        """Count what remains of ``masks`` after one cut, in units of the structure: per path, or in total under
        `WHOLE`.
        """
        groups = self._groups(masks)
        return cut_to(groups, self._fractions(groups), self._target(self._size(masks)), self._rounded)

    def remaining(self, masks: Masks) -> int:
        """Count what remains in ``masks``, in units of the structure: weights, blocks, neurons or channels."""
        return sum(self._counted(masks).values())

    def counts(self, masks: Masks) -> list[Counts]:
        """Count what remains at each level, from that of ``masks`` to the last.

        Raises ``ValueError`` if the rounds cannot reach the density, or if a cut would no longer remove a weight.
        """
        groups = self._groups(masks)
        if Structured(self.structure).n_of_m:
            scores = {path: np.ones(mask.shape, np.float32) for path, mask in masks.items()}
            return [groups, {WHOLE: select(scores, structure=self.structure, within=masks).remaining}]
        return levels(
            groups,
            self._fractions(groups),
            rounds=self.rounds,
            target_density=self.target_density,
            total=self._size(masks),
            rounded=self._rounded,
        )

    def prune(self, scores: Mapping[str, np.ndarray], masks: Masks) -> Masks:
        """Make one cut: remove the weights with the lowest scores among those that ``masks`` keep.

        Raises ``ValueError`` for missing scores, a NaN, or a cut that would leave nothing.
        """
        if missing := [path for path in masks if path not in scores]:
            raise ValueError(
                f"the criterion gives no scores for {listed(missing)}: it must score every prunable weight."
            )
        if Structured(self.structure).n_of_m:
            return select({path: scores[path] for path in masks}, structure=self.structure, within=masks)
        counts = self.count(masks)
        if sum(counts.values()) < 1:
            raise ValueError(
                f"fraction={self.fraction} would leave none of {masks.remaining:,} weights: use a smaller one."
            )
        return keep_counts(scores, masks, counts, self.min_per_layer, self.structure)

    def check(self, first: Masks, *, levels: str | None = None) -> None:
        """Raise ``ValueError`` if the cuts from ``first`` on would empty a layer; the message says what would work.

        ``levels`` is what a caller without ``target_density`` calls its number of rounds.

        With ``scope="global"`` the cuts fail if they leave fewer weights than layers, or than ``min_per_layer`` needs;
        with ``scope="layer"``, if they leave none in some layer.
        """
        if Structured(self.structure).n_of_m:
            return
        self._fractions(self._groups(first))  # a pattern that matches no layer is an error of its own
        there, size = self._counted(first), self._size(first)
        layers = sum(count > 0 for count in there.values())
        asked = f"target_density={self.target_density}"
        fewer = ""
        if self.target_density is None:
            asked = f"{levels or 'rounds'}={self.rounds} at fraction={self.fraction}"
            fewer = f"{levels or 'rounds'}={self._fine(first)} or fewer"
        last = self._last(first)
        if last is not None and self.min_per_layer is not None:
            floor = floors(self._counted(Masks.ones(first)), self.min_per_layer)
            least = {path: min(there[path], floor[path]) for path in there}
            refuse_below_floor(sum(last.values()), least, self.min_per_layer)
        if last is None or sum(last.values()) < layers or self._emptied(last, there):
            left = "nothing" if last is None else str(sum(last.values()))
            empty = [] if last is None else self._emptied(last, there)
            where = f", none in {listed(empty)}" if empty else ""
            more = "" if levels else f"target_density={layers / size:.2g} or more"
            raise ValueError(
                f"{asked} would leave {left} of {size:,} weights for {layers} layers{where}, and a layer "
                f"without weights blocks the signal. Use {', or '.join(filter(None, (fewer, more)))}."
            )

    def _fine(self, first: Masks) -> int:
        """The number of rounds that leave each layer a weight."""
        there = self._counted(first)
        layers = sum(count > 0 for count in there.values())
        for rounds in range(1, (self.rounds or 0) + 1):
            last = replace(self, rounds=rounds)._last(first)
            if last is None or sum(last.values()) < layers or self._emptied(last, there):
                return rounds - 1
        return self.rounds or 0

    def _last(self, first: Masks) -> Counts | None:
        """What remains at the last level; None if that level cannot be reached because nothing would be left to cut."""
        try:
            return self.counts(first)[-1]
        except ValueError:
            if self.target_density is not None:
                raise
            return None

    @staticmethod
    def _emptied(last: Counts, there: Counts) -> list[str]:
        return [path for path, count in last.items() if count == 0 and there.get(path, 0) > 0]

    def _counted(self, masks: Masks) -> Counts:
        structured = Structured(self.structure)
        return {path: int(structured.count(mask)) for path, mask in masks.items()}

    def _groups(self, masks: Masks) -> Counts:
        remaining = self._counted(masks)
        return remaining if self.scope == "layer" else {WHOLE: self.remaining(masks)}

    def _size(self, masks: Masks) -> int:
        return self.remaining(Masks.ones(masks))

    @property
    def _rounded(self) -> Rounding:
        """How many weights a cut of a share removes. open_lth uses ⌈share · n⌉ + 1."""
        if self.compat is None:
            return round_half_up
        return lambda share, n: min(n, math.ceil(round(share * (n + self.ignored), 6)) + 1)

    def _target(self, size: int) -> int | None:
        return None if self.target_density is None else round_half_up(self.target_density, size)

    def _fractions(self, groups: Mapping[str, int]) -> dict[str, float]:
        if not isinstance(self.fraction, Mapping):
            return dict.fromkeys(groups, self.fraction)
        return assigned(self.fraction, groups, "fraction", among=groups)


def at_least(score: float, dense: float, *, less: bool = False) -> bool:
    """Judge whether a network matches: it is at least as good as its own dense network, without a margin (thesis 3.2).

    `IMPCallback`, plans and reports all use this rule. ``less``: a lower score is better. NaN never matches.
    """
    return bool(score <= dense if less else score >= dense)
