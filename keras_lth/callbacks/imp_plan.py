"""What IMP will do in a `fit`, fixed before it begins: the number of rounds, and the epochs in each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from keras_lth.arguments import whole
from keras_lth.imp import AT_K, IMP, Start
from keras_lth.masks import Masks
from keras_lth.rounds import UNKNOWN, Rounds
from keras_lth.schedules import Duration
from keras_lth.structures import Structure, Structured

# The default has at most this many trainings: 20 cuts of 20 % leave 1.2 % of the weights.
_MOST_TRAININGS = 21
START = Duration(0, "steps")


@dataclass(frozen=True)
class IMPPlan:
    """The arguments of ``IMPCallback`` that determine its course, before the epochs of a ``fit`` are known.

    ``imp`` is the algorithm. Its k and T, and its rounds if not given, are those of the fit that `choose` saw.
    """

    rounds: int | None = None
    epochs_per_round: int | None = None
    target_density: float | None = None
    fraction: float | Mapping[str, float] = 0.2
    rewind_to: Duration = START
    scope: str = "global"
    one_shot: bool = False
    min_per_layer: float | None = None
    criterion: Any = "magnitude"
    structure: Structure = None
    rewind: Start = AT_K

    def __post_init__(self) -> None:
        for name in ("rounds", "epochs_per_round"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(getattr(self, name), name, least=1))
        if self.one_shot and self.rounds not in (None, 1):
            raise ValueError(f"one_shot prunes once, but rounds={self.rounds}: omit rounds.")
        self.imp()

    def imp(self, machine: Rounds | None = None, seed: int = 0) -> IMP:
        """Return the algorithm for the rounds of a fit."""
        rounds, target = (1 if self.one_shot else self.rounds), self.target_density
        if machine is not None:
            rounds = machine.rounds
        elif rounds is None and target is None:
            rounds = 1
        return IMP(
            k=0 if machine is None else machine.rewind_step,
            T=1 if machine is None else machine.total_steps,
            rounds=rounds,
            fraction=1.0 if self.one_shot and target is not None else self.fraction,
            target_density=target,
            scope=self.scope,
            criterion=self.criterion,
            structure=self.structure,
            min_per_layer=self.min_per_layer,
            rewind=self.rewind,
            seed=seed,
        )

    def choose(self, epochs: int, steps_per_epoch: int, first: Masks) -> Rounds:
        """Choose the rounds that fit into ``fit(epochs=epochs)``, starting from the masks ``first``.

        Any one of rounds, epochs per round and target density fixes the others; without any, there are about as many
        rounds as epochs in each. Raises ``ValueError`` if the epochs do not suffice, with numbers that would.
        """
        if epochs < 2:
            raise ValueError(f"IMP needs at least 2 epochs, one dense and one in a round, but fit has {epochs}.")
        once = self.one_shot or Structured(self.structure).n_of_m
        rounds, per_round = (1 if once else self.rounds), self.epochs_per_round
        if self.target_density is not None:
            rounds = len(self.imp().counts(first)) - 1
            if rounds == 0:
                raise ValueError(f"The network already has target_density={self.target_density}: use a lower one.")
        if rounds is None:
            fits = epochs // per_round if per_round else min(math.isqrt(epochs), _MOST_TRAININGS)
            rounds = max(fits, 1 if per_round else 2) - 1
            if rounds < 1:
                raise ValueError(
                    f"epochs_per_round={per_round} and fit(epochs={epochs}) leave no epochs for a round after the "
                    "dense "
                    f"training: use fit(epochs={2 * (per_round or 1)}), or epochs_per_round={epochs // 2}."
                )
        if per_round is None:
            per_round = epochs // (rounds + 1)
            if per_round < 1:
                raise ValueError(
                    f"{rounds} rounds and the dense training need at least {rounds + 1} epochs, but fit has {epochs}: "
                    f"use fit(epochs={rounds + 1}) or more, or rounds={epochs - 1}."
                )
        replace(self.imp(), rounds=rounds).check(first)
        step = self.rewind_to.steps(None if steps_per_epoch >= UNKNOWN else steps_per_epoch, per_round)
        out = Rounds(
            rounds, per_round, steps_per_epoch, step, "restart" if self.rewind.clock == "zero" else "remaining"
        )
        if out.total_epochs > epochs:
            fewer = [f"rounds={r}" for r in range(rounds - 1, 0, -1) if _needs(out, r, per_round) <= epochs][:1]
            shorter = [
                f"epochs_per_round={e}"
                for e in range(per_round - 1, 0, -1)
                if e * steps_per_epoch > step and _needs(out, rounds, e) <= epochs
            ][:1]
            raise ValueError(
                f"{rounds} rounds of {per_round} epochs after the dense training need {out.total_epochs} epochs, "
                f"but fit has {epochs}: use "
                + ", or ".join([f"fit(epochs={out.total_epochs})", *fewer, *shorter])
                + "."
            )
        return out


def _needs(like: Rounds, rounds: int, epochs: int) -> int:
    return Rounds(rounds, epochs, like.steps_per_epoch, like.rewind_step, like.span).total_epochs
