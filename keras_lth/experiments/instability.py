"""Instability to SGD noise (thesis 4.1.1, Algorithm 3): copies of a state under several noises, compared in pairs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from keras_lth.experiments.lab import Lab
from keras_lth.experiments.lottery import Level, levels
from keras_lth.imp import IMP, Noise, at_least
from keras_lth.plans import Step, Trajectory
from keras_lth.rounds import noise_seed
from keras_lth.seeds import seed_of

# What is forked. "dense": the whole network at step k. "ticket": the training of a level of IMP, whose rewinding step
# is that of the setting, at step k. The others rewind to k itself (thesis 4.2.2): "imp": the subnetwork that IMP with
# rewinding to k finds, "random_layerwise": as many weights at random positions in each layer of the dense network of
# step k, "reinit": IMP's masks with new initial values at step k.
NETWORKS = ("dense", "ticket", "imp", "random_layerwise", "reinit")
SPANS = ("remaining", "restart")
NOISES = ("both", "order", "augment")


@dataclass(frozen=True)
class Copies:
    """How copies of a state are trained.

    Args:
        runs: how many copies; all pairs are compared.
        span: "remaining": from step k to T; "restart": T steps with the schedule from step 0 (thesis, figure 4-4).
        noise: in what the copies differ: "both" (and dropout), or only in the "order" of the data or in what "augment"
            draws.
        seeds: one of each copy; by default they follow from the experiment's seed.
        setting: another setting of the `Lab` after the fork, such as ``{"rates": 0.01}``; slots are then fresh.
    """

    runs: int = 3
    span: str = "remaining"
    noise: str = "both"
    seeds: Sequence[int] = ()
    setting: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, given, known in (("span", self.span, SPANS), ("noise", self.noise, NOISES)):
            if given not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {given!r}.")
        if twice := sorted({seed for seed in self.seeds if list(self.seeds).count(seed) > 1}):
            raise ValueError(
                f"seeds has {twice[0]} twice, so two copies would be the same training: give each copy its own seed."
            )
        if self.seeds and len(self.seeds) != self.runs:
            raise ValueError(f"seeds has {len(self.seeds)} seeds for runs={self.runs}: give one for each copy.")

    def noises(self, seed: int) -> list[Noise]:
        """Return the noise of each copy."""
        seeds = self.seeds or [noise_seed(seed, number) for number in range(self.runs)]
        if self.noise == "both":
            return [Noise(each, each, number) for number, each in enumerate(seeds)]
        if self.noise == "order":
            return [Noise(each, seed) for each in seeds]
        return [Noise(seed, each) for each in seeds]


@dataclass(frozen=True)
class Measures:
    """What is measured of the copies.

    Args:
        data: the parts of the data: "test", "train".
        every: steps between comparisons through the training; 0 for the end alone (thesis, figures 4-5, 4-21).
        distances: whether classifications and losses are compared (thesis 4.1.5).
        state: whether the state at step k and the copies' own errors are measured (thesis 4.3).
        test_examples, train_examples: of each part, evenly spaced; 0 for all. The errors of the copies themselves are
            on all test examples.
        points, statistics: as in `analysis.linear_path`.
    """

    data: Sequence[str] = ("test", "train")
    every: int = 0
    distances: bool = False
    state: bool = False
    test_examples: int = 0
    train_examples: int = 0
    points: int = 30
    statistics: str = "interpolate"

    def on(self, what: str) -> dict[str, Any]:
        """Return the arguments of `Lab.distances` for a part of the data."""
        return {"what": what, "examples": {"test": self.test_examples, "train": self.train_examples}[what]}

    def along(self, what: str) -> dict[str, Any]:
        """Return the arguments of `Lab.compare` for a part of the data."""
        return {**self.on(what), "points": self.points, "statistics": self.statistics}


class Forked(NamedTuple):
    """A state that is copied: where it is on its way, with its masks, and where the copies end."""

    state: Step
    masks: Step
    end: int


THREE, BOTH = Copies(), Measures()


def log_spaced(steps: int, count: int = 8) -> list[int]:
    """Return step 0 and ``count`` − 1 steps in equal ratios, from a thousandth of a training to a quarter of it."""
    ratios = [0.001 * 250 ** (place / max(count - 2, 1)) for place in range(count - 1)]
    return sorted({0, *(max(1, round(ratio * steps)) for ratio in ratios)})


def trained(lab: Lab, forked: Forked, copies: Copies, seed: int) -> list[Trajectory]:
    """Train the copies of a state."""
    state, after = forked.state, lab.on(**copies.setting) if copies.setting else lab
    if copies.span == "restart":
        state = lab.start(state, state, step=0)
    elif copies.setting:
        state = lab.start(state, state, step=int(state.params.get("step", 0)))
    return [after.train(state, forked.masks, noise) for noise in copies.noises(seed)]


def sparsest_matching(lab: Lab, found: Sequence[Level], metric: str = "accuracy") -> int:
    """Find the sparsest level that is at least as good as the dense network; 0 if there is none."""
    scores = lab.each(found, lambda level: lab.look(lab.evaluate(level.run.at(level.end))).rows[0][metric])
    return max((place for place, score in enumerate(scores) if at_least(score, scores[0])), default=0)


def forked(
    lab: Lab, imp: IMP, found: Sequence[Level], name: str, place: int, fork: int, seed: int, number: int
) -> Forked:
    """Name the state that is copied: of one of `NETWORKS`, of a level of IMP, at step ``fork``.

    Raises ``ValueError`` for a step after the end.
    """
    if fork > imp.T:
        raise ValueError(f"a fork at step {fork} is after the end of the training, T={imp.T}: fork earlier.")
    dense = found[0]
    level = dense if name == "dense" else found[place]
    if name in ("dense", "ticket"):
        return Forked(level.run.at(max(fork, level.run.begin)), level.masks, level.end)
    at_k = dense.run.at(fork)
    own = levels(lab, replace(imp, k=fork, rounds=place, target_density=None), dense.run.start)[place]
    if name == "imp":
        return Forked(own.run.start, own.masks, own.end)
    drawn = seed_of(seed, "instability", name, number, fork, place)
    if name == "random_layerwise":
        return Forked(lab.start(at_k, at_k, step=fork), lab.shuffle(own.masks, drawn), imp.T)
    return Forked(lab.start(at_k, own.masks, values="fresh", step=fork, seed=drawn), own.masks, imp.T)


def instability(
    lab: Lab,
    imp: IMP,
    *,
    forks: Sequence[int],
    runs: int = 3,
    replicates: int = 1,
    seed: int = 1,
    networks: Sequence[str] = ("dense", "ticket"),
    places: Sequence[int] = (),
    how: Copies | None = None,
    measures: Measures = BOTH,
) -> None:
    """Name the rows "instability" of networks forked at steps ``forks``, for every replicate and pair of copies.

    They contain the errors on the line between two trained copies, on the test set and on the training set. Further
    tables, if ``measures`` has them: "throughout", the same at steps ``at`` of the training; "copies", the error of
    each copy; "state", the error of the copied state and the distances that weights travel.

    Args:
        places: levels of IMP for all networks but the dense one; by default the sparsest that matches.
        how: how copies are trained; ``runs`` is a short form of ``Copies(runs)``.
    """
    how = Copies(runs) if how is None else how

    def one(found: Sequence[Level], number: int, name: str, place: int, fork: int) -> None:
        given = forked(lab, imp_of(number), found, name, place, fork, seed, number)
        labels: dict[str, Any] = {"replicate": number, "network": name, "level": place, "fork": fork}
        if how.span != "remaining":
            labels["span"] = how.span
        lines = trained(lab, given, how, seed_of(seed, "instability", number))
        ends = [run.at(given.end) for run in lines]
        for (a, b), data in itertools.product(itertools.combinations(range(how.runs), 2), measures.data):
            pair = {**labels, "pair": f"{a}-{b}"}
            more = [lab.distances(ends[a], ends[b], **measures.on(data))] if measures.distances else []
            along = lab.compare(ends[a], ends[b], **measures.along(data))
            lab.row(along, *more, given.masks, table="instability", **pair)
            begin, every = lines[a].begin, measures.every
            for at in range(begin - begin % every + every, given.end, every) if every else ():
                along = lab.compare(lines[a].at(at), lines[b].at(at), **measures.along(data))
                lab.row(along, given.masks, table="throughout", at=at, **pair)
        if measures.state:
            for number_of, end in enumerate(ends):
                tested = [lab.evaluate(end, given.masks, what=what) for what in measures.data]
                lab.row(*tested, given.masks, table="copies", copy=number_of, **labels)
            tested = [lab.evaluate(given.state, given.masks, what=what) for what in measures.data]
            moved = lab.travelled(found[0].run.start, given.state, given.masks, ends)
            lab.row(*tested, moved, given.masks, table="state", **labels)

    def network(found: Sequence[Level], number: int, name: str) -> None:
        chosen = [0] if name == "dense" else places or [sparsest_matching(lab, found)]
        for place, fork in itertools.product(chosen, forks):
            one(found, number, name, place, fork)

    def imp_of(number: int) -> IMP:
        return replace(imp, seed=seed_of(seed, "order", number))

    def replicate(number: int) -> None:
        found = levels(lab, imp_of(number), lab.init(seed_of(seed, "init", number)))
        lab.each(networks, lambda name: network(found, number, name))

    lab.each(range(replicates), replicate)
