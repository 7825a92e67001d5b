"""What is looked at before rounds begin: whether step k can be seen, and which other callbacks count epochs."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from keras_lth.callbacks.fit_call import fit_argument
from keras_lth.rounds import UNKNOWN, Rounds, nearest_visible

_REMEMBERS = ("LearningRateScheduler", "ReduceLROnPlateau", "EarlyStopping")


def see_rewind_step(machine: Rounds, every: int, seekable: bool) -> None:
    """Refuse a step k at which no batch hook comes, or the rest of an epoch that none ends.

    ``every`` is the model's ``steps_per_execution``; ``seekable`` data begins an epoch in its middle by itself. Raises
    ``ValueError`` that names the nearest steps.
    """
    per_epoch = machine.steps_per_epoch
    if every == 1:
        return
    if per_epoch == UNKNOWN:
        if machine.rewind_step % every:
            raise ValueError(f"rewind_to step {machine.rewind_step} is no multiple of steps_per_execution={every}.")
        return
    below, above = nearest_visible(machine.rewind_step, per_epoch, every)
    if below != above:
        raise ValueError(
            f"steps_per_execution={every} hides step {machine.rewind_step}: the nearest steps that a callback "
            f'sees are {below} and {above}. Use rewind_to="{below} steps" or "{above} steps".'
        )
    inside = machine.rewind_step % per_epoch
    rest = per_epoch - inside
    if not seekable and machine.start(1) and inside and rest % every:
        raise ValueError(
            f"A round would begin with the last {rest} of an epoch's {per_epoch} steps, and "
            f"steps_per_execution={every} hides where they end: rewind to the begin of an epoch (step "
            f"{machine.rewind_step - inside}), or train on keras_lth.datasets.ordered."
        )


def mind_the_neighbours(callback: Any) -> None:
    """Warn of callbacks in fit's own list that remember across rounds.

    Raises ``ValueError`` for ``BackupAndRestore``, in either list: its backup knows no rounds, so that a run which
    begins again would go on with an epoch of one round and the weights of another.
    """
    outside = callback.params.get("neighbours") or fit_argument(callback.model, "callbacks") or ()
    outside = getattr(outside, "callbacks", outside)
    outside = outside if isinstance(outside, (list, tuple)) else (outside,)
    if any(isinstance(other, keras.callbacks.BackupAndRestore) for other in (*outside, *callback.callbacks)):
        resumes = " A run with directory=… is gone on with where it was killed." if hasattr(callback, "resume") else ""
        raise ValueError(
            f"BackupAndRestore cannot go on with a fit of several trainings: leave it out beside {callback.name}."
            f"{resumes}"
        )
    remember = tuple(getattr(keras.callbacks, name) for name in _REMEMBERS)
    named = [type(other).__name__ for other in outside if isinstance(other, remember)]
    if named:
        warnings.warn(
            f"{', '.join(named)} beside {callback.name} in fit's own list counts the epochs of all rounds as one "
            f"training: pass it as {type(callback).__name__}(callbacks=[…]) to have it begin anew each round.",
            stacklevel=3,
        )
