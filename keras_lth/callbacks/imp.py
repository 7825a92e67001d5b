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
from keras_lth.callbacks.connection import Connection, examples, training_examples
from keras_lth.callbacks.fit_call import fit_argument
from keras_lth.callbacks.imp_directory import InDirectory
from keras_lth.callbacks.imp_plan import IMPPlan
from keras_lth.callbacks.imp_text import ended, introduction, pruned
from keras_lth.callbacks.levels import Level, Monitor, curve_rows
from keras_lth.callbacks.logs import Coming, logs_to_come
from keras_lth.callbacks.state import decode, encode, pack, unpack, within
from keras_lth.criteria import described, named, needs_data, scored
from keras_lth.imp import IMP, Start
from keras_lth.layers import KERNELS, fitted
from keras_lth.masks import Masks, differences
from keras_lth.rounds import UNKNOWN, Rounds, Span
from keras_lth.schedules import Duration
from keras_lth.structures import Structure
from keras_lth.surgery.metrics import undisturbed
from keras_lth.tickets import Snapshot

Pattern = str | Sequence[str] | Callable[[str, Any], bool] | None


class IMPCallback(InDirectory):
    """Find lottery tickets while ``fit`` runs: train, prune the lowest magnitudes, rewind, train again.

    ``fit``'s ``epochs`` is an upper bound: one dense training and ``rounds`` trainings from step k, each of at most
    ``epochs_per_round`` epochs. Any one of ``rounds``, ``epochs_per_round`` and ``target_density`` fixes the others;
    without any, there are about as many rounds as epochs in each. After ``fit`` the model has the last round's trained,
    masked weights. If the model already has masks, IMP starts from them.

    Args:
        rounds: number of prunings after the dense training.
        epochs_per_round: epochs of the dense training; T is this many times the batches of an epoch.
        target_density: share of the prunable weights that remain at the end; the last cut is shortened to hit it.
        fraction: share of the remaining weights pruned each round; or, with ``scope="layer"``, a mapping from name or
            regex to fraction, first match wins (half the rate at the output: ``{"output": 0.1, ".*": 0.2}``).
        rewind_to: step k of the dense training: ``0``, ``"500 steps"``, ``"2 epochs"``, ``"1%"``. Steps are batches.
        span: ``"remaining"`` trains a round from k to T (thesis 4.2.2), ``"restart"`` trains T steps from the weights
            of step k with the schedule from 0.
        scope: ``"global"`` compares scores over the whole network, ``"layer"`` within each weight.
        criterion: what scores the weights: ``"magnitude"``, ``"random"``, one of `keras_lth.criteria`, or a function
            of (model) or of (model, x, y) that returns ``{weight path: array}``; x and y are some training examples.
        structure: the unit that is pruned: None for single weights, (rows, columns), ``"output"``, ``"input"`` or
            ``"n:m"``, as in `keras_lth.select`. An n:m structure is pruned once.
        include, exclude, also: which weights to prune, as in `keras_lth.prunable`.
        min_per_layer: the least number (≥ 1) or share (< 1) that remains in each layer, with ``scope="global"``.
        one_shot: prune once, by ``fraction`` or down to ``target_density`` (thesis 3.1.3).
        keep: ``"rewind"`` sets weights back to step k; ``"trained"`` keeps them and rewinds only the schedule:
            learning-rate rewinding (Algorithm 2; Renda et al. 2020).
        restore_optimizer: take the optimizer's slots from step k too. Otherwise they are those of a new optimizer,
            and a bias correction (Adam) restarts with them while the learning-rate schedule goes on from k.
        monitor, mode: the log that all rounds are judged by, such as ``"val_accuracy"``, and whether ``"max"`` or
            ``"min"`` is better. By default a ``val_`` log where every training has one, an accuracy, else a metric,
            else the loss; and what the metric itself says, as Keras' ``EarlyStopping`` asks it.
        kernels: ``"dense"`` trains masked layers; ``"auto"`` lets each level store and multiply what its masks keep, in
            the layers that are then faster (`keras_lth.sparsify`), ``"sparse"`` in all layers that can. After ``fit``
            the model is sparse; `keras_lth.densify` goes back. Masks agree with those of dense kernels to rounding.
        callbacks: callbacks that count epochs or remember (LearningRateScheduler, ReduceLROnPlateau, EarlyStopping,
            ModelCheckpoint, TensorBoard): each round is a fit of its own to them, with the round's own epochs. In the
            names of their files ``{round}`` and ``{density}`` stand for those of the round.
        directory: the run's store, a folder or ``gs://…``. A stopped run, started again, continues with the round it
            was in; a finished one loads. It is the folder that counts, not what the model holds. Another optimizer,
            rate, loss or metric is refused. `trained` then gives the weights that any level ended with.
        resume: False starts over in a used directory.
        data: the ``ordered`` dataset that ``fit`` trains on, if the callback cannot see ``fit``'s own argument.
        verbose: 0 silent, 1 one line per pruning, 2 also a table per layer.

    Raises ``ValueError`` at the start of ``fit`` for arguments that cannot work; the message says which would. Raises
    ``RuntimeError`` if a training diverges.
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
        criterion: Any = "magnitude",
        structure: Structure = None,
        include: Pattern = None,
        exclude: Pattern = None,
        also: Pattern = None,
        min_per_layer: float | None = None,
        one_shot: bool = False,
        keep: str = "rewind",
        restore_optimizer: bool = False,
        monitor: str | None = None,
        mode: str = "auto",
        kernels: str = "dense",
        callbacks: Iterable[keras.callbacks.Callback] = (),
        directory: str | os.PathLike[str] | None = None,
        resume: bool = True,
        data: Any = None,
        verbose: int = 1,
    ) -> None:
        if keep not in ("rewind", "trained"):
            raise ValueError(f'keep must be "rewind" or "trained", not {keep!r}.')
        if span not in ("remaining", "restart"):
            raise ValueError(f'span must be "remaining" or "restart", not {span!r}.')
        if restore_optimizer and span == "restart":
            raise ValueError(
                'restore_optimizer uses slots of step k, but span="restart" counts from step 0: drop one of them.'
            )
        if restore_optimizer and keep == "trained":
            raise ValueError(
                'restore_optimizer uses slots of step k, but keep="trained" keeps later weights: drop one of them.'
            )
        k = Duration.parse(rewind_to)
        self._filters = {"include": include, "exclude": exclude, "also": also}
        self._criterion = named(criterion, **self._options(criterion))
        self.plan = IMPPlan(
            rounds, epochs_per_round, target_density, fraction, k, scope, one_shot, min_per_layer, criterion, structure,
            Start(
                "trained" if keep == "trained" else "k",
                "zero" if span == "restart" else "k",
                "k" if restore_optimizer else "fresh",
            ),
        )  # fmt: skip
        if kernels not in KERNELS:
            raise ValueError(f'kernels is "dense", "auto" or "sparse", not {kernels!r}.')
        self.keep, self.restore_optimizer, self.kernels = keep, restore_optimizer, kernels
        self.monitor = Monitor(monitor, mode)
        self.directory, self.resume = directory, resume
        super().__init__(callbacks=callbacks, data=data, verbose=verbose)

    def _forget(self) -> None:
        super()._forget()
        self.history: list[Level] = []
        self._masks: list[Masks] = []
        self._kept: dict[int, Snapshot] = {}
        self._ends: dict[int, Snapshot] = {}
        self._counts: list[dict[str, int]] = []
        self._method: IMP | None = None
        self._data_of_criterion: Any = (None, None)
        self._began = time.perf_counter()
        self._seen: dict[str, float] = {}
        self._logs: dict[int, dict[str, float]] = {}
        self._rows: list[dict[str, Any]] = []
        self._curves: dict[int, list[dict[str, Any]]] = {}
        self._coming: Coming | None = None
        self._connection = Connection()
        self._sparse: tuple[str, ...] = ()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Plan, mask, resume."""
        if self._store is not None:
            self._store.close()  # an earlier fit of this callback may have raised
        super().on_train_begin(logs)

    # Called by RoundsCallback.
    def _plan(self, epochs: int, steps_per_epoch: int | None) -> Rounds:
        model = self.model
        weights = surgery.prunable(model, **self._filters)
        if not self._masks:
            worn, whole = surgery.masks_of(model), surgery.shapes(model)
            shapes = {path: whole[path] for path in weights}
            first = Masks({p: worn[p] if p in worn else np.ones(shape, bool) for p, shape in shapes.items()})
            self._masks = [self._first_of_directory(first)]
        machine = self.plan.choose(epochs, steps_per_epoch or UNKNOWN, first := self._masks[0])
        self._method = self.plan.imp(machine, self._order_seed)
        self._counts = self._method.counts(first)
        return machine

    def _look(self) -> None:
        self._connection = Connection(examples(self))
        self._coming = logs_to_come(self, self._machine())
        if not self.monitor.waits(self._coming):
            self._settle(self._coming.training)
        if needs_data(self._criterion):
            self._data_of_criterion = training_examples(self)
        if not isinstance(self.plan.criterion, str):
            with undisturbed(self.model):
                self._scores()

    def _settle(self, training: Iterable[str]) -> None:
        if self._coming is not None:
            self.monitor.settle(self.model, [*training, *self._coming.validation], self._coming.why)
            self._coming = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save the state of step k; after the first step of a model with its own ``train_step``, read its logs."""
        if self._coming is not None:
            with self._guarded():
                self._settle(logs or ())
        super().on_train_batch_end(batch, logs)

    def _begin(self) -> None:
        model, machine = self.model, self._machine()
        surgery.hosts_of(model).check_same(json.dumps(self._config()).encode(), f"the settings of {self.name}")
        first, there = self._masks[0], self._store
        rows = [] if there is None else self._opened(there)
        origin = None if there is None else there.origin()
        steps = self._iterations() if origin is None else origin.step
        surgery.mask(model, first)
        self._say(
            introduction(
                self._imp(), machine, first, self.params["epochs"],
                steps > 0 or first.remaining < first.size, self.monitor.name,
            )
        )  # fmt: skip
        self._say(f"{self.name}: {surgery.prunable(model, **self._filters).report.summary}")
        if rows and there is not None:
            self._resume(rows, there)
        elif origin is not None:
            surgery.rewind(model, origin, first, restore_optimizer=origin.has_slots)
            self._say(f"{self.name}: the first training starts again from its state of step 0 in {self.directory}.")
        self._sparsify()
        if machine.action(self.position).name == "DONE":
            self._say(f"{self.name}: this run is already finished; loaded it from {self.directory}.")

    def _labels(self, round: int) -> dict[str, Any]:
        return {"round": round, "density": self._masks[round].density}

    def _went(self, epoch: int, logs: dict[str, Any]) -> None:
        numbers = {name: float(value) for name, value in logs.items()}
        # With validation_freq > 1 the last epoch may lack the monitored log.
        self._seen = self._logs[epoch] = {**self._seen, **numbers}
        self._rows.append({"round": self.position.round, "epoch": epoch, "step": self._step, **numbers})

    def _trained(self, round: int, logs: dict[str, Any], last: bool) -> None:
        machine, model = self._machine(), self.model
        # First, so that nothing below can lose it.
        self._keep_trained(round)
        _check_finite(surgery.prunable(model, **self._filters), round, self.directory)
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
        if self._store is None:
            self._remember(round, surgery.snapshot(model, optimizer=False))
        if not last:
            self._masks.append(self._prune(round))
            if self.keep == "trained":
                self._kept[round + 1] = surgery.snapshot(model)
            self._say(pruned(self.history, self._masks[-1], table=self.verbose > 1))
        self._curves[round] = curve_rows(self._rows, self.monitor.name)
        self._write(level)
        self._began, self._seen, self._logs, self._rows = time.perf_counter(), {}, {}, []

    def _go_back(self, round: int) -> None:
        with surgery.whole(self.model):
            surgery.mask(self.model, masks := self._masks[round])
            surgery.check_replicas(self.model)
            start = self._start(self._kept.get(round))
            surgery.rewind(self.model, start, masks, restore_optimizer=self.restore_optimizer)
        self._sparsify()

    def _sparsify(self) -> None:
        report = fitted(self.model, self.kernels, self._batch_size())
        if report is not None and report.sparse != self._sparse:
            self._sparse = report.sparse
            self._say(f"{self.name}: {report.summary}.")

    def _batch_size(self) -> int | None:
        """Examples of a batch, where the data or ``fit`` says so."""
        data = self._data if self._data is not None else self.params.get("data")
        return getattr(data, "batch_size", None) or fit_argument(self.model, "batch_size")

    def get_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the position inside a round, and the finished levels, because there may be no directory."""
        state, arrays = super().get_state()
        state["levels"] = {
            "history": [encode(level.as_dict()) for level in self.history],
            "masks": len(self._masks),
            "kept": {str(round): snapshot.step for round, snapshot in self._kept.items()},
            "seen": encode(self._seen),
            "logs": encode(self._logs),
            "rows": encode(self._rows),
            "curves": encode(self._curves),
            "seconds": time.perf_counter() - self._began,
        }
        for round, masks in enumerate(self._masks):
            arrays |= {f"level/{round}/{path}": mask for path, mask in masks.items()}
        for round, snapshot in self._kept.items():
            arrays |= pack(f"kept/{round}", snapshot)
        return state, arrays

    def set_state(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from inside a round; call it after ``on_train_begin``."""
        super().set_state(state, arrays)
        levels = state["levels"]
        self.history = [Level.from_dict(decode(row)) for row in levels["history"]]
        self._masks = [Masks(within(f"level/{round}", arrays)) for round in range(levels["masks"])]
        self._kept = {int(round): unpack(f"kept/{round}", step, arrays) for round, step in levels["kept"].items()}
        self._seen, self._logs = decode(levels["seen"]), decode(levels["logs"])
        self._rows, self._curves = decode(levels["rows"]), decode(levels["curves"])
        self._began = time.perf_counter() - levels["seconds"]
        for level in self.history:  # the commits may be ahead of a directory that lost a level
            self._write(level)
        self._sparsify()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Release the folder."""
        super().on_train_end(logs)
        if self._store is not None:
            self._store.close()
        if self.history:
            self._say(ended(self.history))

    # Its parts.
    def _logs_of_the_weights(self) -> dict[str, float]:
        """The logs of the last epoch, or of the epoch whose weights an inner EarlyStopping has restored."""
        for other in self.callbacks:
            if isinstance(other, keras.callbacks.EarlyStopping) and other.best_weights is not None:
                return self._logs.get(other.best_epoch, self._seen)
        return self._seen

    def _prune(self, round: int) -> Masks:
        """The masks of the level after ``round``, chosen once, on the CPU of one host."""
        now, method = self._masks[round], self._imp()
        shapes = {path: mask.shape for path, mask in now.items()}
        return surgery.hosts_of(self.model).chosen_once(shapes, lambda: method.prune(self._scores(), now))

    def _imp(self) -> IMP:
        if self._method is None:
            raise RuntimeError(f"{self.name} has not been used in a fit yet.")
        return self._method

    def _scores(self) -> dict[str, np.ndarray]:
        """The scores of the prunable weights."""
        found, masks = scored(self._criterion, self.model, *self._data_of_criterion), self._masks[0]
        shapes = {path: array.shape for path, array in found.items() if path in masks}
        if lines := differences(shapes, {path: mask.shape for path, mask in masks.items()}):
            raise ValueError(
                f"the criterion {described(self.plan.criterion)} does not match the weights to prune: "
                f"{'; '.join(lines)}. It must return {{weight path: array}} with each path of lth.prunable(model)."
            )
        return {path: found[path] for path in masks}

    def _options(self, criterion: Any) -> dict[str, Any]:
        """The arguments for creating a criterion of this package that is given by name."""
        return {**self._filters, **({"seed": 0} if criterion == "random" else {})} if isinstance(criterion, str) else {}


def _check_finite(weights: Mapping[str, Any], round: int, directory: Any) -> None:
    """Raise ``RuntimeError`` that names the first weight with a NaN, and says what ``directory`` still has."""
    kept = f" Levels 0 … {round - 1} are in {directory}." if directory and round else ""
    for path, variable in weights.items():
        if np.isnan(variable.numpy().astype(np.float32)).any():
            raise RuntimeError(f"Round {round} diverged: {path} contains NaN. Try a lower learning rate.{kept}")
