"""TFMOT's callbacks: the one that prunes, and the one that logs sparsities for TensorBoard."""

from __future__ import annotations

import importlib.util
import os
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import surgery
from keras_lth.callbacks.mover import Mover
from keras_lth.compat.tfmot.marks import Mark, marked
from keras_lth.compat.tfmot.prune import UPDATES
from keras_lth.masks import Masks

__all__ = ["PruningSummaries", "UpdatePruningStep"]


class UpdatePruningStep(Mover):
    """Prunes what `prune_low_magnitude` has marked, at the steps of its schedules.

    Steps are counted over all fits of a model, as TFMOT counts them. In a loop of your own, call ``set_model``,
    ``on_train_begin``, and ``on_train_batch_begin`` before each step.

    Args:
        verbose: as in `keras_lth.GradualPruning`; 0 is silent, as TFMOT is.
    """

    _applied = -1  # the step after which masks were last chosen

    def __init__(self, verbose: int = 1) -> None:
        super().__init__(verbose=verbose)
        setattr(self, UPDATES, True)
        self._marks: dict[str, Mark] = {}
        self._own_loop = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the pruned weights."""
        given: dict[str, Any] = self.params or {}
        self._forget()
        self._own_loop = not given.get("epochs")
        if self._own_loop:
            self.set_params({"epochs": 1, "steps": None})
        self._marks = {path: mark for path, (_, mark) in marked(self.model).items()}
        for path, (variable, mark) in marked(self.model).items():
            if mark.block_size != (1, 1) and len(variable.shape) != 2:
                raise ValueError(
                    f"block_size={mark.block_size} needs matrices, and {path!r} has shape {tuple(variable.shape)}: "
                    "prune its layer with block_size=(1, 1)"
                )
        if self._marks:
            super().on_train_begin(logs)
            return
        self.updates = _Turns([])
        warnings.warn(
            f"model {self.model.name!r} has nothing to prune: call prune_low_magnitude(model) first", stacklevel=2
        )

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Prune before a step of a loop that calls no other hook."""
        super().on_train_batch_begin(batch, logs)
        if self._own_loop:
            self._step = self._step + 1 if self._began else self._origin(0)
            self._began = True
            self._see()

    def on_epoch_end(self, batch: int = -1, logs: dict[str, Any] | None = None) -> None:
        """Do nothing: pruned weights are 0 after every step. The argument has TFMOT's name."""

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Say what was done."""
        # A loop of the user's own may follow with the same callback.
        self.set_params({})
        if not self._marks:
            return
        super().on_train_end(logs)
        if self._done is None:
            warnings.warn(
                f"no mask has changed up to step {self._step:,}, because the schedule begins later. TFMOT counts steps "
                "from 1: begin_step=0 with frequency=100 first prunes at step 100",
                stacklevel=2,
            )

    # What Mover asks.
    def _weights(self) -> list[str]:
        return list(self._marks)

    def _refuse(self) -> None:
        # In a loop of a user's own there is nothing beside it, and the model need not be compiled.
        if not self._own_loop:
            super()._refuse()

    def _plan(self, steps_per_epoch: int | None, epochs: int, masks: Masks) -> _Turns:
        return _Turns(list({id(mark): mark for mark in self._marks.values()}.values()))

    def _origin(self, epoch: int) -> int:
        made = max((mark.step for mark in self._marks.values()), default=0)
        return made or super()._origin(epoch)

    def _see(self) -> None:
        super()._see()
        for mark in self._marks.values():
            mark.step = self._step

    def _next(self, step: int, masks: Masks) -> Masks:
        held, found = surgery.variables(self.model), dict(masks)
        for path, mark in self._marks.items():
            due = self.updates.last_of(mark, step)
            if due is not None and due > self._applied:
                found[path] = mark.mask(held[path].numpy(), due + 1)
        self._applied = step
        return Masks(found)

    def _forget(self) -> None:
        super()._forget()
        self._applied = -1

    def _described(self) -> str:
        return f"TFMOT's schedules on {len(self.masks)} weights, {self._density()}"


class _Turns:
    """The numbers of steps made after which some schedule changes masks: TFMOT's steps, less one."""

    def __init__(self, marks: list[Mark]) -> None:
        self._marks = marks
        self._found: dict[int, tuple[int, int | None]] = {}  # of a mark: up to where it was asked, and its last turn

    def last(self, step: int) -> int | None:
        """Return the last turn up to and with ``step``."""
        return max((due for mark in self._marks if (due := self.last_of(mark, step)) is not None), default=None)

    def last_of(self, mark: Mark, step: int) -> int | None:
        """Return the last turn of one schedule."""
        asked, found = self._found.get(id(mark), (-1, None))
        if step < asked:
            asked, found = -1, None
        found = next((turn for turn in range(step, asked, -1) if mark.due(turn + 1)), found)
        self._found[id(mark)] = step, found
        return found

    def next(self, step: int) -> int | None:
        """Return the first turn after ``step``, or a step before which there is none."""
        if not self._marks:
            return None
        ahead = range(step + 1, step + _AHEAD)
        return next((turn for turn in ahead if any(mark.due(turn + 1) for mark in self._marks)), step + _AHEAD)


_AHEAD = 500


class PruningSummaries(keras.callbacks.TensorBoard):
    """Logs the sparsity of each pruned weight, and the least magnitude that its mask keeps, at each epoch.

    Args:
        log_dir: a folder for TensorBoard.
        update_freq: as of ``keras.callbacks.TensorBoard``.
        **kwargs: of ``keras.callbacks.TensorBoard``.

    Raises:
        ValueError: no folder.
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, log_dir: str, update_freq: Any = "epoch", **kwargs: Any) -> None:
        if not isinstance(log_dir, str) or not log_dir:
            raise ValueError(f"log_dir must be the name of a folder, not {log_dir!r}")
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "PruningSummaries writes for TensorBoard, which is not installed: pip install tensorboard"
            )
        super().__init__(log_dir=log_dir, update_freq=update_freq, **kwargs)
        self._pruning_writer = tf.summary.create_file_writer(os.path.join(log_dir, "metrics"))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log."""
        if logs is not None:
            super().on_epoch_begin(epoch, logs)
        masks, held = surgery.masks_of(self.model), surgery.variables(self.model)
        step = surgery.step_of(self.model)
        with self._pruning_writer.as_default():
            for path, mask in masks.items():
                kept = np.abs(held[path].numpy())[mask]
                tf.summary.scalar(f"{path}/mask/sparsity", 1.0 - mask.mean(), step=step)
                tf.summary.scalar(f"{path}/threshold", kept.min() if kept.size else 0.0, step=step)
        self._pruning_writer.flush()
