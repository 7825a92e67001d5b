"""Instability analysis inside one ``fit`` (thesis 4.1.1, Algorithm 3)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_lth import files, surgery
from keras_lth.arguments import real, whole
from keras_lth.callbacks.before_fit import see_rewind_step
from keras_lth.callbacks.state import pack, unpack
from keras_lth.callbacks.watched import WatchedRounds
from keras_lth.rounds import UNKNOWN, Rounds, Span
from keras_lth.schedules import Duration
from keras_lth.surgery.metrics import MODES
from keras_lth.tables import html_table
from keras_lth.tickets import Snapshot

if TYPE_CHECKING:
    from keras_lth.analysis.comparison import Comparison

_TREATMENTS = ("interpolate", "first", "second", "reestimate")


class InstabilityCallback(WatchedRounds):
    """Train, rewind to the fork, train again with another data order, and compare the trained networks.

    ``fit``'s ``epochs`` is an upper bound: each training has ``epochs // runs`` epochs, training 0 from the beginning,
    the others from the fork. Everything is rewound: weights, statistics, optimizer slots, iterations, learning rate,
    the callbacks in ``callbacks``. Between two trained networks (the ends) the error is measured along the line, at 30
    points. After ``fit`` the model has the last training's weights; ``ends`` has the others.

    The noise must differ. Data from ``keras_lth.datasets.ordered`` gets another order in each training. For any data
    each training batch is hashed, and a repeated order is an error. For example, after ``keras.utils.set_random_seed``
    Keras shuffles NumPy data the same way in every epoch, which would look "stable".

    Args:
        fork_at: the step at which the trainings fork: ``0``, ``"500 steps"``, ``"2 epochs"``, ``"1%"`` of a training.
        runs: number of trainings; all pairs are compared.
        data: name → ``(x, y)`` arrays or a finite ``tf.data.Dataset``, where the error is measured.
        statistics: treatment of batch-norm statistics: ``"interpolate"``, ``"first"``, ``"second"``, ``"reestimate"``.
        points: number of points on the path, including the ends.
        threshold: a barrier below it counts as stable.
        span: ``"remaining"`` trains from the fork at step k to T. ``"restart"`` trains T steps from the state at the
            fork with the schedule from 0 (4.1.2); then one more training, which only leads to the fork and is not
            compared, comes first, and each training has ``epochs // (runs + 1)`` epochs.
        callbacks: callbacks that count epochs or keep state; they begin and end with each training.
        directory: folder for ``instability.json``, ``instability.png`` and each training's end, ``run_<n>.state``; of
            several hosts the first one writes. Results of an earlier analysis are replaced when the new ones are
            complete.
        metric: compiled metric from which the error is computed; by default the accuracy. See ``analysis.Evaluator``.
        mode: ``"min"`` or ``"max"``, for a metric whose direction is unknown.
        batch_size: examples per batch when errors are measured on arrays; by default what is fastest.
        train: the ``ordered`` dataset that ``fit`` trains on, if the callback cannot see ``fit``'s own argument.
        train_data: training examples for ``statistics="reestimate"``; by default ``data["train"]``.
        verbose: 0 silent, 1 one line per training and data set.

    Attributes, after ``fit``:
        results: a ``Comparison`` for each data set and pair.
        barrier, stable: data set → mean barrier of its pairs, and whether it is below ``threshold``.
        ends: the ``Snapshot`` at the end of each training that is compared.

    Raises ``ValueError`` for arguments that cannot work, with values that would, and for data orders that do not
    differ. Raises ``RuntimeError`` if a training diverges.
    """

    name = "Instability"

    def __init__(
        self,
        fork_at: str | int | Duration = 0,
        runs: int = 2,
        data: Mapping[str, Any] | None = None,
        statistics: str = "interpolate",
        points: int = 30,
        threshold: float = 0.02,
        span: Span = "remaining",
        callbacks: Iterable[keras.callbacks.Callback] = (),
        directory: str | os.PathLike[str] | None = None,
        metric: str | None = None,
        mode: str = "auto",
        batch_size: int | None = None,
        train: Any = None,
        train_data: Any = None,
        verbose: int = 1,
    ) -> None:
        self.runs, self.points = whole(runs, "runs", 2), whole(points, "points", 2)
        self.threshold = real(threshold, "threshold")
        self.batch_size = None if batch_size is None else whole(batch_size, "batch_size", 1)
        if mode not in MODES:
            raise ValueError(f'mode must be "auto", "max" or "min", not {mode!r}.')
        if span not in ("remaining", "restart"):
            raise ValueError(f'span must be "remaining" or "restart", not {span!r}.')
        if statistics not in _TREATMENTS:
            raise ValueError(f"statistics must be one of {', '.join(map(repr, _TREATMENTS))}, not {statistics!r}.")
        if not self.threshold > 0:
            raise ValueError(f"threshold must be an error above 0, such as 0.02, not {threshold!r}.")
        self.fork_at = Duration.parse(fork_at)
        self.statistics, self.span, self.metric, self.mode = statistics, span, metric, mode
        self.data = _data(data)
        self.train_data = self.data.get("train") if train_data is None else train_data
        if statistics == "reestimate" and self.train_data is None:
            raise ValueError('statistics="reestimate" needs train_data, or a data set named "train".')
        self.directory = None if directory is None else files.RunPath(directory)
        super().__init__(callbacks=callbacks, data=train, verbose=verbose)

    def _forget(self) -> None:
        super()._forget()
        self._began = time.perf_counter()
        self.results: list[Comparison] = []
        self.barrier: dict[str, float] = {}
        self.stable: dict[str, bool] = {}
        self.ends: list[Snapshot] = []

    # Called by RoundsCallback.
    def _plan(self, epochs: int, steps_per_epoch: int | None) -> Rounds:
        trainings = self.runs + self._first()
        if epochs < trainings:
            raise ValueError(
                f"{trainings} trainings need at least {trainings} epochs, but fit has {epochs}: use "
                f"fit(epochs={trainings}) or "
                f"more; each training gets epochs // {trainings}."
            )
        each = epochs // trainings
        fork, steps = self.fork_at.steps(steps_per_epoch, each), steps_per_epoch or UNKNOWN
        if fork >= each * steps:
            raise ValueError(
                f"fork_at={str(self.fork_at)!r} is step {fork}, but each training has {each * steps} steps ({each} of "
                f"fit's {epochs} epochs, {steps} batches each): fork earlier, or use more epochs in fit."
            )
        machine = Rounds(trainings - 1, each, steps, fork, self.span)
        try:
            see_rewind_step(machine, int(self.model.steps_per_execution), self._order is not None)
        except ValueError as error:
            raise ValueError(str(error).replace("rewind_to", "fork_at")) from None
        return machine

    def _look(self) -> None:
        for name in self.data:
            self._rehearse(name)

    def _rehearse(self, name: str) -> None:
        from keras_lth.analysis.evaluation import Evaluator

        again = self.train_data if self.statistics == "reestimate" else None
        options: dict[str, Any] = {"metric": self.metric, "mode": self.mode, "batch_size": self.batch_size}
        try:
            Evaluator(self.model, self.data[name], train_data=again, **options).rehearse()
        except Exception as error:
            raise ValueError(f"data[{name!r}] cannot be evaluated: {error}") from error

    def _begin(self) -> None:
        machine = self._machine()
        if self.directory is not None:
            hosts = surgery.hosts_of(self.model)
            hosts.first(partial(self._take, self.directory) if hosts.chief else lambda: None)
        self._say(
            f"{self.name}: {self.runs} trainings of {machine.epochs} epochs that fork at step {machine.rewind_step}; "
            f"{machine.total_epochs} of fit's {self.params['epochs']} epochs."
        )

    def _trained(self, round: int, logs: dict[str, Any], last: bool) -> None:
        # Keras swaps in averaged weights (use_ema) at the end of a fit; here this happens after each training.
        if isinstance(self.model.optimizer, keras.optimizers.Optimizer):
            self.model.optimizer.finalize_variable_values(self.model.trainable_weights)
        end = surgery.snapshot(self.model)
        for path, value in end.weights.items():
            if not np.isfinite(value.astype(np.float64)).all():
                raise RuntimeError(f"A training diverged: {path} contains NaN or infinity. Try a lower learning rate.")
        number, start = round - self._first(), self._machine().start(round)
        values = ", ".join(f"{name} {float(value):.4f}" for name, value in logs.items())
        what = f"training {number}" if number >= 0 else "first training, which led to the fork"
        seconds, self._began = time.perf_counter() - self._began, time.perf_counter()
        self._say(f"{self.name}, {what}: steps {start} → {self._step}, {seconds:.1f} s; {values}")
        if number < 0:
            return
        self.ends.append(end)
        if self.directory is not None and self._chief():
            end.save(self.directory / f"run_{number}.state")
        if last:
            self._compare()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Report if the fit was stopped before there was anything to compare."""
        super().on_train_end(logs)
        if not self.results:
            of = f"training {self.position.round + 1} of {self._machine().rounds + 1}"
            self._say(f"{self.name}: fit ended in {of}; nothing was compared.")

    def _go_back(self, round: int) -> None:
        surgery.rewind(self.model, self._start(), restore_optimizer=True)

    def get_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the position inside a training, with the ends so far."""
        state, arrays = super().get_state()
        state["ends"] = [end.step for end in self.ends]
        for number, end in enumerate(self.ends):
            arrays |= pack(f"end/{number}", end)
        return state, arrays

    def set_state(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from inside a training; call it after ``on_train_begin``."""
        super().set_state(state, arrays)
        self.ends = [unpack(f"end/{number}", step, arrays) for number, step in enumerate(state["ends"])]
        if len(self.ends) == self.runs:
            self._compare()

    # Results for the user.
    def summary(self) -> str:
        """Return a table with one row per pair and data set, and the verdict on each data set."""
        from keras_lth.analysis.comparison import summary

        return summary(self.results, self.threshold)

    def _repr_html_(self) -> str:
        from keras_lth.analysis.comparison import table, verdicts

        return html_table(table(self.results, self.threshold), " ".join(verdicts(self.results, self.threshold)))

    def figure(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the error along the path as a Matplotlib ``Figure``; write it to ``path`` as PNG if given."""
        from keras_lth.analysis.comparison import figure, png

        drawn = figure(self.results, fork=f"step {self._machine().rewind_step}", threshold=self.threshold)
        if path is not None:
            files.write_atomic(path, png(drawn))
        return drawn

    def as_dict(self) -> dict[str, Any]:
        """Return results and settings for JSON, as in ``instability.json``."""
        machine = self._machine()
        return {
            "fork_step": machine.rewind_step,
            "total_steps": machine.total_steps,
            "runs": self.runs,
            "span": self.span,
            "points": self.points,
            "threshold": self.threshold,
            "statistics": self.statistics,
            "order_seed": self._order_seed if self._order is not None else None,
            "barrier": dict(self.barrier),
            "stable": dict(self.stable),
            "results": [result.as_dict() for result in self.results],
        }

    # Its parts.
    def _first(self) -> int:
        return 1 if self.span == "restart" else 0

    def _compare(self) -> None:
        from keras_lth.analysis.comparison import compare, mean_barriers, verdict
        from keras_lth.analysis.connectivity import TREATMENTS

        self.results = compare(
            self.ends,
            self.model,
            self.data,
            points=self.points,
            statistics=self.statistics,
            metric=self.metric,
            mode=self.mode,
            batch_size=self.batch_size,
            train_data=self.train_data,
        )
        self.barrier = mean_barriers(self.results)
        self.stable = {name: barrier < self.threshold for name, barrier in self.barrier.items()}
        if self.directory is not None and self._chief():
            self.figure(self.directory / "instability.png")
            # Written last: if it exists, everything does.
            text = json.dumps(self.as_dict(), indent=1) + "\n"
            files.write_atomic(self.directory / "instability.json", text.encode())
        pairs = len(self.results) // len(self.data)
        for name, barrier in self.barrier.items():
            self._say(
                f"{self.name} on {name} from step {self._machine().rewind_step}: barrier {barrier:.4f}"
                f"{f', mean of {pairs} pairs' if pairs > 1 else ''}: {verdict(barrier, self.threshold)}; batch-norm "
                f"statistics {TREATMENTS[self.statistics]}."
            )

    def _chief(self) -> bool:
        """Whether this host writes and prints."""
        return surgery.hosts_of(self.model).chief


def _data(data: Any) -> dict[str, Any]:
    from keras_lth.analysis.evaluation import Batches

    if not isinstance(data, Mapping) or not data:
        raise ValueError(
            f'data must map names to data sets, data={{"train": (x, y), "test": (x, y)}}, not {data!r:.80}.'
        )
    for name, value in data.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"A data set's name must be a string, not {name!r}.")
        Batches.check(value, f"data[{name!r}]")
    return dict(data)
