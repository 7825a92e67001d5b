"""What IMP prints: a line at the start, a line a pruning, a line at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keras_lth.callbacks.imp_plan import IMPPlan
from keras_lth.callbacks.levels import Level, first_name
from keras_lth.masks import Masks
from keras_lth.rounds import UNKNOWN, Rounds


def introduction(
    plan: IMPPlan,
    machine: Rounds,
    keep: str,
    first: Masks,
    last: Mapping[str, int],
    epochs: int,
    trained: bool,
    monitor: str,
) -> str:
    """What was chosen, in one line; ``trained``: whether the model was trained before."""
    start = "the weights it has now" if trained else "initialisation"
    back = start if machine.rewind_step == 0 else f"step {machine.rewind_step}"
    if machine.rewind_step > 0 and machine.steps_per_epoch != UNKNOWN:
        back += f" (epoch {machine.rewind_step / machine.steps_per_epoch:.3g})"
    verb = "rewinding to" if keep == "rewind" else "keeping trained weights, the schedule back to"
    dense = "dense" if first.remaining == first.size else f"first (density {first.density:.1%})"
    remain = sum(last.values())
    return (
        f"IMP: {_count(machine.epochs, dense + ' epoch')}, then {_count(machine.rounds, 'round')}, "
        f"{plan.scope} magnitude, {verb} {back}: {first.remaining:,} ⇒ {remain:,} weights "
        f"(density {remain / first.size:.1%}); {machine.total_epochs} of fit's {epochs} epochs"
        f"{f'; judged by {monitor}' if monitor else ''}."
    )


def pruned(history: Sequence[Level], after: Masks, *, table: bool) -> str:
    """Before ⇒ after of one pruning, and how the training before it did."""
    level, first = history[-1], history[0]
    text = (
        f"IMP round {level.round + 1}: {level.remaining:,} ⇒ {after.remaining:,} of {after.size:,} weights "
        f"(density {after.density:.1%}); {level.monitor} was {level.score:.4f}"
    )
    if level.round:
        text += f" ({first_name(history)} {first.score:.4f}{', matching' if level.matching else ''})"
    text += "" if level.connected else "; its output does not depend on its input: no path is left"
    return text + (f"\n{after.summary()}" if table else "")


def ended(history: Sequence[Level]) -> str:
    """Where the run arrived, and its sparsest matching level."""
    last = history[-1]
    matching = max((level for level in history if level.matching), key=lambda level: level.round, default=history[0])
    best = f"; sparsest matching: round {matching.round}, density {matching.density:.1%}" if matching.round else ""
    return (
        f"IMP: {_count(last.round, 'round')} done; density {last.density:.1%}, {last.monitor} {last.score:.4f} "
        f"({first_name(history)} {history[0].score:.4f}){'' if last.connected else ', disconnected'}{best}."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
