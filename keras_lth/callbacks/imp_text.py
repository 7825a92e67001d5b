"""The lines that IMP prints: one at the start, one per pruning, one at the end."""

from __future__ import annotations

from collections.abc import Sequence

from keras_lth.callbacks.levels import Level, first_name, sparsest_matching
from keras_lth.criteria import described
from keras_lth.imp import IMP
from keras_lth.masks import Masks
from keras_lth.rounds import UNKNOWN, Rounds
from keras_lth.structures import Structured


def introduction(method: IMP, machine: Rounds, first: Masks, epochs: int, trained: bool, monitor: str) -> str:
    """Describe the chosen settings in one line; ``trained``: whether the model was trained before."""
    start = "its current weights" if trained else "initialisation"
    back = start if machine.rewind_step == 0 else f"step {machine.rewind_step}"
    if machine.rewind_step > 0 and machine.steps_per_epoch != UNKNOWN:
        back += f" (epoch {machine.rewind_step / machine.steps_per_epoch:.3g})"
    trained_stay = method.rewind.values == "trained"
    verb = "keeping trained weights, rewinding the schedule to" if trained_stay else "rewinding to"
    dense = "dense" if first.remaining == first.size else f"first (density {first.density:.1%})"
    whole, now = method.remaining(Masks.ones(first)), method.remaining(first)
    remain, unit = sum(method.counts(first)[-1].values()), Structured(method.structure).unit
    return (
        f"IMP: {_count(machine.epochs, dense + ' epoch')}, then {_count(machine.rounds, 'round')}, "
        f"{method.scope} {described(method.criterion)}, {verb} {back}: {now:,} ⇒ {remain:,} {unit} "
        f"(density {remain / whole:.1%}); {machine.total_epochs} of fit's {epochs} epochs"
        f"{f'; judged by {monitor}' if monitor else ''}."
    )


def pruned(history: Sequence[Level], after: Masks, *, table: bool) -> str:
    """Describe one pruning, before ⇒ after, and the result of the training before it."""
    level, first = history[-1], history[0]
    text = (
        f"IMP round {level.round + 1}: {level.remaining:,} ⇒ {after.remaining:,} of {after.size:,} weights "
        f"(density {after.density:.1%}); {level.monitor} was {level.score:.4f}"
    )
    if level.round:
        text += f" ({first_name(history)} {first.score:.4f}{', matching' if level.matching else ''})"
    text += "" if level.connected else "; disconnected: its output does not depend on its input"
    return text + (f"\n{after.summary()}" if table else "")


def ended(history: Sequence[Level]) -> str:
    """Describe the end of the run, its sparsest matching level, and how to get that level."""
    last, found = history[-1], sparsest_matching(history)
    done = (
        f"IMP: {_count(last.round, 'round')} done; density {last.density:.1%}, {last.monitor} {last.score:.4f} "
        f"({first_name(history)} {history[0].score:.4f}){'' if last.connected else ', disconnected'}"
    )
    if not found.round:
        return f"{done}; no level matches the {first_name(history)} network."
    return (
        f"{done}; sparsest matching: round {found.round}, density {found.density:.1%}: imp.ticket({found.round}), or "
        f"lth.rewind(model, imp.trained({found.round}), imp.masks({found.round})) for its trained weights."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
