"""Pruning at initialisation and early in training, and its ablations (thesis, chapter 5). Every cut is one-shot.

A subnetwork trains with the whole schedule, from step 0, whatever the step at which it was pruned (thesis 5.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from keras_lth.experiments.lab import Lab
from keras_lth.imp import IMP, Noise
from keras_lth.plans import Step
from keras_lth.seeds import seed_of


@dataclass(frozen=True)
class Method:
    """A way to prune a state: a criterion with its options, how many cuts it takes, and whether it sees examples."""

    criterion: str
    options: Mapping[str, Any] = field(default_factory=dict)
    iterations: int = 1
    data: bool = False


METHODS: Mapping[str, Method] = {
    "random": Method("random"),
    "magnitude": Method("magnitude"),
    "snip": Method("snip", data=True),
    "snip_iterative": Method("snip", iterations=100, data=True),
    "grasp": Method("grasp", data=True),
    "grasp_absolute": Method("grasp", {"remove": "least absolute"}, data=True),
    "synflow": Method("synflow", iterations=100),
}
# Magnitude pruning of the trained network: its trained weights, or those of step t ("LTR"), are trained again.
BENCHMARKS = ("magnitude_after", "ltr")
ABLATIONS = ("shuffle", "reinit", "invert", "unit")


def pruned(
    lab: Lab, name: str, state: Step, density: float, seed: int, *, per_class: int = 10, invert: bool = False
) -> Step:
    """Name the masks of a method; ``invert`` removes what it finds most important."""
    method = METHODS[name]
    how: dict[str, Any] = {**method.options, "invert": invert}
    if method.criterion == "random":
        how["seed"] = seed
    if method.data:
        how["examples"] = {"per_class": per_class, "seed": seed}
    if method.iterations > 1:
        return lab.iterate(method.criterion, state, density=density, iterations=method.iterations, **how)
    return lab.select(lab.score(method.criterion, state, **how), density=density)


class Found(NamedTuple):
    """A subnetwork: the method and the step that pruned it, its masks, and the state that is trained again."""

    name: str
    step: int
    masks: Step
    state: Step


def ablated_as(lab: Lab, found: Found, ablation: str, density: float, seed: int, per_class: int = 10) -> Found | None:
    """Change a subnetwork by one of `ABLATIONS`; None where it does not apply.

    Inversion and a variance of 1 change what a criterion sees at initialisation.
    """
    if ablation == "shuffle":
        return found._replace(masks=lab.shuffle(found.masks, seed))
    if ablation == "reinit":
        return found._replace(state=lab.reinit(seed))
    if found.name not in METHODS or found.name == "random" or found.step:
        return None
    if ablation == "invert":
        return found._replace(
            masks=pruned(lab, found.name, found.state, density, seed, per_class=per_class, invert=True)
        )
    unit = lab.start(found.state, lab.full(), values="unit", step=0)
    return found._replace(masks=pruned(lab, found.name, unit, density, seed, per_class=per_class))


def early(
    lab: Lab,
    imp: IMP,
    *,
    methods: Sequence[str] = tuple(METHODS),
    benchmarks: Sequence[str] = BENCHMARKS,
    levels: Sequence[int] = (),
    densities: Sequence[float] = (),
    steps: Sequence[int] = (),
    ablations: Sequence[str] = ABLATIONS,
    step_ablations: Sequence[str] = ABLATIONS,
    ablated: Sequence[int] = (),
    ltr: int = 0,
    per_class: int = 10,
    replicates: int = 1,
    seed: int = 1,
) -> None:
    """Name the rows "results": every method at initialisation, and the benchmarks, at each level; "early": the same
    with ablations, at the levels ``ablated``, at initialisation, at the ``steps`` and after training; "neurons".

    Args:
        methods: of `METHODS`.
        benchmarks: of `BENCHMARKS`.
        levels: of ``densities``, from 1 on; without them level n has the density 0.8^n. All of them by default.
        densities: of levels 1, 2, ….
        steps: of the dense training, at which methods prune too; its last one is after training.
        ablations: of `ABLATIONS`, at initialisation and after training.
        step_ablations: of `ABLATIONS`, at the ``steps``.
        ablated: the levels of ablations and ``steps``.
        ltr: the step whose weights LTR trains again.
        per_class: examples of each class that SNIP and GraSP see.
    """

    levels = levels or range(1, len(densities) + 1)

    def density_of(level: int) -> float:
        return densities[level - 1] if densities else 0.8**level

    def replicate(number: int) -> None:
        init = lab.init(seed_of(seed, "init", number))
        dense = lab.train(init, lab.full(), Noise.of(seed_of(seed, "order", number)))

        def row(end: Step, masks: Step, table: str, **labels: Any) -> None:
            numbers = lab.evaluate(end), lab.evaluate(end, what="train")
            lab.row(*numbers, masks, table=table, replicate=number, **labels)

        def subnetworks(level: int) -> Iterator[Found]:
            for name in methods:
                for step in (0, *(steps if level in ablated else ())):
                    state = dense.at(step)
                    masks = pruned(
                        lab, name, state, density_of(level), seed_of(seed, "examples", number), per_class=per_class
                    )
                    yield Found(name, step, masks, state)
            after = lab.select(lab.score("magnitude", dense.at(imp.T)), density=density_of(level))
            for name in benchmarks:
                step = imp.T if name == "magnitude_after" else ltr
                yield Found(name, step, after, dense.at(step))

        def trained(found: Found, ablation: str, level: int) -> Step:
            start = lab.start(found.state, found.state, step=0) if found.state.params.get("step") else found.state
            noise = Noise.of(seed_of(seed, "early", number, found.name, ablation, found.step, level))
            return lab.train(start, found.masks, noise).at(imp.T)

        row(dense.at(imp.T), lab.full(), "results", arm="dense", level=0)
        for level in sorted({*levels, *ablated}):
            for found in subnetworks(level):
                end, labels = trained(found, "none", level), {"arm": found.name, "level": level}
                if level in levels and (not found.step or found.name in benchmarks):
                    row(end, found.masks, "results", **labels)
                    lab.row(lab.degrees(found.masks), table="neurons", replicate=number, **labels)
                if level not in ablated:
                    continue
                row(end, found.masks, "early", ablation="none", step=found.step, **labels)
                at_a_step = found.step and found.name not in benchmarks
                for ablation in step_ablations if at_a_step else ablations:
                    own = seed_of(seed, "ablation", number, found.name, found.step, level)
                    changed = ablated_as(lab, found, ablation, density_of(level), own, per_class)
                    if changed is not None:
                        end = trained(changed, ablation, level)
                        row(end, changed.masks, "early", ablation=ablation, step=found.step, **labels)

    lab.each(range(replicates), replicate)
