"""Trainings from one state, with a check that their data orders differ."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_lth import files
from keras_lth.callbacks.fingerprint import Fingerprint, Orders
from keras_lth.callbacks.fit_call import fit_argument, in_other_fit
from keras_lth.callbacks.rounds import RoundsCallback
from keras_lth.rounds import UNKNOWN


class WatchedRounds(RoundsCallback):
    """Rounds that hash the training batches, and stop with ``ValueError`` if two trainings see the same ones.

    The override of the model, and the lock on a folder, are removed however the ``fit`` ends.
    """

    def _forget(self) -> None:
        super()._forget()
        # Not released here: a copy forgets what the original still holds.
        self._fingerprint: Fingerprint | None = None
        self._lock: files.DirectoryLock | None = None
        self._end: Any = None
        self._orders = Orders()
        self._mark: tuple[int, int] = (0, 0)
        self._prefix: tuple[int, int] | None = None

    def _first(self) -> int:
        """Number of the first training that is compared."""
        return 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Plan, and start hashing batches."""
        self._release()
        with self._guarded():
            super().on_train_begin(logs)
            machine = self._machine()
            if self._order is None and machine.steps_per_epoch == UNKNOWN and machine.epochs == 1 and machine.start(1):
                # The length of the rest of the epoch after the fork is not known in time for a comparison.
                raise ValueError(
                    f"{self.name}: the number of batches is unknown and each training has only one epoch, so equal "
                    f"data orders after step {machine.start(1)} could not be detected. Pass fit(steps_per_epoch=…), or "
                    f"train on keras_lth.datasets.ordered."
                )
            self._fingerprint = Fingerprint(self.model)
            # Keras does not report exceptions to callbacks, but this object of the running fit is deleted with it.
            running = fit_argument(self.model, "epoch_iterator")
            self._end = weakref.finalize(running, self._release) if running is not None else None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Rewind after a training."""
        with self._guarded():
            super().on_epoch_begin(epoch, logs)
            self._watch().reset()
            self._mark, self._prefix = (0, 0), None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save the state at the fork."""
        with self._guarded():
            super().on_train_batch_end(batch, logs)
            rest = -self._machine().start(1) % self._machine().steps_per_epoch
            if self._order is None and rest == self._execution_end:
                self._prefix = self._watch().value()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Stop hashing batches."""
        try:
            super().on_train_end(logs)
        finally:
            self._release()

    def get_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the position, with the fingerprints of the data orders."""
        state, arrays = super().get_state()
        state["watched"] = {
            "batches": None if self._fingerprint is None else list(self._fingerprint.value()),  # None after the end
            "mark": list(self._mark),
            "prefix": None if self._prefix is None else list(self._prefix),
            "orders": self._orders.as_list(),
        }
        return state, arrays

    def set_state(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from an earlier `get_state`; call it after ``on_train_begin``."""
        super().set_state(state, arrays)
        watched = state["watched"]
        if watched["batches"] is not None:
            self._watch().restore(tuple(watched["batches"]))
        self._mark = tuple(watched["mark"])
        self._prefix = None if watched["prefix"] is None else tuple(watched["prefix"])
        self._orders.take(watched["orders"])

    # Its parts.
    def _capture_if_due(self) -> None:
        before = self.captured
        super()._capture_if_due()
        if self.captured is not before:
            self._mark = self._watch().value()

    def _went(self, epoch: int, logs: dict[str, Any]) -> None:
        number, fork = self.position.round - self._first(), self._machine().start(1)
        # Before the fork there is only one training, so there is nothing to compare.
        if number < 0 or self._step <= fork:
            return
        seen = [self._watch().since(self._mark)]
        if self._prefix is not None and self._step - fork < self._machine().steps_per_epoch:
            # Others begin in the middle of this epoch, but such data gives them its first batches.
            seen.append(self._prefix)
        self._orders.note(number, self._step, *seen)

    def _take(self, folder: str | os.PathLike[str]) -> None:
        """Lock a folder until the end of the fit."""
        lock = files.DirectoryLock(folder)
        lock.acquire(lambda: not in_other_fit(self))
        self._lock = lock

    def _watch(self) -> Fingerprint:
        if self._fingerprint is None:
            raise RuntimeError(f"{self.name} is not part of a running fit.")
        return self._fingerprint

    def _failed(self) -> None:
        self._release()

    def _release(self) -> None:
        if self._end is not None:
            self._end.detach()
            self._end = None
        if self._fingerprint is not None:
            self._fingerprint.remove()
            self._fingerprint = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
