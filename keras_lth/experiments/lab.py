"""`Lab`, with which plans are written. It names steps; it neither trains nor imports anything that does."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from keras_lth import datasets
from keras_lth.files.folders import fingerprint
from keras_lth.imp import Noise
from keras_lth.plans import Beside, Kind, Notebook, Step, Trajectory, trajectory
from keras_lth.plans.step import Versioned, resolve
from keras_lth.store import Value

T = TypeVar("T")
U = TypeVar("U")

_HERE = "keras_lth.experiments.kinds"
_NETWORK = {
    "options": {},
    "data_options": dict(datasets.OPTIONS),
    "loss": "sparse_categorical_crossentropy",
    "metrics": ["accuracy"],
}
_OF_NETWORK: dict[str, Any] = {"network": _NETWORK}
SILENT = Noise()

INIT = Kind("init", f"{_HERE}:init", defaults=_OF_NETWORK, keep=False)
EXAMPLES = Kind("examples", f"{_HERE}:examples", defaults=_OF_NETWORK)
FULL = Kind("full", f"{_HERE}:full", defaults={**_OF_NETWORK, "include": None, "exclude": None})
STATE = Kind(
    "state",
    f"{_HERE}:Trainer",
    defaults={
        **_OF_NETWORK,
        "noise": SILENT._asdict(),
        "optimizer": {},
        "augment": None,
        "jit_compile": None,
        "kernels": "dense",
        "mover": None,
    },
    long=True,
    thin=True,
)
START = Kind(
    "start",
    f"{_HERE}:start",
    defaults={**_OF_NETWORK, "values": "k", "slots": "fresh", "seed": 0},
    keep=False,
)
_SCORED: dict[str, Any] = {**_OF_NETWORK, "examples": 0, "options": {}, "invert": False}
SCORE = Kind("score", f"{_HERE}:score", defaults=_SCORED, keep=False)
ITERATE = Kind("iterate", f"{_HERE}:iterate", defaults={**_SCORED, "schedule": "exponential"}, long=True)
CHANGE = Kind("change", f"{_HERE}:change", defaults={**_OF_NETWORK, "seed": 0}, keep=False)
CUT = Kind(
    "cut",
    f"{_HERE}:cut",
    defaults={
        "target_density": None,
        "scope": "global",
        "structure": None,
        "min_per_layer": None,
        "compat": None,
        "ignored": 0,
    },
)
SELECT = Kind("select", f"{_HERE}:selected", defaults={"scope": "global", "structure": None, "density": None})
COMBINE = Kind("combine", f"{_HERE}:combine")
HELD = Kind("held", f"{_HERE}:held")
SWAP = Kind("swap", f"{_HERE}:swap", defaults={"overlap": None})
REGROW = Kind("regrow", f"{_HERE}:regrow", keep=False)
SHUFFLE = Kind("shuffle", f"{_HERE}:shuffle", defaults={"scope": "layer"})
LAYERS = Kind("layers", f"{_HERE}:layers")
DEGREES = Kind("degrees", f"{_HERE}:degrees", version=2)
MOVED = Kind("moved", f"{_HERE}:moved")
EVALUATE = Kind("evaluate", f"{_HERE}:evaluate", defaults={**_OF_NETWORK, "what": "test"}, long=True)
COMPARE = Kind(
    "compare",
    f"{_HERE}:compare",
    defaults={**_OF_NETWORK, "what": "test", "points": 30, "statistics": "interpolate", "examples": 0},
    long=True,
)
DISTANCES = Kind("distances", f"{_HERE}:distances", defaults={**_OF_NETWORK, "what": "test", "examples": 0})
AVERAGE = Kind("average", f"{_HERE}:average", defaults={**_OF_NETWORK, "reestimate": False})
MATCHED = Kind("matched", f"{_HERE}:matched", defaults={**_OF_NETWORK, "seed": 0})
PLANE = Kind(
    "plane", f"{_HERE}:plane", defaults={**_OF_NETWORK, "what": "test", "examples": 0, "margin": 0.2}, long=True
)
TRAVELLED = Kind("travelled", f"{_HERE}:travelled")


def network(data: Any, model: Any, *, data_options: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Describe the data of a network, and how it is built.

    Args:
        data: a name of `keras_lth.datasets`; the path of an .npz file with x_train, y_train, x_test and y_test; or a
            function with ``@versioned`` that returns `datasets.Splits` or `Streams`, or "module:function" of it.
        model: a name of `keras_lth.models`, or such a function, of (shape of an example, classes, seed, **options).
        data_options: what is made of the data, such as ``{"holdout": 0.1}``: options of `datasets.derived`.
        options: options of the model.

    Raises ``ValueError`` or ``ImportError`` for a function that a worker cannot import or that has no version, and
    ``ValueError`` for data options that cannot work.
    """
    datasets.check_options(data_options or {})
    return {
        "data": _recipe(data), "data_options": dict(data_options or {}), "model": _recipe(model), "options": options,
    }  # fmt: skip


def _check_part(network: Mapping[str, Any], what: Any) -> None:
    """Refuse a part that the data will not have, before anything is trained. Data of a user's own may hold out."""
    if what not in datasets.PARTS:
        raise ValueError(f"a network can be measured on {', '.join(datasets.PARTS)}, not on {what!r}.")
    own = isinstance(network["data"], Versioned)
    if what == "holdout" and not own and network.get("data_options", {}).get("holdout") is None:
        raise ValueError(f"what='holdout': {datasets.NO_HOLDOUT}.")


def _recipe(value: Any) -> Any:
    if isinstance(value, str) and value.endswith(".npz"):
        return _file(os.path.abspath(value), *_stamp(value))
    found = resolve(value) if isinstance(value, str) and ":" in value else value
    if not isinstance(found, (str, Versioned)):
        raise ValueError(f"{value!r} has no version: decorate it with @keras_lth.versioned(version=1).")
    return found


def _stamp(path: str) -> tuple[int, int]:
    about = os.stat(path)
    return about.st_size, about.st_mtime_ns


@functools.lru_cache
def _file(path: str, size: int, changed: int) -> Beside:
    """A file named by its digest, which is computed once for each size and modification time."""
    with open(path, "rb") as file:
        digest = fingerprint(file)["sha256"]
    return Beside({"sha256": digest}, {"sha256": digest, "file": path})


@dataclass(frozen=True)
class Lab:
    """A laboratory: data, model, optimizer and batch size, with which a plan names steps.

    Args:
        book: the `Notebook` of the plan, for rows and looks.
        network: data, model and its options, from `network`.
        optimizer: ``{"name": …, options}``, without its rate; "momentum" follows the papers' equations.
        rates: the learning rate, or ``((from step, rate), …)``, as `keras_lth.rates.rates` returns it.
        batch_size: examples a step.
        augment: as `datasets.ordered` takes it.
        jit_compile: as `training.fit` takes it.
        kernels: "dense", "auto" or "sparse": what masked trainings multiply by (`keras_lth.layers.fitted`). The choice
            of "auto" is a function of shapes, masks and batch, the same on every machine.
        exclude: regexes of weights that are never pruned.
    """

    book: Notebook
    network: Mapping[str, Any]
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    rates: Any = 0.1
    batch_size: int = 32
    augment: Any = None
    jit_compile: bool | None = None
    kernels: str = "dense"
    exclude: Any = None

    def on(self, **setting: Any) -> Lab:
        """Return the same `Lab` with another setting; states can be passed between them."""
        return replace(self, **setting)

    # States and trainings.
    def init(self, seed: int) -> Step:
        """Name the state before the first step: newly sampled values."""
        return INIT(seed=seed, network=self.network)

    def train(
        self, start: Step, masks: Step | None = None, noise: Noise = SILENT, *, mover: Mapping[str, Any] | None = None
    ) -> Trajectory:
        """Name a training without an end; use ``.at(step)`` and ``.observed("test", every=…, to=…)``.

        What can be observed is "test", "train", and "holdout" if the data options hold out examples. ``mover`` changes
        the masks on the way: ``{"name": "rigl", "density": 0.1, "every": 100, "until": 9_000}``, with times in steps
        (`experiments.moving`); `held` gives the masks of its states.
        """
        line = trajectory(
            STATE,
            start,
            masks,
            self.rates,
            noise=noise._asdict(),
            network=self.network,
            optimizer=self.optimizer,
            batch_size=self.batch_size,
            augment=self.augment,
            jit_compile=self.jit_compile,
            kernels="dense" if masks is None and mover is None else self.kernels,
            mover=None if mover is None else dict(mover),
        )
        return replace(line, check=functools.partial(_check_part, self.network))

    def start(
        self, wk: Step, other: Step, *, values: str = "k", step: int, slots: str = "fresh", seed: int = 0
    ) -> Step:
        """Name what a round starts from: a state at another step.

        ``values``: "k": those of ``wk``; "trained": those of ``other``, the end of a training; "fresh": new ones;
        "signs": new ones with the signs of ``wk``; "noise": those of ``wk`` plus new ones; "shuffled": those of ``wk``,
        permuted among the weights that the masks ``other`` keep in each layer; "unit": those of ``wk``, scaled to a
        deviation of 1 in each layer of the masks ``other``; "constant": the signs of ``wk`` times that deviation.
        """
        kept = () if wk.point is None else (wk.point.trajectory.slots(wk.point.step),)
        for each in kept:  # forks start from W_k
            self.book.beside(wk, each)
        if values == "trained":
            return START(wk, other, values=values, step=step)
        if values in ("shuffled", "unit", "constant"):
            return START(wk, other, values=values, step=step, seed=seed)
        if values in ("fresh", "signs", "noise"):
            return START(wk, self.init(seed), values=values, step=step)
        return START(wk, *(kept if slots == "k" else ()), step=step, slots=slots)

    def examples(self) -> Step:
        """Name the number of examples and classes of the data."""
        return EXAMPLES(network=self.network)

    # Scores and masks.
    def full(self, include: Any = None, exclude: Any = None) -> Step:
        """Name masks that keep every prunable weight, except those that the arguments or the `Lab` exclude."""
        return FULL(network=self.network, include=include, exclude=exclude or self.exclude)

    def score(
        self,
        criterion: Any,
        state: Step,
        masks: Step | None = None,
        *,
        examples: int | Mapping[str, int] = 0,
        invert: bool = False,
        **options: Any,
    ) -> Step:
        """Name scores of a state.

        Args:
            criterion: the name of one of `keras_lth.criteria`, or a versioned function of (model, x, y).
            state: the state.
            masks: what remains of it; None for all.
            examples: what a criterion sees: the first so many training examples, 0 for all; or so many of each class,
                ``{"per_class": 10, "seed": 1}``.
            invert: highest for the weights that the criterion finds least important.
            options: of the criterion.
        """
        inputs = [state] if masks is None else [state, masks]
        return SCORE(
            *inputs, criterion=criterion, network=self.network, examples=examples, invert=invert, options=options
        )

    def iterate(
        self,
        criterion: Any,
        state: Step,
        *,
        density: float,
        iterations: int = 100,
        schedule: str = "exponential",
        examples: int | Mapping[str, int] = 0,
        invert: bool = False,
        **options: Any,
    ) -> Step:
        """Name masks of a state, pruned in many cuts by fresh scores each (`keras_lth.prune_iteratively`)."""
        return ITERATE(
            state, criterion=criterion, network=self.network, density=density, iterations=iterations,
            schedule=schedule, examples=examples, invert=invert, options=options,
        )  # fmt: skip

    def change(self, criterion: str, before: Step, after: Step, *, seed: int = 0) -> Step:
        """Name scores of what training did to each prunable weight; ``criterion``: of `changes.CRITERIA`."""
        return CHANGE(before, after, network=self.network, criterion=criterion, seed=seed)

    def cut(self, scores: Step, masks: Step, **cut: Any) -> Step:
        """Name the masks after one cut of ``masks``, by ``**imp.cut()``."""
        return CUT(scores, masks, **cut)

    def select(self, scores: Step, **how: Any) -> Step:
        """Name masks of the highest scores, with density, scope and structure as in `selection.select`."""
        return SELECT(scores, **how)

    def held(self, state: Step) -> Step:
        """Name the masks of a state whose training has a mover."""
        return HELD(state)

    def combine(self, how: str, *masks: Step) -> Step:
        """Name a combination of masks: "and" or "or" of several, "not" of one."""
        return COMBINE(*masks, how=how)

    def swap(self, kept: Step, grown: Step, masks: Step, like: Step, *, overlap: float | None = None) -> Step:
        """Name masks with as many weights as ``like``: some of those of ``masks``, and new ones, of the highest scores.

        ``kept`` scores the weights that stay, ``grown`` the new ones. ``overlap`` is the share that stays; None: as
        many as ``like`` and ``masks`` have in common.
        """
        return SWAP(kept, grown, masks, like, overlap=overlap)

    def regrow(self, state: Step, masks: Step, fresh: Step, *, step: int) -> Step:
        """Name the state with the values of ``fresh`` where ``masks`` keep nothing, and fresh slots."""
        return REGROW(state, masks, fresh, step=step)

    def shuffle(self, masks: Step, seed: int, scope: str = "layer") -> Step:
        """Name masks with as many weights at random positions, in each layer or over the network."""
        return SHUFFLE(masks, seed=seed, scope=scope)

    def reinit(self, seed: int) -> Step:
        """Name newly sampled values: `init` under the name that the papers use."""
        return self.init(seed)

    # Numbers.
    def evaluate(self, state: Step, masks: Step | None = None, what: str = "test") -> Step:
        """Name loss and metrics of a state on "test", "train" or "holdout"; those on the latter two have its name
        before theirs, such as holdout_loss.

        Raises ``ValueError`` for "holdout" without a hold-out; says which key to set.
        """
        _check_part(self.network, what)
        inputs = [state] if masks is None else [state, masks]
        return EVALUATE(*inputs, network=self.network, what=what)

    def layers(self, masks: Step) -> Step:
        """Name one row per layer: path, size, remaining, density."""
        return LAYERS(masks)

    def degrees(self, masks: Step) -> Step:
        """Name one row per layer: the weights that remain of each input and each output, and all those of an output."""
        return DEGREES(masks)

    def moved(self, before: Step, after: Step, masks: Step) -> Step:
        """Name one row per layer: how far the remaining weights moved between two states, and how many changed sign."""
        return MOVED(before, after, masks)

    def compare(self, a: Step, b: Step, **how: Any) -> Step:
        """Name the error along the line between two states, their distance and their angle.

        ``how``: ``what``, ``points``, ``statistics``, and ``examples``: so many evenly spaced ones, 0 for all.
        """
        _check_part(self.network, how.get("what", "test"))
        return COMPARE(a, b, network=self.network, **how)

    def distances(self, a: Step, b: Step, **how: Any) -> Step:
        """Name how many examples two states classify differently, and how much their losses differ.

        ``how``: ``what`` and ``examples``, as in `compare`.
        """
        _check_part(self.network, how.get("what", "test"))
        return DISTANCES(a, b, network=self.network, **how)

    def travelled(self, init: Step, at_k: Step, masks: Step, ends: Iterable[Step]) -> Step:
        """Name how far the remaining weights move from the initial state to step k, to the ends, and between them."""
        return TRAVELLED(init, at_k, masks, *ends)

    def average(self, *states: Step, step: int, reestimate: bool = False) -> Step:
        """Name the mean of states, a state at ``step`` without slots; its normalisation statistics are the means, or
        estimated again on the training data.
        """
        return AVERAGE(*states, step=step, reestimate=reestimate, network=self.network)

    def matched(self, a: Step, b: Step, *, seed: int = 0) -> Step:
        """Name the state ``b`` with its hidden units permuted to be near those of ``a``: see `analysis.symmetries`."""
        return MATCHED(a, b, network=self.network, seed=seed)

    def plane(self, a: Step, b: Step, c: Step, *, points: int, **how: Any) -> Step:
        """Name the error on a grid of the plane through three states; ``how``: ``what``, ``examples``, ``margin``."""
        _check_part(self.network, how.get("what", "test"))
        return PLANE(a, b, c, network=self.network, points=points, **how)

    # The notebook.
    def row(self, *steps: Step, **labels: Any) -> None:
        """Name a row: see `Notebook.row`."""
        self.book.row(*steps, **labels)

    def look(self, step: Step) -> Value:
        """Wait for a value: see `Notebook.look`."""
        return self.book.look(step)

    def each(self, items: Iterable[T], branch: Callable[[T], U]) -> list[U]:
        """Let no branch wait for another: see `Notebook.each`."""
        return self.book.each(items, branch)
