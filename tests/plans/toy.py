"""Trainings of twenty weights in NumPy, with masks, slots, noise and rates as real ones have; all is counted."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_lth.imp import IMP, Noise
from keras_lth.masks import Masks
from keras_lth.plans import Kind, Notebook, Step, Trajectory, trajectory
from keras_lth.store import Value

SIZE = 20
SILENT, HOW = Noise(), IMP(k=50, T=100, rounds=3)
HERE = "tests.plans.toy"
INIT = Kind("init", f"{HERE}:init", keep=False)
FULL = Kind("full", f"{HERE}:full")
TRAIN = Kind(
    "state", f"{HERE}:Trainer", long=True, thin=True, defaults={"noise": {"order": 0, "augment": 0, "dropout": 0}}
)
START = Kind("start", f"{HERE}:start", keep=False, defaults={"slots": "fresh", "step": 0})
SCORE = Kind("score", f"{HERE}:score", keep=False)
CUT = Kind("cut", f"{HERE}:cut", defaults={"target_density": None, "scope": "global", "structure": None})
EVALUATE = Kind("evaluate", f"{HERE}:evaluate")
COMPARE = Kind("compare", f"{HERE}:compare")


def said(*what: Any) -> None:
    """Count something, in the file that TOY_LOG names."""
    if log := os.environ.get("TOY_LOG"):
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.write(descriptor, (json.dumps([os.getpid(), *what]) + "\n").encode())
        os.close(descriptor)


def counted(log: str | Path) -> list[list[Any]]:
    return [json.loads(line) for line in Path(log).read_text().splitlines()] if Path(log).exists() else []


def init(*, seed: int) -> Value:
    said("init", seed)
    return Value({"weights/w": np.random.default_rng(seed).normal(size=SIZE)}, {"step": 0, "slots": False})


def full() -> Value:
    return Value({"w": np.ones(SIZE, bool)}, {"rows": [{"density": 1.0}]})


def start(*states: Value, values: str, step: int, slots: str) -> Value:
    if values == "boom":
        raise ArithmeticError("boom")
    arrays = {name: array for state in states for name, array in state.arrays.items()}
    kept = {name: array for name, array in arrays.items() if slots == "k" or not name.startswith("optimizer/")}
    return Value(kept, {"step": step, "slots": slots == "k"})


def score(state: Value) -> Value:
    return Value({"w": np.abs(state.arrays["weights/w"])})


def cut(scores: Value, masks: Value, **how: Any) -> Value:
    made = IMP.of_cut(**how).prune(scores.arrays, Masks(masks.arrays))
    return Value(dict(made), {"rows": [{"density": made.density, "remaining": made.remaining}]})


def evaluate(state: Value) -> Value:
    said("evaluate")
    return Value({}, {"rows": [{"accuracy": float(np.sum(state.arrays["weights/w"]))}]})


def compare(a: Value, b: Value) -> Value:
    return Value({}, {"rows": [{"distance": float(np.abs(a.arrays["weights/w"] - b.arrays["weights/w"]).sum())}]})


class Trainer:
    """SGD with momentum on a quadratic with noise; the loss of momentum or of a mask shows in the bits."""

    def __init__(self, *, rates: Any, noise: Mapping[str, int], calls: int = 7, sleep: float = 0.0) -> None:
        self.rates, self.noise = rates, noise
        self.sleep = float(os.environ.get("TOY_SLEEP", sleep))
        self.calls = int(os.environ.get("TOY_CALLS", calls))

    def load(self, state: Value, masks: Value | None, *, first: bool) -> None:
        self.mask = np.ones(SIZE, bool) if masks is None else masks.arrays["w"]
        self.w = np.where(self.mask, state.arrays["weights/w"], 0.0)
        self.m = np.array(state.arrays.get("optimizer/m", np.zeros(SIZE)))
        self.step = state.meta["step"]
        said("load", self.noise["order"], self.step, first)

    def advance(self, to: int) -> None:
        said("train", self.noise["order"], self.step, to)
        time.sleep(self.sleep)
        for step in range(self.step, to):
            rate = [rate for since, rate in self.rates if since <= step][-1]
            noise = np.random.default_rng([self.noise["order"], step]).normal(size=SIZE)
            self.m = np.where(self.mask, 0.9 * self.m + self.w + noise, 0.0)
            self.w = self.w - rate * self.m
        self.step = to

    def state(self) -> Value:
        return Value({"weights/w": self.w.copy(), "optimizer/m": self.m.copy()}, {"step": self.step, "slots": True})

    def observe(self, what: str) -> dict[str, float]:
        said("observe", self.step)
        return {what: float(np.abs(self.w).sum())}


@dataclass(frozen=True)
class Lab:
    """What a toy plan is written with."""

    book: Notebook
    rates: Any = 0.01

    def on(self, **setting: Any) -> Lab:
        return replace(self, **setting)

    def init(self, seed: int) -> Step:
        return INIT(seed=seed)

    def train(self, start: Step, masks: Step | None = None, noise: Noise = SILENT, **more: Any) -> Trajectory:
        return trajectory(TRAIN, start, masks, self.rates, noise=noise._asdict(), **more)

    def start(self, wk: Step, end: Step, values: str, step: int, slots: str) -> Step:
        inputs = [end if values == "trained" else wk]
        if wk.point is not None:
            kept = wk.point.trajectory.slots(wk.point.step)
            self.book.beside(wk, kept)
            inputs += [kept] if slots == "k" else []
        return START(*inputs, values=values, step=step, slots=slots)


def imp(book: Notebook, how: IMP = HOW, replicate: int = 0, **more: Any) -> Any:
    """IMP whole: as the page of the real one."""
    how = replace(how, seed=1000 * replicate)
    lab = Lab(book)
    run, masks, levels = lab.train(lab.init(replicate), FULL(), how.noise(0), **more), FULL(), []
    wk = run.at(how.k)
    for level in range(how.rounds + 1):
        levels.append((masks, run))
        book.row(EVALUATE(run.at(how.end(level))), masks, arm="imp", replicate=replicate, level=level)
        if level < how.rounds:
            masks = CUT(SCORE(run.at(how.end(level))), masks, **how.cut())
            start = lab.start(wk, run.at(how.end(level)), **how.start(level + 1))
            run = lab.train(start, masks, how.noise(level + 1), **more)
    return wk, levels


def imps(book: Notebook, replicates: int = 2, **more: Any) -> None:
    for replicate in range(replicates):
        imp(book, replicate=replicate, **more)


def instability(book: Notebook, ks: tuple[int, ...] = (0, 50), how: IMP = HOW) -> None:
    """Forks of two levels of IMP; it looks at the barrier before it names its row."""
    lab = Lab(book)
    _, levels = imp(Notebook(lambda step: None), how)

    def fork(what: tuple[int, int]) -> None:
        level, k = what
        masks, run = levels[level]
        ends = [lab.train(run.at(max(k, run.begin)), masks, Noise(n)).at(how.T) for n in (7, 8)]
        (row,) = book.look(COMPARE(*ends)).rows
        book.row(COMPARE(*ends), network=level, k=k, stable=row["distance"] < 1e9)

    book.each([(level, k) for level in (0, 2) for k in ks], fork)
