"""What IMP will do, fixed before it begins: rounds, epochs a round, and the weights that remain at each level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_lth.arguments import real, whole
from keras_lth.keeping import floors, refuse_below_floor
from keras_lth.masks import Masks
from keras_lth.names import assigned
from keras_lth.rounds import UNKNOWN, Rounds, Span
from keras_lth.schedules import Duration, levels

# The default goes no lower than this many trainings: 20 cuts of 20 % leave 1.2 % of the weights.
_MOST_TRAININGS = 21
START = Duration(0, "steps")


@dataclass(frozen=True)
class IMPPlan:
    """The arguments of ``IMPCallback`` that fix its course, still without the epochs of a ``fit``."""

    rounds: int | None = None
    epochs_per_round: int | None = None
    target_density: float | None = None
    fraction: float | Mapping[str, float] = 0.2
    rewind_to: Duration = START
    span: Span = "remaining"
    scope: str = "global"
    one_shot: bool = False
    min_per_layer: float | None = None

    def __post_init__(self) -> None:
        # Numbers of NumPy and arrays of no dimension become Python's: settings are compared and written as JSON.
        for name in ("rounds", "epochs_per_round"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(getattr(self, name), name, least=1))
        for name in ("target_density", "min_per_layer"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, real(getattr(self, name), name))
        if self.target_density is not None and not 0 < self.target_density < 1:
            raise ValueError(f"target_density lies between 0 and 1 (0.05 keeps 5 %), not {self.target_density!r}.")
        if isinstance(self.fraction, Mapping):
            object.__setattr__(self, "fraction", {key: real(f, "fraction") for key, f in self.fraction.items()})
        else:
            object.__setattr__(self, "fraction", real(self.fraction, "fraction"))
        fractions = self.fraction.values() if isinstance(self.fraction, Mapping) else [self.fraction]
        if any(not 0 <= f < 1 for f in fractions) or not any(f > 0 for f in fractions):
            raise ValueError(f"fraction lies between 0 and 1 (0.2 prunes a fifth of the rest), not {self.fraction!r}.")
        if self.min_per_layer is not None:
            floors({}, self.min_per_layer)
            if self.scope == "layer":
                raise ValueError('min_per_layer is for scope="global": with "layer" each layer has its own number.')
        if self.scope not in ("global", "layer"):
            raise ValueError(f'scope is "global" or "layer", not {self.scope!r}.')
        if isinstance(self.fraction, Mapping) and self.scope != "layer":
            raise ValueError('Fractions per layer need scope="layer": one global threshold has one fraction.')
        if self.one_shot and self.rounds not in (None, 1):
            raise ValueError(f"one_shot prunes once: rounds={self.rounds} contradicts it.")

    def counts(self, remaining: Mapping[str, int], total: int, rounds: int | None = None) -> list[dict[str, int]]:
        """Weights that remain at each level, a list of {path: count}, or of {"": count} for the global scope.

        ``remaining``: the weights at level 0, a number per path; ``total``: all prunable weights, of which densities
        are shares.
        """
        groups = dict(remaining) if self.scope == "layer" else {"": sum(remaining.values())}
        if isinstance(self.fraction, Mapping):
            fraction = assigned(self.fraction, groups, "fraction", among=groups)
        else:
            fraction = dict.fromkeys(groups, self.fraction)
        if self.one_shot and self.target_density is not None:
            fraction = dict.fromkeys(groups, 1.0)
        return levels(groups, fraction, rounds=rounds, target_density=self.target_density, total=total)

    def refuse_too_few(self, first: Masks, last: Mapping[str, int]) -> None:
        """Raise ``ValueError`` where the last level cannot give each layer of ``first`` its ``min_per_layer``."""
        if self.min_per_layer is not None:
            floor = floors({path: mask.size for path, mask in first.items()}, self.min_per_layer)
            there = {row.path: min(row.remaining, floor[row.path]) for row in first.table()}
            refuse_below_floor(sum(last.values()), there, self.min_per_layer)

    def choose(self, epochs: int, steps_per_epoch: int, remaining: Mapping[str, int], total: int) -> Rounds:
        """The rounds that ``fit(epochs=epochs)`` holds.

        Any one of rounds, epochs per round and target density fixes the others; none of them: about as many rounds as
        epochs in each. Raises ``ValueError`` when the epochs cannot hold what was asked, with numbers that would work.
        """
        if epochs < 2:
            raise ValueError(f"IMP needs at least 2 epochs, one dense and one in a round; fit has {epochs}.")
        rounds, per_round = (1 if self.one_shot else self.rounds), self.epochs_per_round
        if self.target_density is not None:
            rounds = len(self.counts(remaining, total, rounds)) - 1
            if rounds == 0:
                raise ValueError(f"The network is at target_density={self.target_density} already: nothing to prune.")
        if rounds is None:
            fits = epochs // per_round if per_round else min(math.isqrt(epochs), _MOST_TRAININGS)
            rounds = max(fits, 1 if per_round else 2) - 1
            if rounds < 1:
                raise ValueError(
                    f"epochs_per_round={per_round} and fit(epochs={epochs}) leave no room for a round after the dense "
                    f"training: fit(epochs={2 * (per_round or 1)}), or epochs_per_round={epochs // 2}."
                )
        if per_round is None:
            per_round = epochs // (rounds + 1)
            if per_round < 1:
                raise ValueError(
                    f"{rounds} rounds and the dense training need at least {rounds + 1} epochs, fit has {epochs}: "
                    f"fit(epochs={rounds + 1}) or more, or rounds={epochs - 1}."
                )
        self._leave_some(remaining, total, rounds)
        step = self.rewind_to.steps(None if steps_per_epoch >= UNKNOWN else steps_per_epoch, per_round)
        out = Rounds(rounds, per_round, steps_per_epoch, step, self.span)
        if out.total_epochs > epochs:
            fewer = [f"rounds={r}" for r in range(rounds - 1, 0, -1) if _needs(out, r, per_round) <= epochs][:1]
            shorter = [
                f"epochs_per_round={e}"
                for e in range(per_round - 1, 0, -1)
                if e * steps_per_epoch > step and _needs(out, rounds, e) <= epochs
            ][:1]
            raise ValueError(
                f"{rounds} rounds of {per_round} epochs after the dense training need {out.total_epochs} epochs, "
                f"fit has {epochs}: " + ", or ".join([f"fit(epochs={out.total_epochs})", *fewer, *shorter]) + "."
            )
        return out

    def _leave_some(self, remaining: Mapping[str, int], total: int, rounds: int) -> None:
        """Refuse a plan that leaves fewer weights than layers: some would pass on nothing."""
        last = self.counts(remaining, total, rounds)[-1]
        left, layers = sum(last.values()), sum(count > 0 for count in remaining.values())
        empty = [path for path, count in last.items() if count == 0 and remaining.get(path, 0) > 0]
        if left >= layers and not empty:
            return
        what = (
            f"target_density={self.target_density}"
            if self.target_density is not None
            else f"rounds={rounds} at fraction={self.fraction}"
        )
        where = f", none in {', '.join(empty[:3])}" if empty else ""
        raise ValueError(
            f"{what} would leave {left} of {total} weights for {layers} layers{where}: a layer without a weight passes "
            f"on nothing. Keep at least a weight for each layer: fewer rounds, or target_density={layers / total:.2g} "
            f"or more."
        )

    def config(self, machine: Rounds) -> dict[str, Any]:
        """What must agree between a run and the one that continues it, for JSON. The number of rounds may grow."""
        return {
            "method": "IMP",
            "epochs_per_round": machine.epochs,
            "steps_per_epoch": None if machine.steps_per_epoch >= UNKNOWN else machine.steps_per_epoch,
            "rewind_step": machine.rewind_step,
            "fraction": dict(self.fraction) if isinstance(self.fraction, Mapping) else self.fraction,
            "span": machine.span,
            "scope": self.scope,
            "one_shot": self.one_shot,
            **({} if self.min_per_layer is None else {"min_per_layer": self.min_per_layer}),
        }


def _needs(like: Rounds, rounds: int, epochs: int) -> int:
    return Rounds(rounds, epochs, like.steps_per_epoch, like.rewind_step, like.span).total_epochs
