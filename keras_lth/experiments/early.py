"""Pruning at initialisation and early in training, and its ablations (thesis, chapter 5). Every cut is one-shot.

A subnetwork trains with the whole schedule, from step 0, whatever the step at which it was pruned (thesis 5.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras_lth.experiments.lab import Lab
from keras_lth.imp import IMP, Noise
from keras_lth.plans import Step
from keras_lth.seeds import seed_of


@dataclass(frozen=True)
class Method:
    """A way to prune a state: a criterion with its options, how many cuts it takes, and the examples it sees."""

    criterion: str
    options: Mapping[str, Any] = field(default_factory=dict)
    iterations: int = 1
    per_class: int = 0


METHODS: Mapping[str, Method] = {
    "random": Method("random"),
    "magnitude": Method("magnitude"),
    "snip": Method("snip", per_class=10),
    "snip_iterative": Method("snip", iterations=100, per_class=10),
    "grasp": Method("grasp", per_class=10),
    "grasp_absolute": Method("grasp", {"remove": "least absolute"}, per_class=10),
    "synflow": Method("synflow", iterations=100),
}
# Magnitude pruning of the trained network: its trained weights, or those of step t ("LTR"), are trained again.
BENCHMARKS = ("magnitude_after", "ltr")
ABLATIONS = ("shuffle", "reinit", "invert", "unit")


def pruned(lab: Lab, name: str, state: Step, density: float, seed: int, *, invert: bool = False) -> Step:
    """Name the masks of a method; ``invert`` removes what it finds most important."""
    method = METHODS[name]
    how: dict[str, Any] = {**method.options, "invert": invert}
    if method.criterion == "random":
        how["seed"] = seed
    if method.per_class:
        how["examples"] = {"per_class": method.per_class, "seed": seed}
    if method.iterations > 1:
        return lab.iterate(method.criterion, state, density=density, iterations=method.iterations, **how)
    return lab.select(lab.score(method.criterion, state, **how), density=density)


def early(
    lab: Lab,
    imp: IMP,
    *,
    methods: Sequence[str] = tuple(METHODS),
    benchmarks: Sequence[str] = BENCHMARKS,
    levels: Sequence[int],
    steps: Sequence[int] = (),
    ablations: Sequence[str] = ABLATIONS,
    ablated: Sequence[int] = (),
    ltr: int = 0,
    replicates: int = 1,
    seed: int = 1,
) -> None:
    """Name the rows "results": every method at initialisation, and the benchmarks, at each level; "early": the same
    with ablations, at the levels ``ablated``, at initialisation, at the ``steps`` and after training; "neurons".

    Args:
        methods: of `METHODS`.
        benchmarks: of `BENCHMARKS`.
        levels: densities, as powers of 0.8.
        steps: of the dense training, at which methods prune too.
        ablations: of `ABLATIONS`.
        ablated: the levels of ablations and ``steps``.
        ltr: the step whose weights LTR trains again.
    """

    def replicate(number: int) -> None:
        init = lab.init(seed_of(seed, "init", number))
        noise = Noise.of(seed_of(seed, "order", number))
        dense = lab.train(init, lab.full(), noise)
        end = dense.at(imp.T)
        lab.row(lab.evaluate(end), lab.evaluate(end, what="train"), lab.full(), table="results", arm="dense",
                replicate=number, level=0)  # fmt: skip

        def one(masks: Step, state: Step, *tables: str, **labels: Any) -> None:
            what = seed_of(seed, "early", number, *map(str, labels.values()))
            start = state if state.params.get("step", 0) == 0 else lab.start(state, state, step=0)
            run = lab.train(start, masks, Noise.of(what)).at(imp.T)
            for table in tables:
                mine = {key: each for key, each in labels.items() if table == "early" or key in ("arm", "level")}
                lab.row(lab.evaluate(run), lab.evaluate(run, what="train"), masks, table=table, replicate=number,
                        **mine)  # fmt: skip
                if table == "results":
                    lab.row(lab.degrees(masks), table="neurons", replicate=number, **mine)

        def changed(masks: Step, state: Step, name: str, step: int, level: int) -> None:
            mine = seed_of(seed, "ablation", number, name, step, level)
            labels: dict[str, Any] = {"arm": name, "step": step, "level": level}
            early_only = name in METHODS and step == 0
            if "shuffle" in ablations:
                one(lab.shuffle(masks, mine), state, "early", ablation="shuffle", **labels)
            if "reinit" in ablations:
                one(masks, lab.reinit(mine), "early", ablation="reinit", **labels)
            if "invert" in ablations and early_only and name != "random":
                upside = pruned(lab, name, state, 0.8**level, mine, invert=True)
                one(upside, state, "early", ablation="invert", **labels)
            if "unit" in ablations and early_only and name != "random":
                unit = lab.start(state, lab.full(), values="unit", step=0)
                one(pruned(lab, name, unit, 0.8**level, mine), state, "early", ablation="unit", **labels)

        def at(state: Step, name: str, step: int, level: int) -> None:
            masks = pruned(lab, name, state, 0.8**level, seed_of(seed, "examples", number))
            tables = (*(["results"] if not step and level in levels else []), *(["early"] if level in ablated else []))
            one(masks, state, *tables, arm=name, ablation="none", step=step, level=level)
            if level in ablated:
                changed(masks, state, name, step, level)

        for level in sorted({*levels, *ablated}):
            for name in methods:
                at(init, name, 0, level)
                for step in steps if level in ablated else ():
                    at(dense.at(step), name, step, level)
            for name in benchmarks:
                masks = lab.select(lab.score("magnitude", end), density=0.8**level)
                step = imp.T if name == "magnitude_after" else ltr
                state = dense.at(step) if step else init
                tables = (*(["results"] if level in levels else []), *(["early"] if level in ablated else []))
                one(masks, state, *tables, arm=name, ablation="none", step=step, level=level)
                if level in ablated:
                    changed(masks, state, name, step, level)

    lab.each(range(replicates), replicate)
