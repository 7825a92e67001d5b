"""Drive ``Rounds`` inside one ``fit``: what IMP and instability analysis share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import keras
import numpy as np

from keras_lth import surgery
from keras_lth.callbacks.before_fit import mind_the_data, mind_the_model, mind_the_neighbours, see_rewind_step
from keras_lth.callbacks.driver import Driver
from keras_lth.callbacks.fit_call import fit_argument, leave_epoch, seekable
from keras_lth.callbacks.inner import Inner
from keras_lth.callbacks.rates import Rates
from keras_lth.callbacks.state import get_state, pack, set_state, unpack, within
from keras_lth.rounds import UNKNOWN, Action, Position, Rounds, noise_seed
from keras_lth.tickets import Snapshot

# What a commit holds of a run besides its position: counters and states.
_PLAIN = ("_step", "_spent", "_order_seed", "_cut", "_epoch_start", "_epoch_iterations")
_SNAPSHOTS = ("captured", "origin")


class RoundsCallback(Driver):
    """Trains, rewinds to the state of step k, and trains again, within one ``fit``.

    A subclass defines the number of rounds (``_plan``), what happens after a training (``_trained``) and how to rewind
    (``_go_back``). Callbacks that count epochs or keep state are passed as ``callbacks``: they begin and end with each
    training and see its own epochs.
    """

    name = "Rounds"

    def __init__(
        self,
        *,
        callbacks: Iterable[keras.callbacks.Callback] = (),
        data: Any = None,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        self.callbacks = list(callbacks)
        for one in self.callbacks:
            if not isinstance(one, keras.callbacks.Callback):
                raise ValueError(f"callbacks must contain Keras callbacks, such as EarlyStopping(…), not {one!r}.")
        self.verbose = verbose
        self._data = data
        self._forget()

    def _forget(self) -> None:
        """Drop all state of an earlier fit (fit_twice)."""
        self.machine: Rounds | None = None
        self.position = Position()
        self._step = self._spent = self._epoch_start = self._epoch_iterations = 0
        self._order: Any = None
        self._order_seed = 0
        self._rates = Rates()
        self._cut = False
        self._bar = False
        self._running = False
        self._first_epoch: int | None = 0
        self._inner: keras.callbacks.CallbackList = keras.callbacks.CallbackList([])
        self.captured: Snapshot | None = None
        self.origin: Snapshot | None = None

    # Overridden by subclasses.
    def _plan(self, epochs: int, steps_per_epoch: int | None) -> Rounds:
        """The rounds of this fit; called again once an unknown number of batches has been counted."""
        raise TypeError(f"{type(self).__name__} has no plan.")

    def _look(self) -> None:
        """At the start of ``fit``, after planning: refuse what would fail later. Changes and writes nothing."""

    def _begin(self) -> None:
        """After `_look`: set masks, resume."""

    def _started(self) -> None:
        """Before the first step of the first training; ``origin`` is its state."""

    def _went(self, epoch: int, logs: dict[str, Any]) -> None:
        """After each epoch, before the next action of the state machine."""

    def _trained(self, round: int, logs: dict[str, Any], last: bool) -> None:
        """After training ``round``; the model still has its weights."""

    def _go_back(self, round: int) -> None:
        """Set the model to the start of training ``round``."""

    def _labels(self, round: int) -> dict[str, Any]:
        """The values of ``{round}`` and similar labels in file names of the inner callbacks."""
        return {"round": round}

    # The state machine.
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Plan, build the optimizer, resume."""
        self._forget()
        model = self.model
        mind_the_model(self)
        data = self._data if self._data is not None else self.params.get("data", fit_argument(model, "x"))
        self._order = seekable(data)
        if self._data is not None and self._order is None:
            raise ValueError("data must be a dataset made by keras_lth.datasets.ordered.")
        self._order_seed = self._order.seed if self._order is not None else 0
        self.machine = self._plan(self.params["epochs"], self._steps_per_epoch())
        see_rewind_step(self._machine(), self._per_hook(), self._order is not None)
        mind_the_data(self)
        self._rates.begin(self._machine(), self._per_hook(), *mind_the_neighbours(self))
        self._look()
        self._running = True
        self._begin()
        self.machine = self._machine()
        self._inner = Inner(
            self.callbacks,
            model,
            epochs=self.machine.epochs,
            steps=self.params.get("steps"),
            verbose=self.params.get("verbose", 0),
        )
        with self._guarded():
            if self.machine.action(self.position) not in (Action.REWIND, Action.DONE):
                self._begin_inner(self.position.round)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Rewind after a training; seek the data."""
        machine = self._machine()
        if self._first_epoch is not None:
            if epoch != self._first_epoch:
                raise ValueError(
                    f"{self.name} counts its epochs from the start of fit, but fit began at epoch {epoch}, not "
                    f"{self._first_epoch}. Omit initial_epoch, and set model._initial_epoch = 0 if an earlier "
                    f"BackupAndRestore left it behind."
                )
            self._first_epoch = None
            self.model._initial_epoch = None
        self._bar = False
        with self._guarded():
            if machine.action(self.position) is Action.REWIND:
                round = self.position.round + 1
                self._go_back(round)
                self.position = machine.after(self.position)
                self._fresh_noise(round)
                self._begin_inner(round)
            self._step = self.position.step
            if self._step == 0 and self.position.round == 0:
                self.origin = surgery.snapshot(self.model)
                self._started()
            self._capture_if_due()
            if self._order is not None:
                self._order.seek(self._step, seed=noise_seed(self._order_seed, self.position.round))
            self._epoch_start = self._step
            self._epoch_iterations = self._iterations()
            self._spent += 1
            self._inner.on_epoch_begin(self._step // machine.steps_per_epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Check that a round runs at the rewound learning rate."""
        with self._guarded():
            self._inner.on_train_batch_begin(batch, logs)
            # Not the number given at the end: before Keras 3.11 it is also that of the first step of an execution.
            self._execution_end = batch + self._per_hook()
            self._see_rates("before")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save the state of step k; end an epoch that began in the middle."""
        self._bar = True
        with self._guarded():
            # Before other callbacks see the end of the step: a callback after this one may have set its rate.
            self._see_rates("within")
            self._inner.on_train_batch_end(batch, logs)
            if self.params.get("exact_steps"):
                self._execution_end = batch + 1
            machine = self._machine()
            stop = machine.stop(self.position) if machine.action(self.position) is Action.TRAIN else self._step
            self._step = min(self._epoch_start + self._execution_end, max(stop, self._step))
            if self._step < stop:
                return
            self.position = machine.after(self.position)
            self._capture_if_due()
            ends = machine.action(self.position) is Action.END_EPOCH
            # The rest of an epoch: stop although the data has more batches. Not StopIteration, for which
            # Keras warns that data ran out.
            if ends and self._execution_end < machine.steps_per_epoch and not self.model.stop_training:
                self._cut = self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Do what the state machine prescribes after an epoch: continue, prune, or finish."""
        with self._guarded():
            self._end_epoch(dict(logs or {}))

    def _end_epoch(self, logs: dict[str, Any]) -> None:
        if self._cut:
            self._cut = self.model.stop_training = False
            leave_epoch(self.model)
        stopped = self.model.stop_training  # by a callback of fit's own list: it ends the whole fit
        self._learn_steps_per_epoch()
        machine = self._machine()
        local = self._local_epoch()
        if machine.action(self.position) is not Action.END_EPOCH:
            if stopped:
                self._inner.on_epoch_end(local, logs)
                return
            raise RuntimeError(
                f"The epoch ended at step {self._step} of a training, not at {machine.stop(self.position)}: "
                f"the data had fewer batches than it reported."
            )
        self._inner.on_epoch_end(local, logs)
        self._went(local, logs)
        self.position = machine.after(self.position)
        if self.model.stop_training and not stopped:
            # A callback of ours ended this training; the next one begins.
            self.model.stop_training = False
            self.position = machine.cut_short(self.position)
        action = machine.action(self.position)
        if action in (Action.PRUNE, Action.DONE):
            self._inner.on_train_end(logs)
            self._trained(self.position.round, logs, action is Action.DONE)
            if action is Action.DONE:
                self.model.stop_training = True
            else:
                self.position = machine.after(self.position)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """End a training that a stopped fit left unfinished."""
        machine = self._machine()
        self.model._initial_epoch = None
        self._bar = False
        with self._guarded():
            if machine.action(self.position) not in (Action.REWIND, Action.DONE):
                self._inner.on_train_end(logs)
        self._running = False

    # Called by our own loop.
    def steps_until_stop(self) -> int | None:
        """Return the maximum number of steps before this callback must see the model; None for any number."""
        machine = self._machine()
        return machine.stop(self.position) - self._step if machine.action(self.position) is Action.TRAIN else None

    def get_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the position, the states of steps 0 and k, and the states of the inner callbacks."""
        state: dict[str, Any] = {"position": asdict(self.position), "steps": {}, "inner": []}
        arrays: dict[str, np.ndarray] = {}
        state["plain"] = {name: getattr(self, name) for name in _PLAIN}
        state["rates"] = self._rates.seen
        for name in _SNAPSHOTS:
            snapshot = getattr(self, name)
            if snapshot is not None:
                state["steps"][name] = snapshot.step
                arrays |= pack(name, snapshot)
        for number, inner in enumerate(self.callbacks):
            held, own = get_state(inner)
            state["inner"].append(held)
            arrays |= {f"inner/{number}/{name}": value for name, value in own.items()}
        return state, arrays

    def set_state(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from an earlier `get_state`; call it after ``on_train_begin``."""
        machine = self._machine()
        idle = machine.action(self.position) in (Action.REWIND, Action.DONE)
        self.position = Position(**state["position"])
        if idle and machine.action(self.position) not in (Action.REWIND, Action.DONE):
            self._begin_inner(self.position.round)
        for name, value in state["plain"].items():
            setattr(self, name, value)
        self._rates.seen = dict(state["rates"])
        for name in _SNAPSHOTS:
            step = state["steps"].get(name)
            setattr(self, name, None if step is None else unpack(name, step, arrays))
        for number, (inner, held) in enumerate(zip(self.callbacks, state["inner"], strict=True)):
            set_state(inner, held, within(f"inner/{number}", arrays))
        self._first_epoch = None
        self.model._initial_epoch = None

    # Its parts.
    def _begin_inner(self, round: int) -> None:
        if isinstance(self._inner, Inner):
            self._inner.begin(**self._labels(round))

    def _see_rates(self, when: str) -> None:
        round, step = self.position.round, self._step
        self._rates.see(self.model, round, step, when, begins=step == self._epoch_start, name=type(self).__name__)

    def _per_hook(self) -> int:
        """Steps between two batch hooks; our own loop can stop at any step."""
        return 1 if self.params.get("exact_steps") else int(self.model.steps_per_execution)

    def _machine(self) -> Rounds:
        if self.machine is None:
            raise RuntimeError(f"{self.name} has not been used in a fit yet.")
        return self.machine

    def _steps_per_epoch(self) -> int | None:
        steps = self.params.get("steps")
        return int(steps) if steps else None

    def _capture_if_due(self) -> None:
        machine = self._machine()
        if machine.action(self.position) is Action.CAPTURE:
            self.captured = surgery.snapshot(self.model)
            self.position = machine.after(self.position)

    def _fresh_noise(self, round: int) -> None:
        """Draw another sample of SGD noise: dropout's seeds change with the round, like the data order."""
        for path, variable in surgery.noise_variables(self.model).items():
            seed = np.array(variable.numpy())
            # Keras keeps (seed, count); tf.random.Generator (count, …, key).
            place = 0 if path.endswith("seed_generator_state") else -1
            seed[place] = noise_seed(int(seed[place]), round)
            variable.assign(seed)

    def _start(self, weights: Snapshot | None = None) -> Snapshot:
        """The start of a later training: the weights of step k (or others), with the schedule of its first step."""
        machine = self._machine()
        if self.captured is None or self.origin is None:
            raise RuntimeError(
                f"{self.name} has not reached step {machine.rewind_step} yet, so there is no state of it."
            )
        at = self.captured if machine.span == "remaining" else self.origin
        source = weights or self.captured
        return replace(source, optimizer=at.optimizer, step=at.step, seeds=self.captured.seeds, state=at.state)

    def _learn_steps_per_epoch(self) -> None:
        machine = self._machine()
        if machine.steps_per_epoch != UNKNOWN:
            return
        # One step per execution: hooks are exact, and Keras counts an iteration more where the data runs out. Several:
        # the last hook may be past the end, and the iterations are exact.
        one = int(self.model.steps_per_execution) == 1
        seen = self._step - self._epoch_start if one else self._iterations() - self._epoch_iterations
        self.machine = self._plan(self.params["epochs"], seen)
        see_rewind_step(self._machine(), self._per_hook(), self._order is not None)
        self._step = self._epoch_start + seen
        self.position = replace(self.position, step=self._step, ended=False)

    def _iterations(self) -> int:
        return surgery.step_of(self.model)

    def _local_epoch(self) -> int:
        return max(self._step - 1, 0) // self._machine().steps_per_epoch
