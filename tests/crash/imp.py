"""A run of iterative magnitude pruning whose training is NumPy arithmetic: all the files of a real one, no TensorFlow.

It keeps to the rules of docs/checkpoints.md, so it may die anywhere: started again, it ends with the same files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from keras_lth import files
from keras_lth.files.checkpoints import Checkpoints
from keras_lth.masks import Masks
from keras_lth.rounds import Action, Position, Rounds, noise_seed
from keras_lth.selection import select
from keras_lth.tickets import Snapshot, Ticket

PLAN = Rounds(rounds=1, epochs=1, steps_per_epoch=4, rewind_step=1)
CONFIG = {"seed": 7, "fraction": 0.4, "rounds": PLAN.rounds, "steps": PLAN.total_steps}
SHAPES = {"first/kernel": (6, 5), "first/bias": (5,), "second/kernel": (5, 3)}


class Net:
    """Weights, momentum and masks; a step is a function of them and of (seed, step)."""

    def __init__(self) -> None:
        draw = np.random.default_rng(CONFIG["seed"])
        self.weights = {path: draw.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}
        self.momentum = {path: np.zeros(shape, np.float32) for path, shape in SHAPES.items()}
        self.masks = Masks.ones({path: shape for path, shape in SHAPES.items() if "kernel" in path})
        self.loss = 0.0

    def train(self, seed: int, step: int) -> None:
        draw = np.random.default_rng([seed, step])
        for path, weight in self.weights.items():
            gradient = weight + draw.normal(size=weight.shape).astype(np.float32)
            slot = np.float32(0.9) * self.momentum[path] + gradient
            slot = np.where(self.masks.get(path, True), slot, np.float32(0))
            self.momentum[path], self.weights[path] = slot, weight - np.float32(0.1) * slot
        self.loss = float(sum(np.sum(np.square(weight, dtype=np.float64)) for weight in self.weights.values()))

    def snapshot(self, step: int) -> Snapshot:
        return Snapshot(self.weights, self.momentum, step)

    def go_back(self, snapshot: Snapshot, masks: Masks) -> None:
        self.masks = masks
        self.weights = masks.apply(snapshot.weights)
        self.momentum = masks.apply(snapshot.optimizer)

    def arrays(self) -> dict[str, np.ndarray]:
        parts = {"weights": self.weights, "momentum": self.momentum, "masks": self.masks}
        return {f"{part}/{path}": array for part, held in parts.items() for path, array in held.items()}

    def restore(self, arrays: Any, state: Any) -> None:
        parts: dict[str, dict[str, np.ndarray]] = {"weights": {}, "momentum": {}, "masks": {}}
        for name, array in arrays.items():
            part, _, path = name.partition("/")
            parts[part][path] = array.copy()
        self.weights, self.momentum, self.masks = parts["weights"], parts["momentum"], Masks(parts["masks"])
        self.loss = state["loss"]


def run(folder: str, every: int = 1, told: Callable[[str, Any], None] = lambda what, which: None) -> None:
    """The whole run, or the rest of it; a checkpoint after each ``every``-th event of the plan, and at the end.

    ``told`` hears what is on the disk for good: a file, the number of lines, the events up to a checkpoint.
    """
    with files.DirectoryLock(folder) as lock:
        path = files.join(folder, "config.json")
        if "config.json" not in files.list_names(folder):
            files.write_atomic(path, json.dumps(CONFIG).encode())
            told("file", "config.json")
        if json.loads(files.read_bytes(path)) != CONFIG:
            raise ValueError(f"{folder} contains another run")
        _go(folder, every, lock, told)


def _go(folder: str, every: int, lock: files.DirectoryLock, told: Callable[[str, Any], None]) -> None:
    net, at, lines, events = Net(), Position(), 0, 0
    metrics, rewind = files.join(folder, "metrics.jsonl"), files.join(folder, "rewind.state")
    checkpoints = Checkpoints(files.join(folder, "checkpoints"), keep=2)
    if found := checkpoints.latest():
        net.restore(found.arrays, found.state)
        at, lines, events = Position(**found.state["at"]), found.state["lines"], found.state["events"]
    files.keep_lines(metrics, lines)
    checkpoints.sweep()
    while (action := PLAN.action(at)) is not Action.DONE:
        ticket = files.join(folder, "tickets", f"level_{at.round:02d}.ticket")
        if action is Action.CAPTURE:
            net.snapshot(at.step).save(rewind)
            told("file", "rewind.state")
        elif action is Action.TRAIN:
            for step in range(at.step, PLAN.stop(at)):
                net.train(noise_seed(CONFIG["seed"], at.round), step)
        elif action is Action.END_EPOCH:
            row = {"round": at.round, "step": at.step, "loss": net.loss, "density": net.masks.density}
            files.append_line(metrics, json.dumps(row))
            lines += 1
            told("lines", lines)
        elif action is Action.PRUNE:
            kept = net.masks.remaining - math.floor(CONFIG["fraction"] * net.masks.remaining)
            masks = select({path: net.weights[path] for path in net.masks}, k=kept, within=net.masks)
            Ticket(masks, Snapshot.load(rewind), {"criterion": "magnitude"}, keep_slots=True).save(ticket)
            told("file", f"tickets/level_{at.round:02d}.ticket")
        elif action is Action.REWIND:
            there = Ticket.load(ticket)
            net.go_back(there.snapshot, there.masks)
        at, events = PLAN.after(at), events + 1
        if events % every == 0 or PLAN.action(at) is Action.DONE:
            lock.check()
            state = {"at": asdict(at), "lines": lines, "events": events, "loss": net.loss}
            checkpoints.save(at.step, net.arrays(), state)
            told("events", events)
    files.write_manifest(folder, ["config.json", "metrics.jsonl", "rewind.state", "tickets/level_00.ticket"])
    told("file", "manifest.json")
    files.check_manifest(folder)
