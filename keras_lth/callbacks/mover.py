"""What every training with moving masks shares: when masks change, how they are put on, and what is said of it."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_lth import surgery
from keras_lth.callbacks.fit_call import fit_argument
from keras_lth.callbacks.rounds import RoundsCallback
from keras_lth.callbacks.state import within
from keras_lth.masks import Masks
from keras_lth.rounds import UNKNOWN, nearest_visible
from keras_lth.schedules import Updates
from keras_lth.surgery.roles import Filter

__all__ = ["Mover"]

# Seconds between two lines about changes.
_QUIET = 5.0


class Mover(keras.callbacks.Callback, ABC):
    """Changes the masks of prunable weights at steps of a training, under ``fit`` and `keras_lth.training.fit`.

    Steps are batches, counted from the start of the ``fit``; epochs before ``initial_epoch`` count. "At step s" means
    after s steps, before the next one. Our loop stops exactly there. ``fit`` with ``steps_per_execution=n`` shows a
    model after every n steps of an epoch and at its end; masks then change at the first of these after step s.

    A subclass defines `_plan`, `_next`, and where it starts with other masks than the model's, `_first`.

    Args:
        include, exclude, also: which weights, as in `keras_lth.prunable`.
        verbose: 0 silent; 1 a line at the beginning, at changes (at most one in five seconds), and at the end.
    """

    def __init__(
        self, *, include: Filter = None, exclude: Filter = None, also: Filter = None, verbose: int = 1
    ) -> None:
        super().__init__()
        self.filters = {"include": include, "exclude": exclude, "also": also}
        self.verbose = verbose
        self._forget()

    def _forget(self) -> None:
        """Drop all state of an earlier fit."""
        self.updates: Any = Updates()
        self.masks = Masks({})
        self.start = Masks({})
        self.changes = 0
        self._step = self._epoch_start = self._batch = 0
        self._done: int | None = None
        self._began = self._bar = False
        self._iterations = 0
        self._was_stored = False  # whether kernels were stored sparse before the current update
        self._said = -_QUIET
        self._held: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Mover:
        # keras-tuner copies callbacks before each fit: the copy starts without state.
        other = copy.copy(self)
        other._forget()
        return other

    # Defined by subclasses.
    @abstractmethod
    def _plan(self, steps_per_epoch: int | None, epochs: int, masks: Masks) -> Any:
        """Return the `Updates` or schedule of a training, in steps; raise ``ValueError`` for what cannot work.

        ``masks`` are those of the model, all True where it has none.
        """

    def _weights(self) -> list[str]:
        """Return the paths of the weights whose masks move."""
        return list(surgery.prunable(self.model, **self.filters))

    def _hold(self, masks: Masks) -> Any:
        """Put the first masks on; return what holds them, as `surgery.Moving` does."""
        return surgery.Moving(self.model, masks)

    def _first(self, masks: Masks) -> Masks:
        """Return the masks to start with."""
        return masks

    @abstractmethod
    def _next(self, step: int, masks: Masks) -> Masks:
        """Return the masks after ``masks`` at ``step``; the model is whole and has the weights of that step."""

    def _changed(self, step: int, before: Masks, after: Masks) -> None:
        """Do what remains after a change of masks; the model is whole, and pruned and grown weights are 0."""

    def _origin(self, epoch: int) -> int:
        """Return the number of steps that count as made when a fit begins with ``epoch``."""
        per_epoch = self._steps_per_epoch() or 0
        inside = self.params["data"].position[1] % per_epoch if self._exact and per_epoch else 0
        return epoch * per_epoch + inside

    def _described(self) -> str:
        """Return what the first line says of the method."""
        return ""

    # Keras' hooks.
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Plan, and put on the first masks."""
        self._forget()
        model = self.model
        self._refuse()
        weights = self._weights()
        if isinstance(model.optimizer, keras.optimizers.Optimizer) and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        worn, shapes = surgery.masks_of(model), surgery.shapes(model)
        own = Masks({path: worn[path] if path in worn else np.ones(shapes[path], bool) for path in weights})
        self.updates = self._plan(self._steps_per_epoch(), self.params["epochs"], own)
        self.start = own
        self.masks = self._chosen(lambda: self._first(own))
        self._held = self._hold(self.masks)
        self._say(f"{self._name}: {self._described()}{self._hidden()}", always=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Change masks if that is due before the first step."""
        per_epoch = self._steps_per_epoch()
        if not self._began:
            self._began = True
            self._step = self._origin(epoch)
            self._see()
        self._epoch_start = self._step
        self._iterations = 0 if per_epoch or self._per_hook == 1 else surgery.step_of(self.model)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note where the execution begins; before Keras 3.11 its end is given as its first step."""
        self._batch = batch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Change masks if that is due."""
        self._bar = True
        if self._exact:
            end = batch + 1
        elif (per_epoch := self._steps_per_epoch()) is not None:
            end = min(self._batch + self._per_hook, per_epoch)
        elif self._per_hook == 1:
            end = self._batch + 1
        else:
            end = surgery.step_of(self.model) - self._iterations
        self._step = self._epoch_start + end
        self._see()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Say what was done."""
        late = self.updates.next(self._step)
        rest = f"; the next change would have been at step {late:,}" if late is not None and not self.changes else ""
        self._say(
            f"{self._name}: {self.changes:,} changes of masks in {self._step:,} steps; {self._density()}{rest}", True
        )

    def set_model(self, model: keras.Model) -> None:
        """Take the model of the fit, which must be one of Keras 3."""
        surgery.check_model(model)
        super().set_model(model)

    # Called by our own loop.
    def steps_until_stop(self) -> int | None:
        """Return the number of steps before the masks change; None if they do not change any more."""
        step = self.updates.next(self._step)
        return None if step is None else step - self._step

    # Called by loops that call no hooks.
    def begin_at(self, model: keras.Model, step: int, data: Any, seed: int, *, resumed: Masks | None = None) -> None:
        """Begin at a step of a training without an end, on `keras_lth.datasets.ordered` data in the order of ``seed``.

        ``resumed``: the masks after the changes at that step; None: a new training.
        """
        self.set_model(model)
        self.set_params(
            {"epochs": 1 << 40, "steps": data.steps_per_epoch, "exact_steps": True, "data": data, "seed": seed}
        )
        self.on_train_begin()
        if resumed is not None:
            self.masks = resumed
            self._moving.set(resumed)
            self._done = self.updates.last(step)
        self.reach(step)

    def reach(self, step: int) -> None:
        """Change masks if that is due after ``step`` steps."""
        self._step, self._began = step, True
        self._see()

    def get_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the position, and the masks that the training began with."""
        plain = {name: getattr(self, name) for name in ("_step", "_epoch_start", "_done", "_began", "changes")}
        return plain, {f"start/{path}": mask for path, mask in self.start.items()}

    def set_state(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from an earlier `get_state`; call it after ``on_train_begin`` and after the model was restored."""
        for name, value in state.items():
            setattr(self, name, value)
        self.start = Masks(within("start", arrays))
        self.masks = self._moving.masks()

    # Its parts.
    def _see(self) -> None:
        due = self.updates.last(self._step)
        if due is None or (self._done is not None and due <= self._done):
            return
        self._done = due
        before = self.masks
        if self._moving.masks() != before:
            raise RuntimeError(
                f"the masks of {self.model.name!r} were changed by something else since {self._name} set them: use one "
                "callback that moves masks, and change masks between fits"
            )
        self._was_stored = self._moving.stored
        with surgery.whole(self.model):
            after = self._chosen(lambda: self._next(due, before))
            if after == before:
                return
            self._moving.set(after)
            self._changed(due, before, after)
        self.masks = after
        self.changes += 1
        if self.model.distribute_strategy.num_replicas_in_sync > 1:
            surgery.check_replicas(self.model)
        pruned, grown = (before & ~after).remaining, (after & ~before).remaining
        kinds = ", ".join(f"{n:,} {what}" for n, what in ((pruned, "pruned"), (grown, "grown")) if n)
        self._say(f"{self._name}, step {self._step:,}: {before.remaining:,} ⇒ {self._density()}; {kinds}")

    def _chosen(self, choose: Any) -> Masks:
        """The masks that the first host chooses."""
        return surgery.hosts_of(self.model).chosen_once({p: m.shape for p, m in self.start.items()}, choose)

    def _density(self) -> str:
        return f"{self.masks.remaining:,} of {self.masks.size:,} weights (density {self.masks.density:.1%})"

    def _hidden(self) -> str:
        """The remark about steps that ``fit`` does not show."""
        n, first = self._per_hook, self.updates.next(-1)
        second = None if first is None else self.updates.next(first)
        due = [step for step in (first, second) if step is not None]
        per_epoch = self._steps_per_epoch() or UNKNOWN
        seen = [nearest_visible(step, per_epoch, n)[1] for step in due]
        if due == seen:
            return ""
        return (
            f"; steps_per_execution={n} hides steps {', '.join(f'{step:,}' for step in due)}, …: masks change at the "
            f"next visible ones, {', '.join(f'{step:,}' for step in seen)}, …"
        )

    def _refuse(self) -> None:
        """Raise for callbacks that cannot stand beside this one."""
        given = self.params.get("neighbours") or fit_argument(self.model, "callbacks") or ()
        given = getattr(given, "callbacks", given)
        for other in given if isinstance(given, Iterable) else (given,):
            if other is not self and isinstance(other, (Mover, RoundsCallback)):
                raise ValueError(
                    f"{type(other).__name__} and {self._name} both change masks in one fit: remove one of them, or run "
                    "two fits"
                )
        if not getattr(self.model, "compiled", False):
            raise ValueError(f"{self._name} needs a compiled model: call model.compile(optimizer, …) first")

    @property
    def _moving(self) -> Any:
        if self._held is None:
            raise RuntimeError(f"{self._name} has not been used in a fit yet.")
        return self._held

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _exact(self) -> bool:
        return bool(self.params.get("exact_steps"))

    @property
    def _per_hook(self) -> int:
        return 1 if self._exact else int(self.model.steps_per_execution)

    def _steps_per_epoch(self) -> int | None:
        steps = self.params.get("steps")
        return int(steps) if steps else None

    def _say(self, text: str, always: bool = False) -> None:
        now = time.monotonic()
        if self.verbose and (always or now - self._said >= _QUIET):
            self._said = self._said if always else now
            if surgery.hosts_of(self.model).chief:
                # Keras' progress bar may be on the line.
                print(("\n" if self._bar and self.params.get("verbose") in (1, "auto") else "") + text, flush=True)
            self._bar = False
