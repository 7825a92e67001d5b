"""Resume a killed training: commits of the whole state of a loop, even inside an epoch."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_lth import files, surgery
from keras_lth.callbacks.state import decode, encode, get_state, set_state
from keras_lth.files.checkpoints import Checkpoints
from keras_lth.files.locks import NAME
from keras_lth.masks import Masks
from keras_lth.tickets import Snapshot

__all__ = ["Begin", "Inside", "Resuming"]

TERMINATED = 128 + signal.SIGTERM


class Inside(NamedTuple):
    """A position inside an epoch: the seed of the data order, the step, and the step at which the epoch began."""

    seed: int
    step: int
    start: int


@dataclasses.dataclass(frozen=True)
class Begin:
    """Where a loop begins: an epoch, and the position inside it if it was interrupted, with the logs so far."""

    epoch: int
    inside: Inside | None = None
    logs: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Resuming:
    """Commits the state of a loop to a folder, and starts a loop from the last commit; without a folder, does neither.

    A context manager: inside, the folder is locked, and SIGTERM makes the loop commit and raise ``SystemExit(143)``. Of
    several hosts the chief writes and all read; a decision of one applies to all.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        every: float,
        model: keras.Model,
        data: Any,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        self._store = None if folder is None else Checkpoints(folder)
        self._lock = None if folder is None else files.DirectoryLock(folder)
        self._every = every
        self._hosts = surgery.hosts_of(model)
        self._model = model
        self._data = data
        self._callbacks = list(callbacks)
        self._last = time.monotonic()
        self._terminated = False
        self._previous: Any = None

    def __enter__(self) -> Resuming:
        if self._lock is not None:
            locked = self._hosts.first(self._locked)
            self._hosts.check_same(bytes([locked]), f"what is in {self._lock.folder}")
            if threading.current_thread() is threading.main_thread():
                self._previous = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.release()
            if self._previous is not None:
                signal.signal(signal.SIGTERM, self._previous)

    def start(self, epoch: int, gone_on: int | None) -> Begin:
        """Return where to begin, and restore model and callbacks: at the last commit, if it is not before ``epoch``.

        Without a commit, begin at ``gone_on``, where a callback has resumed from its own files. These may be ahead of a
        commit, but the commit takes precedence, because it holds the state of every callback.

        Raises ``ValueError`` that names the differences if the folder contains another run.
        """
        begin = Begin(epoch if gone_on is None else max(epoch, gone_on))
        if self._store is None:
            return begin
        found = self._hosts.first(self._latest)
        self._hosts.check_same(b"" if found is None else found.path.encode(), f"checkpoints in {self._store.folder}")
        if found is None:
            return begin
        state = found.state
        _compare(state["run"], self._run(), self._store)
        if state["epoch"] < epoch:
            return begin
        self._restore(found.arrays, state)
        inside = Inside(*state["inside"]) if state["inside"] is not None else None
        return Begin(state["epoch"], inside, decode(state["logs"]))

    def commit_if_due(self, epoch: int, inside: Inside | None = None, logs: Mapping[str, float] | None = None) -> None:
        """Commit if it is time, or if the process was asked to end; then end it."""
        if self._store is None:
            return
        due = self._hosts.chief and time.monotonic() - self._last >= self._every
        told = self._hosts.gather([due, self._terminated]).max(axis=0).tolist()
        if not any(told):
            return
        self._commit(epoch, inside, logs or {})
        if told[1]:
            raise SystemExit(TERMINATED)

    def finish(self, epochs: int, logs: Mapping[str, float]) -> None:
        """Commit the end, so that the same program finds it when started again."""
        if self._store is not None:
            self._commit(epochs, None, logs)

    def _locked(self) -> bool:
        """Whether the lock of the chief is visible, so that all hosts share the folder."""
        if self._lock is None:
            return False
        if self._hosts.chief:
            self._lock.acquire()
        return (files.RunPath(self._lock.folder) / NAME).exists()

    def _latest(self) -> Any:
        if self._store is None:
            return None
        found = self._store.latest()
        if self._hosts.chief:
            self._store.sweep()
        return found

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True

    def _commit(self, epoch: int, inside: Inside | None, logs: Mapping[str, float]) -> None:
        if self._store is None or self._lock is None:
            return
        if self._hosts.chief:
            self._lock.check()
        snapshot = surgery.snapshot(self._model)
        arrays = dict(snapshot.named())
        arrays |= {f"masks/{path}": mask for path, mask in surgery.masks_of(self._model).items()}
        arrays |= {f"metrics/{i:03d}": parts for i, parts in enumerate(self._metrics())}
        states = []
        for number, callback in enumerate(self._callbacks):
            state, held = get_state(callback)
            states.append({"name": type(callback).__name__, "state": state})
            arrays |= {f"callbacks/{number}/{name}": value for name, value in held.items()}
        state = {
            "run": self._run(),
            "epoch": epoch,
            "inside": None if inside is None else list(inside),
            "position": list(self._data.position),
            "step": snapshot.step,
            "logs": encode(dict(logs)),
            "callbacks": states,
        }
        if self._hosts.chief:
            self._store.save(snapshot.step, arrays, state)
        self._last = time.monotonic()

    def _metrics(self) -> list[np.ndarray]:
        """The values of each metric variable on the replicas, each a part of the sum: (replicas, …)."""
        mine = [np.stack([copy.numpy() for copy in _copies(v)]) for v in self._model.metrics_variables]
        said = b"".join(parts.tobytes() for parts in mine)
        words = np.frombuffer(said + bytes(-len(said) % 4), np.int32)
        hosts = [row.tobytes() for row in self._hosts.gather(words)]
        result, begin = [], 0
        for parts in mine:
            end = begin + parts.nbytes
            rows = [np.frombuffer(row[begin:end], parts.dtype).reshape(parts.shape) for row in hosts]
            result.append(np.concatenate(rows))
            begin = end
        return result

    def _restore(self, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
        model = self._model

        def part(name: str) -> dict[str, np.ndarray]:
            return {key[len(name) + 1 :]: value for key, value in arrays.items() if key.startswith(f"{name}/")}

        masks = Masks(part("masks"))
        snapshot = Snapshot.from_named(arrays, state["step"])
        surgery.rewind(model, snapshot, masks or None, restore_optimizer=True)
        for parts, variable in zip(part("metrics").values(), model.metrics_variables, strict=True):
            copies = _copies(variable)
            first = self._hosts.index * len(copies)
            if len(parts) != self._hosts.count * len(copies):
                # The number of replicas has changed: one of them continues from the sum.
                parts = np.stack([parts.sum(axis=0, dtype=parts.dtype), *np.zeros_like(parts[:1])])
                first = 0 if self._hosts.chief else 1
            for number, copy in enumerate(copies):
                copy.assign(parts[min(first + number, len(parts) - 1)])
        for number, (callback, held) in enumerate(zip(self._callbacks, state["callbacks"], strict=True)):
            set_state(callback, held["state"], part(f"callbacks/{number}"))
        seed, step = state["position"]
        self._data.seek(step, seed)

    def _run(self) -> dict[str, Any]:
        """Settings that must match to resume a run."""
        optimizer = getattr(self._model, "optimizer", None)
        return {
            "weights": {path: list(shape) for path, shape in surgery.shapes(self._model).items()},
            "optimizer": type(optimizer).__name__,
            "batch_size": self._data.batch_size,
            "steps_per_epoch": self._data.steps_per_epoch,
            "callbacks": [type(callback).__name__ for callback in self._callbacks],
        }


def _compare(there: Mapping[str, Any], here: Mapping[str, Any], store: Any) -> None:
    differs = [key for key in here if there.get(key) != here[key]]
    if differs:
        listed = "; ".join(f"{key}: {_brief(there.get(key))} there, {_brief(here[key])} here" for key in differs)
        raise ValueError(f"{store.folder} contains another run ({listed}): choose another folder")


def _copies(variable: Any) -> list[Any]:
    value = variable._value
    return list(getattr(value, "values", (value,)))


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
