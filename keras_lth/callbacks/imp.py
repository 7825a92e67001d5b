"""Iterative magnitude pruning with rewinding inside one ``fit`` (thesis 3.1.3, Algorithms 1, 2 and 4)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_lth import surgery
from keras_lth.callbacks import imp_state
from keras_lth.callbacks.connection import Connection, examples
from keras_lth.callbacks.imp_folder import InFolder
from keras_lth.callbacks.imp_plan import IMPPlan
from keras_lth.callbacks.imp_prune import check_finite, choose
from keras_lth.callbacks.imp_text import ended, introduction, pruned
from keras_lth.callbacks.levels import Level, Monitor
from keras_lth.callbacks.logs import Coming, logs_to_come
from keras_lth.criteria import Magnitude
from keras_lth.masks import Masks
from keras_lth.rounds import UNKNOWN, Rounds, Span
from keras_lth.schedules import Duration
from keras_lth.tickets import Snapshot

Pattern = str | Sequence[str] | Callable[[str, Any], bool] | None


class IMPCallback(InFolder):
    """Finds lottery tickets while ``fit`` runs: train, prune the lowest magnitudes, rewind, train again.

    ``fit``'s ``epochs`` is an upper bound: one dense training and ``rounds`` trainings from step k, each of at most
    ``epochs_per_round`` epochs. Any one of ``rounds``, ``epochs_per_round`` and ``target_density`` fixes the others;
    without any, about as many rounds as epochs in each. After ``fit`` the model holds the last round's trained,
    masked weights. Masks that the model already wears are where IMP begins.

    Args:
        rounds: prunings after the dense training.
        epochs_per_round: epochs of the dense training; T is this many times the batches of an epoch.
        target_density: share of the prunable weights that remain at the end; the last cut is shortened to hit it.
        fraction: share of the remaining weights pruned each round; or, with ``scope="layer"``, a mapping from name or
            regex to fraction, first match wins (half the rate at the output: ``{"output": 0.1, ".*": 0.2}``).
        rewind_to: step k of the dense training: ``0``, ``"500 steps"``, ``"2 epochs"``, ``"1%"``. Steps are batches.
        span: ``"remaining"`` trains a round from k to T (thesis 4.2.2), ``"restart"`` T steps from the weights of
            step k with the schedule from 0.
        scope: ``"global"`` compares magnitudes over the whole network, ``"layer"`` within each weight.
        include, exclude, also: which weights to prune, as in `keras_lth.prunable`.
        min_per_layer: the least number (≥ 1) or share (< 1) that remains in each layer, with ``scope="global"``.
        one_shot: prune once, by ``fraction`` or down to ``target_density`` (thesis 3.1.3).
        keep: ``"rewind"`` sets weights back to step k; ``"trained"`` keeps them and rewinds only the schedule:
            learning-rate rewinding (Algorithm 2; Renda et al. 2020).
        restore_optimizer: take the optimiser's slots from step k too. Otherwise they are those of a new optimiser,
            and a bias correction (Adam) restarts with them while the learning-rate schedule goes on from k.
        monitor, mode: the log that all rounds are judged by, such as ``"val_accuracy"``, and whether ``"max"`` or
            ``"min"`` is better. By default a ``val_`` log where every training has one, an accuracy, else a metric,
            else the loss; and what the metric itself says, as Keras' ``EarlyStopping`` asks it.
        callbacks: callbacks that count epochs or remember (LearningRateScheduler, ReduceLROnPlateau, EarlyStopping,
            ModelCheckpoint, TensorBoard): each round is a fit of its own to them, with the round's own epochs.
        directory: the run's folder. A stopped run, started again, continues with the round it was in; a finished one
            loads. It is the folder that counts, not what the model holds. Another optimizer, rate, loss or metric is
            refused. What the dense training ended with stays in ``trained/level_00.state``.
        resume: False starts over in a used directory.
        data: the ``ordered`` dataset that ``fit`` trains on, where ``fit``'s own argument cannot be seen.
        verbose: 0 silent, 1 a line a pruning, 2 a table per layer too.

    Raises ``ValueError`` at the start of ``fit`` for what cannot work, with what would; ``RuntimeError`` when a
    training diverges.
    """

    name = "IMP"

    def __init__(
        self,
        rounds: int | None = None,
        epochs_per_round: int | None = None,
        target_density: float | None = None,
        fraction: float | Mapping[str, float] = 0.2,
        rewind_to: str | int | Duration = 0,
        span: Span = "remaining",
        scope: str = "global",
        include: Pattern = None,
        exclude: Pattern = None,
        also: Pattern = None,
        min_per_layer: float | None = None,
        one_shot: bool = False,
        keep: str = "rewind",
        restore_optimizer: bool = False,
        monitor: str | None = None,
        mode: str = "auto",
        callbacks: Iterable[keras.callbacks.Callback] = (),
        directory: str | os.PathLike[str] | None = None,
        resume: bool = True,
        data: Any = None,
        verbose: int = 1,
    ) -> None:
        if keep not in ("rewind", "trained"):
            raise ValueError(f'keep is "rewind" or "trained", not {keep!r}.')
        if span not in ("remaining", "restart"):
            raise ValueError(f'span is "remaining" or "restart", not {span!r}.')
        if restore_optimizer and span == "restart":
            raise ValueError('restore_optimizer takes slots from step k, but span="restart" counts from step 0 again.')
        if restore_optimizer and keep == "trained":
            raise ValueError('restore_optimizer takes slots from step k; keep="trained" weights are not of that step.')
        k = Duration.parse(rewind_to)
        self.plan = IMPPlan(rounds, epochs_per_round, target_density, fraction, k, span, scope, one_shot, min_per_layer)
        self._filters = {"include": include, "exclude": exclude, "also": also}
        self.keep, self.restore_optimizer = keep, restore_optimizer
        self.monitor = Monitor(monitor, mode)
        self.directory, self.resume = directory, resume
        super().__init__(callbacks=callbacks, data=data, verbose=verbose)

    def _forget(self) -> None:
        super()._forget()
        self.history: list[Level] = []
        self._masks: list[Masks] = []
        self._kept: dict[int, Snapshot] = {}
        self._counts: list[dict[str, int]] = []
        self._began = time.perf_counter()
        self._seen: dict[str, float] = {}
        self._logs: dict[int, dict[str, float]] = {}
        self._rows: list[dict[str, Any]] = []
        self._coming: Coming | None = None
        self._connection = Connection()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Plan, mask, resume."""
        if self._journal is not None:
            self._journal.close()  # an earlier fit of this callback may have raised
        super().on_train_begin(logs)

    # What RoundsCallback asks.
    def _plan(self, epochs: int, steps_per_epoch: int | None) -> Rounds:
        model = self.model
        weights = surgery.prunable(model, **self._filters)
        if not self._masks:
            worn = surgery.masks_of(model)
            shapes = {path: tuple(variable.shape) for path, variable in weights.items()}
            first = Masks({p: worn[p] if p in worn else np.ones(shape, bool) for p, shape in shapes.items()})
            self._masks = [self._first_of_folder(first)]
        first_masks = self._masks[0]
        remaining = {path: int(first_masks[path].sum()) for path in weights}
        machine = self.plan.choose(epochs, steps_per_epoch or UNKNOWN, remaining, first_masks.size)
        self._counts = self.plan.counts(remaining, first_masks.size, machine.rounds)
        self.plan.refuse_too_few(first_masks, self._counts[-1])
        return machine

    def _look(self) -> None:
        self._connection = Connection(examples(self))
        self._coming = logs_to_come(self, self._machine())
        if not self.monitor.waits(self._coming):
            self._settle(self._coming.training)

    def _settle(self, training: Iterable[str]) -> None:
        if self._coming is not None:
            self.monitor.settle(self.model, [*training, *self._coming.validation], self._coming.why)
            self._coming = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the state of step k; the first step of a model with a ``train_step`` of its own tells its logs."""
        if self._coming is not None:
            with self._guarded():
                self._settle(logs or ())
        super().on_train_batch_end(batch, logs)

    def _begin(self) -> None:
        model, machine = self.model, self._machine()
        surgery.hosts_of(model).check_same(json.dumps(self._config()).encode(), f"the settings of {self.name}")
        first, origin = self._masks[0], self._origin
        steps = self._iterations() if origin is None else origin.snapshot.step
        rows = [] if self._journal is None else self._opened(self._journal)
        surgery.mask(model, first)
        self._say(
            introduction(
                self.plan, machine, self.keep, first, self._counts[-1], self.params["epochs"],
                steps > 0 or first.remaining < first.size, self.monitor.name,
            )
        )  # fmt: skip
        self._say(f"{self.name}: {surgery.prunable(model, **self._filters).report.summary}")
        if rows:
            self._resume(rows)
        elif origin is not None:
            surgery.rewind(model, origin.snapshot, first, restore_optimizer=True)
            self._say(f"{self.name}: the first training starts again from its state of step 0 in {self.directory}.")
        if machine.action(self.position).name == "DONE":
            self._say(f"{self.name}: this run is finished; loaded from {self.directory}.")

    def _went(self, epoch: int, logs: dict[str, Any]) -> None:
        numbers = {name: float(value) for name, value in logs.items()}
        # With validation_freq > 1 the last epoch may lack the monitored log.
        self._seen = self._logs[epoch] = {**self._seen, **numbers}
        self._rows.append({"round": self.position.round, "epoch": epoch, "step": self._step, **numbers})
        if self._journal is not None:
            self._journal.epoch(self._rows[-1])

    def _trained(self, round: int, logs: dict[str, Any], last: bool) -> None:
        machine, model = self._machine(), self.model
        # First, so that nothing below can lose it.
        self._keep_trained(round)
        check_finite(surgery.prunable(model, **self._filters), round, self.directory)
        now = self._masks[round]
        logs = self._logs_of_the_weights()
        score = self.monitor.score(logs)
        dense = self.history[0].score if self.history else score
        connected = self._connection.holds(model)
        level = Level(
            round=round,
            density=now.density,
            remaining=now.remaining,
            steps=self._step - machine.start(round),
            seconds=time.perf_counter() - self._began,
            monitor=self.monitor.name,
            score=score,
            matching=connected and self.monitor.at_least(score, dense),
            connected=connected,
            logs=logs,
        )
        self.history.append(level)
        if not last:
            self._masks.append(self._prune(round))
            if self.keep == "trained":
                self._kept[round + 1] = surgery.snapshot(model)
            self._say(pruned(self.history, self._masks[-1], table=self.verbose > 1))
        self._write()
        self._began, self._seen, self._logs, self._rows = time.perf_counter(), {}, {}, []

    def _go_back(self, round: int) -> None:
        surgery.mask(self.model, masks := self._masks[round])
        surgery.check_replicas(self.model)
        start = self._start(self._kept.get(round))
        surgery.rewind(self.model, start, masks, restore_optimizer=self.restore_optimizer)

    def get_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Where the run is inside a round; finished levels are in it too, since there may be no folder."""
        state, arrays = super().get_state()
        return imp_state.get(self, state, arrays)

    def set_state(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from inside a round; after ``on_train_begin``."""
        super().set_state(state, arrays)
        imp_state.set(self, state, arrays)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let go of the folder."""
        super().on_train_end(logs)
        if self._journal is not None:
            self._journal.close()
        if self.history:
            self._say(ended(self.history))

    # Its parts.
    def _logs_of_the_weights(self) -> dict[str, float]:
        """The logs of the last epoch, or of the one whose weights an EarlyStopping inside has given back."""
        for other in self.callbacks:
            if isinstance(other, keras.callbacks.EarlyStopping) and other.best_weights is not None:
                return self._logs.get(other.best_epoch, self._seen)
        return self._seen

    def _prune(self, round: int) -> Masks:
        scores, floor = Magnitude(**self._filters), self.plan.min_per_layer
        return choose(self.model, scores, self._masks[round], self._counts[round + 1], floor)
