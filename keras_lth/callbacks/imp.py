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
from keras_lth.callbacks.fit_call import in_other_fit
from keras_lth.callbacks.imp_plan import IMPPlan
from keras_lth.callbacks.imp_prune import check_finite, choose
from keras_lth.callbacks.imp_text import ended, introduction, pruned
from keras_lth.callbacks.imp_tickets import Tickets
from keras_lth.callbacks.journal import Journal
from keras_lth.callbacks.levels import Level, Monitor
from keras_lth.criteria import Magnitude
from keras_lth.masks import Masks
from keras_lth.rounds import UNKNOWN, Position, Rounds, Span
from keras_lth.schedules import Duration
from keras_lth.tickets import Snapshot

Pattern = str | Sequence[str] | Callable[[str, Any], bool] | None


class IMPCallback(Tickets):
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
        monitor, mode: the log that a round is judged by, such as ``"val_accuracy"``, and whether ``"max"`` or
            ``"min"`` is better; by default the first ``val_`` metric, else the loss.
        callbacks: callbacks that count epochs or remember (LearningRateScheduler, ReduceLROnPlateau, EarlyStopping,
            ModelCheckpoint): begun and ended with each round, with the round's own epochs.
        directory: the run's folder. A killed run, started again, goes on at the round it was in; a finished one loads.
        resume: False begins anew in a used directory.
        data: the ``ordered`` dataset that ``fit`` trains on, where ``fit``'s own argument cannot be seen.
        verbose: 0 silent, 1 a line a pruning, 2 a table per layer too.

    Raises ``ValueError`` at the begin of ``fit`` for what cannot work, with what would; ``RuntimeError`` when a
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
        # Not closed here: a copy forgets what the original still holds.
        self._journal: Journal | None = None if self.directory is None else Journal(self.directory)
        self.history: list[Level] = []
        self._masks: list[Masks] = []
        self._kept: dict[int, Snapshot] = {}
        self._counts: list[dict[str, int]] = []
        self._began = time.perf_counter()
        self._seen: dict[str, float] = {}
        self._logs: dict[int, dict[str, float]] = {}
        self._rows: list[dict[str, Any]] = []

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
            first = {p: worn[p] if p in worn else np.ones(tuple(v.shape), bool) for p, v in weights.items()}
            self._masks = [Masks(first)]
        first_masks = self._masks[0]
        remaining = {path: int(first_masks[path].sum()) for path in weights}
        machine = self.plan.choose(epochs, steps_per_epoch or UNKNOWN, remaining, first_masks.size)
        self._counts = self.plan.counts(remaining, first_masks.size, machine.rounds)
        self.plan.refuse_too_few(first_masks, self._counts[-1])
        return machine

    def _begin(self) -> None:
        model, machine = self.model, self._machine()
        surgery.hosts_of(model).check_same(json.dumps(self._config()).encode(), f"the settings of {self.name}")
        surgery.mask(model, self._masks[0])
        if self._journal is not None:
            self._resume(self._opened(self._journal))
        self._say(introduction(self.plan, machine, self.keep, self._masks[0], self._counts[-1], self.params["epochs"]))
        self._say(f"{self.name}: {surgery.prunable(model, **self._filters).report.summary}")
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
        check_finite(surgery.prunable(model, **self._filters), round, self.directory)
        now = self._masks[round]
        logs = self._logs_of_the_weights()
        score = self.monitor.score(logs)
        dense = self.history[0].score if self.history else score
        seconds = time.perf_counter() - self._began
        level = Level(
            round=round,
            density=now.density,
            remaining=now.remaining,
            steps=self._step - machine.start(round),
            seconds=seconds,
            monitor=self.monitor.name,
            score=score,
            matching=self.monitor.at_least(score, dense),
            logs=logs,
        )
        self.history.append(level)
        if not last:
            self._masks.append(self._prune(round))
            if self.keep == "trained":
                self._kept[round + 1] = surgery.snapshot(model)
            self._say(pruned(level, self.history[0].score, self._masks[-1], table=self.verbose > 1))
        self._write(last)
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

    def _opened(self, journal: Journal) -> list[dict[str, Any]]:
        """The finished levels in the folder, the same on all hosts."""
        hosts = surgery.hosts_of(self.model)
        journal.writes = hosts.chief
        rows = hosts.first(
            lambda: journal.open(self._config(), resume=self.resume, abandoned=lambda: not in_other_fit(self))
        )
        hosts.check_same(json.dumps(rows).encode(), f"finished levels in {self.directory}")
        return rows

    def _prune(self, round: int) -> Masks:
        scores, floor = Magnitude(**self._filters), self.plan.min_per_layer
        return choose(self.model, scores, self._masks[round], self._counts[round + 1], floor)

    def _write(self, last: bool) -> None:
        if self._journal is None or not self._journal.writes:
            return
        level = self.history[-1].round
        if level == 0:
            if self.captured is None or self.origin is None:
                raise RuntimeError("IMP has kept no state to rewind to.")
            self._journal.save("rewind", self.captured)
            self._journal.save("origin", Snapshot({}, self.origin.optimizer, self.origin.step, self.origin.seeds))
        if last or self.keep == "trained":
            self._journal.save("trained", surgery.snapshot(self.model))
        for round in (level, level + 1):
            if round < len(self._masks):
                self.ticket(round).save(self._journal.ticket_path(round))
        self._journal.levels([{**row.as_dict(), "rate": self._rate, "spent": self._spent} for row in self.history])

    def _resume(self, rows: list[dict[str, Any]]) -> None:
        if not rows or self._journal is None:
            return
        machine = self._machine()
        rows = rows[: machine.rounds + 1]
        self._rate, self._spent = rows[-1]["rate"], rows[-1]["spent"]
        self.history = [Level.from_dict(row) for row in rows]
        self.captured, self.origin = self._journal.load("rewind"), self._journal.load("origin")
        done = len(rows) - 1
        last = done == machine.rounds
        self._masks = [self._journal.ticket(r).masks for r in range(done + 1)]
        if last or not self._journal.ticket_path(done + 1).exists():
            # The end of this run, or of a shorter one that is gone on with: the model gets its trained weights.
            surgery.mask(self.model, self._masks[-1])
            surgery.rewind(self.model, self._journal.load("trained"), self._masks[-1], restore_optimizer=True)
        if not last:
            known = self._journal.ticket_path(done + 1).exists()
            self._masks.append(self._journal.ticket(done + 1).masks if known else self._prune(done))
        for level, (masks, count) in enumerate(zip(self._masks, self._counts, strict=False)):
            if masks.remaining != sum(count.values()):
                raise ValueError(
                    f"{self.directory} holds another run: its level {level} has {masks.remaining} weights, this one "
                    f"would have {sum(count.values())}. Use another directory, or resume=False to overwrite it."
                )
        if self.keep == "trained" and not last:
            self._kept = {r: self._journal.ticket(r).snapshot for r in range(1, done + 1)}
            self._kept[done + 1] = self._journal.load("trained")
        self.position = Position(done, machine.total_steps, captured=True, ended=True, pruned=not last)
        self._first_epoch = self.params["epochs"] if last else self._spent
        self.model._initial_epoch = self._first_epoch
        if not last:
            self._say(f"{self.name}: going on with round {done + 1} from {self.directory}.")

    def _config(self) -> dict[str, Any]:
        """What must agree for a run to be gone on with."""
        return {
            **self.plan.config(self._machine()),
            "keep": self.keep,
            "restore_optimizer": self.restore_optimizer,
            "weights": {path: list(mask.shape) for path, mask in self._masks[0].items()},
            "order_seed": self._order_seed if self._order is not None else None,
        }

    def _say(self, text: str) -> None:
        if self.verbose and surgery.hosts_of(self.model).chief:
            print(text, flush=True)
