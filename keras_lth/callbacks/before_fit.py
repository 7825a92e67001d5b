"""Checks before rounds begin: whether step k is visible, the data, and which callbacks count epochs."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import keras

from keras_lth.callbacks.fit_call import fit_argument
from keras_lth.rounds import UNKNOWN, Rounds, nearest_visible
from keras_lth.surgery.entry import check_built
from keras_lth.surgery.optimizers import optimizers_of

_REMEMBERS = ("LearningRateScheduler", "ReduceLROnPlateau", "EarlyStopping")


def see_rewind_step(machine: Rounds, every: int, seekable: bool) -> None:
    """Refuse a step k at which no batch hook runs, or a round that starts in the middle of an epoch that no hook can
    end.

    ``every`` is the model's ``steps_per_execution``; ``seekable`` data can start an epoch in the middle itself. Raises
    ``ValueError`` that names the nearest steps.
    """
    per_epoch = machine.steps_per_epoch
    if every == 1:
        return
    if per_epoch == UNKNOWN:
        if machine.rewind_step % every:
            raise ValueError(f"rewind_to step {machine.rewind_step} is not a multiple of steps_per_execution={every}.")
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
            f"A round would begin with the last {rest} of an epoch's {per_epoch} steps, but "
            f"steps_per_execution={every} hides where they end: rewind to the start of an epoch (step "
            f"{machine.rewind_step - inside}), or train on keras_lth.datasets.ordered."
        )


def mind_the_model(callback: Any) -> None:
    """Build the optimizer of the running model, because a snapshot needs its slots.

    Raises ``ValueError`` for a model without weights or without a Keras optimizer.
    """
    model, name = callback.model, callback.name
    check_built(model)
    found = optimizers_of(model)
    if not found:
        raise ValueError(
            f"{name} needs a model compiled with a Keras optimizer, but this model has none: call "
            "model.compile(optimizer, …) first."
        )
    if isinstance(model.optimizer, keras.optimizers.Optimizer) and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def mind_the_data(callback: Any) -> None:
    """Refuse data whose later epochs cannot be as long as the first.

    Raises ``ValueError`` for a finite generator, and for ``steps_per_epoch`` that does not divide the data.
    """
    running = fit_argument(callback.model, "epoch_iterator")
    if running is None:
        return
    steps, batches = running.steps_per_epoch, running.data_adapter.num_batches
    if inspect.isgenerator(fit_argument(callback.model, "x")) and not steps:
        raise ValueError(
            f"{callback.name} trains several times, but a generator cannot be restarted: pass an endless one with "
            f"fit(steps_per_epoch=…), or arrays, a tf.data.Dataset or a keras.utils.PyDataset."
        )
    if steps and batches and batches % steps:
        raise ValueError(
            f"fit(steps_per_epoch={steps}) does not divide the {batches} batches of the data, so some epochs "
            f"would be shorter: omit it, or repeat the data (dataset.repeat())."
        )
    if callback.machine.steps_per_epoch == UNKNOWN and len(optimizers_of(callback.model)) > 1:
        raise ValueError(f"{callback.name} with several optimizers needs fit(steps_per_epoch=…).")


def mind_the_neighbours(callback: Any) -> tuple[list[str], bool]:
    """Warn of callbacks in fit's own list that keep state across rounds.

    Returns the kinds in that list, and whether no callback may change a rate because of what it has measured. Raises
    ``ValueError`` for ``BackupAndRestore``, in either list. Its backup does not contain the round, so a restarted run
    would continue an epoch of one round with the weights of another.
    """
    outside = callback.params.get("neighbours") or fit_argument(callback.model, "callbacks") or ()
    outside = getattr(outside, "callbacks", outside)
    outside = outside if isinstance(outside, (list, tuple)) else (outside,)
    if any(isinstance(other, keras.callbacks.BackupAndRestore) for other in (*outside, *callback.callbacks)):
        resumes = " A run with directory=… resumes where it was killed." if hasattr(callback, "resume") else ""
        raise ValueError(
            f"BackupAndRestore cannot restore a fit of several trainings: remove it when you use "
            f"{callback.name}.{resumes}"
        )
    remember = tuple(getattr(keras.callbacks, name) for name in _REMEMBERS)
    named = [type(other).__name__ for other in outside if isinstance(other, remember)]
    if named:
        warnings.warn(
            f"{', '.join(named)} beside {callback.name} in fit's own list counts the epochs of all rounds as one "
            f"training: pass it as {type(callback).__name__}(callbacks=[…]) to restart it in each round.",
            stacklevel=3,
        )
    ours = (keras.callbacks.History, keras.callbacks.ProgbarLogger, type(callback))
    kinds = [type(other).__name__ for other in outside if not isinstance(other, ours)]
    return kinds, not callback.callbacks and "ReduceLROnPlateau" not in named
