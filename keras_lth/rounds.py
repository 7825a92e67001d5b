"""Rounds of training from a rewinding point: the order of events, as a pure state machine without Keras.

Iterative magnitude pruning (thesis, Algorithms 1, 2 and 4) and instability analysis (Algorithm 3) follow the same
steps: train 0 → T and save the state of step k; then rewind and train k → T again, as often as requested. They differ
in what happens between two trainings. A driver (a callback inside ``fit``, or a training loop) asks
``Rounds.action(position)`` what to do, does it, and continues at ``Rounds.after(position)``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from keras_lth.seeds import seed_of

Span = Literal["remaining", "restart"]
# Steps of an epoch whose number of batches is not known yet; the driver learns it at the end of the first.
UNKNOWN = 1 << 40


class Action(enum.Enum):
    """What to do next at a position."""

    CAPTURE = "keep the state of step k"
    TRAIN = "train up to stop(position)"
    END_EPOCH = "end of an epoch: validate"
    PRUNE = "a training is over, another follows: prune (or compare)"
    REWIND = "rewind to the state of step k"
    DONE = "the last training is over"


@dataclass(frozen=True)
class Position:
    """Where a run is: the training (0 is the dense one), the step within 0 … T, and what was done at that step."""

    round: int = 0
    step: int = 0
    captured: bool = False
    ended: bool = False
    pruned: bool = False


@dataclass(frozen=True)
class Rounds:
    """``rounds + 1`` trainings: the first of ``epochs`` epochs from step 0, the others from the state of step ``k``.

    ``span="remaining"`` trains the others from step k to T as in the thesis (4.1.1), so their first epoch is the rest
    of the epoch that contains step k. ``"restart"`` trains them T steps with the schedule from step 0 (4.1.2).
    """

    rounds: int
    epochs: int
    steps_per_epoch: int
    rewind_step: int = 0
    span: Span = "remaining"

    def __post_init__(self) -> None:
        if self.rounds < 0 or self.epochs < 1 or self.steps_per_epoch < 1:
            raise ValueError(f"Use rounds ≥ 0, epochs ≥ 1 and steps_per_epoch ≥ 1, not {self}.")
        if self.span not in ("remaining", "restart"):
            raise ValueError(f'span must be "remaining" or "restart", not {self.span!r}.')
        if not 0 <= self.rewind_step < self.total_steps:
            raise ValueError(
                f"rewind_to is step {self.rewind_step}, but a training has {self.total_steps} steps "
                f"({self.epochs} epochs of {self.steps_per_epoch}): choose a step before {self.total_steps}."
            )

    @property
    def total_steps(self) -> int:
        """Return T, the number of steps of the first training."""
        return self.epochs * self.steps_per_epoch

    def start(self, round: int) -> int:
        """Return the step at which training ``round`` begins."""
        return self.rewind_step if round and self.span == "remaining" else 0

    def epochs_of(self, round: int) -> int:
        """Return the number of epochs of training ``round``, counting a partial one."""
        return self.epochs - self.start(round) // self.steps_per_epoch

    @property
    def total_epochs(self) -> int:
        """Return the number of epochs of all trainings together: the minimum for ``fit(epochs=…)``."""
        return sum(self.epochs_of(r) for r in range(self.rounds + 1))

    def action(self, at: Position) -> Action:
        """Return what to do at this position."""
        if at.round == 0 and at.step == self.rewind_step and not at.captured:
            return Action.CAPTURE
        if at.step % self.steps_per_epoch == 0 and at.step > self.start(at.round) and not at.ended:
            return Action.END_EPOCH
        if at.step < self.total_steps:
            return Action.TRAIN
        if at.round == self.rounds:
            return Action.DONE
        return Action.REWIND if at.pruned else Action.PRUNE

    def stop(self, at: Position) -> int:
        """Return the next step at which training pauses: step k, or the end of the epoch."""
        end = (at.step // self.steps_per_epoch + 1) * self.steps_per_epoch
        if at.round == 0 and not at.captured and at.step < self.rewind_step:
            return min(end, self.rewind_step)
        return end

    def after(self, at: Position) -> Position:
        """Return the position after ``action(at)`` is done."""
        match self.action(at):
            case Action.CAPTURE:
                return replace(at, captured=True)
            case Action.END_EPOCH:
                return replace(at, ended=True)
            case Action.TRAIN:
                return replace(at, step=self.stop(at), ended=False)
            case Action.PRUNE:
                return replace(at, pruned=True)
            case Action.REWIND:
                return Position(at.round + 1, self.start(at.round + 1), captured=True)
            case _:
                return at

    def cut_short(self, at: Position) -> Position:
        """Return the position when a training ends early (EarlyStopping) after an epoch: the same as at step T."""
        return replace(at, step=self.total_steps, ended=True)

    def walk(self) -> Iterator[tuple[Position, Action]]:
        """Yield every position and its action, from the beginning to DONE, inclusive."""
        at = Position()
        while True:
            yield at, (action := self.action(at))
            if action is Action.DONE:
                return
            at = self.after(at)


def noise_seed(seed: int, round: int) -> int:
    """Return the seed of training ``round``: ``seed`` itself for the first, a stable hash of both for the others."""
    if round == 0:
        return seed
    return seed_of(seed, round)


def nearest_visible(step: int, steps_per_epoch: int, steps_per_execution: int) -> tuple[int, int]:
    """Return the visible steps around ``step``: hooks run every ``steps_per_execution`` steps and at the end of an
    epoch.
    """
    epoch, inside = divmod(step, steps_per_epoch)
    below = inside - inside % steps_per_execution
    above = below if below == inside else min(below + steps_per_execution, steps_per_epoch)
    return epoch * steps_per_epoch + below, epoch * steps_per_epoch + above
