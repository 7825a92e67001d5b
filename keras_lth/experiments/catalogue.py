"""The plans that a config can name: the keys of each with their defaults, what each refuses, and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from keras_lth import rates
from keras_lth.analysis.connectivity import TREATMENTS
from keras_lth.arguments import is_whole, real, whole
from keras_lth.datasets import check_options
from keras_lth.experiments import dilation as dilations
from keras_lth.experiments import early as at_init
from keras_lth.experiments.anatomy import anatomy
from keras_lth.experiments.averaging import averaging
from keras_lth.experiments.instability import NETWORKS, Copies, Measures, instability, log_spaced
from keras_lth.experiments.lab import Lab
from keras_lth.experiments.lottery import ARMS, FIGURE_3_7, lottery
from keras_lth.experiments.setting import Config, check_times, duration, per_epoch, rates_of, step_of
from keras_lth.imp import IMP
from keras_lth.names import check_known
from keras_lth.schedules import Duration


class Named(NamedTuple):
    """A plan that a config can name.

    Attributes:
        keys: its own keys of a config, with their defaults.
        check: raises ``ValueError`` for values of these keys that cannot work; ``asked``: whether the config names the
            plan.
        call: names the plan's steps, for this number of training examples.
    """

    keys: Config
    check: Callable[[Config, bool], None]
    call: Callable[[Lab, IMP, Config, int], None]


def _common(config: Config) -> dict[str, Any]:
    return {"replicates": config["replicates"], "seed": config["seed"]}


# Chapter 3 of the thesis ----------------------------------------------------------------------------------------------


def _check_lottery(config: Config, asked: bool) -> None:
    for arm in config["arms"]:
        check_known("arms", arm, ARMS)
    if _frequency(config).amount == 0:
        raise ValueError(f"validation_freq must be a duration above 0, not {config['validation_freq']!r}.")


def _call_lottery(lab: Lab, imp: IMP, config: Config, examples: int) -> None:
    curves = ("test", *(["holdout"] if config["data_options"].get("holdout") is not None else []))
    frequency = _frequency(config)
    every = frequency.steps(per_epoch(config, examples) if frequency.unit == "epochs" else config["steps"], 1)
    lottery(lab, imp, arms=config["arms"], every=max(1, every), curves=curves, **_common(config))


def _frequency(config: Config) -> Duration:
    given = config["validation_freq"]
    epochs = is_whole(given, 0) or (isinstance(given, str) and given.strip().isdigit())
    return duration("validation_freq", f"{given} epochs" if epochs else given)


def _check_dilation(config: Config, asked: bool) -> None:
    given = config["dilation"]
    _check_levels(config, "dilation", 0)
    for arm in given["arms"]:
        check_known("dilation.arms", arm, ARMS)
    factors = [real(factor, "dilation.factors") for factor in given["factors"]]
    if not factors or sorted({*factors}) != factors or factors[0] <= 0:
        raise ValueError(f"dilation.factors must be numbers above 0 in increasing order, not {factors!r}.")
    if not asked:
        return
    if not given["levels"]:
        raise ValueError("the plan dilation needs levels: set dilation.levels, such as (3, 6, 9).")
    if duration("rewind_to", config["rewind_to"]).amount:
        raise ValueError(
            f"the plan dilation stretches schedules that start at step 0, but rewind_to={config['rewind_to']!r}: use "
            "rewind_to='0 steps'."
        )
    try:
        for factor in factors:
            rates.dilated(config["schedule"], config["steps"], factor)
    except ValueError as error:
        raise ValueError(f"dilation.factors: {error} Or choose other steps (now {config['steps']}).") from None


def _call_dilation(lab: Lab, imp: IMP, config: Config, examples: int) -> None:
    given = config["dilation"]
    dilations.dilation(
        lab, imp, rates=partial(rates_of, config), places=given["levels"], arms=given["arms"],
        factors=given["factors"], **_common(config),
    )  # fmt: skip


def _check_anatomy(config: Config, asked: bool) -> None:
    _check_levels(config, "anatomy", 0)


def _call_anatomy(lab: Lab, imp: IMP, config: Config, examples: int) -> None:
    anatomy(lab, imp, places=config["anatomy"]["levels"], **_common(config))


def _check_levels(config: Config, key: str, least: int) -> None:
    given, most = config[key]["levels"], config["levels"]
    if wrong := [level for level in given if not is_whole(level, least) or level > most]:
        raise ValueError(f"{key}.levels has {wrong[0]!r}: use levels from {least} to levels={most}.")


# Chapter 4 ------------------------------------------------------------------------------------------------------------


def _check_instability(config: Config, asked: bool) -> None:
    given = config["instability"]
    if not asked:
        if given["forks"]:
            raise ValueError(
                f"instability.forks are set, but plan={config['plan']!r} does not use them: "
                "use plan='lottery,instability', or instability.forks=()."
            )
        return
    for key, least in (("runs", 2), ("points", 2), ("test_examples", 0), ("train_examples", 0)):
        whole(given[key], f"instability.{key}", least)
    for name in given["networks"]:
        check_known("instability.networks", name, NETWORKS)
    for what in given["data"]:
        check_known("instability.data", what, ("test", "train"))
    check_known("instability.statistics", given["statistics"], TREATMENTS)
    _check_levels(config, "instability", 1)
    if given["noise"] == "augment" and not config["augment"]:
        raise ValueError(
            "instability.noise='augment', but augment=() draws nothing, so all copies would be the same training: set "
            "augment, such as ('flip', 'crop'), or use instability.noise='order'."
        )
    if given["after"] and "learning_rate" not in given["after"]:
        raise ValueError(f"instability.after={dict(given['after'])!r} needs a learning_rate: set one above 0.")
    try:
        _copies(config)
    except ValueError as error:
        raise ValueError(f"instability.{error}") from None
    times = {f"instability.forks {fork!r}": fork for fork in given["forks"]}
    check_times(config, times | ({"instability.every": given["every"]} if given["every"] else {}))


def _call_instability(lab: Lab, imp: IMP, config: Config, examples: int) -> None:
    given = config["instability"]
    forks = [step_of(config, f"instability.forks {fork!r}", fork, examples) for fork in given["forks"]]
    every = step_of(config, "instability.every", given["every"], examples) if given["every"] else 0
    measures = Measures(
        given["data"], every, bool(given["distances"]), bool(given["state"]), given["test_examples"],
        given["train_examples"], given["points"], given["statistics"],
    )  # fmt: skip
    instability(
        lab, imp, forks=forks or log_spaced(config["steps"]), networks=given["networks"], places=given["levels"],
        how=_copies(config), measures=measures, **_common(config),
    )  # fmt: skip


def _copies(config: Config) -> Copies:
    given = config["instability"]
    after: dict[str, Any] = {}
    if given["after"]:
        optimizer = {key: value for key, value in given["after"].items() if key != "learning_rate"}
        after = {"rates": given["after"]["learning_rate"], "optimizer": optimizer}
    return Copies(given["runs"], given["span"], given["noise"], tuple(given["seeds"]), after)


def _check_averaging(config: Config, asked: bool) -> None:
    if not asked:
        return
    given = config["averaging"]
    whole(given["runs"], "averaging.runs", 2)
    whole(given["plane"], "averaging.plane", 0)
    for part in given["parts"]:
        check_options(part)
    if len(given["parts"]) == 1:
        raise ValueError("averaging.parts has 1 part: give at least 2, such as {'part': '1/2'} and {'part': '2/2'}.")
    if given["permutations"] and config["replicates"] < 2:
        raise ValueError(
            "averaging.permutations matches networks of different initial values, but replicates=1: use 2 or more."
        )
    for key in ("forks", "every"):
        check_times(config, {f"averaging.{key}": each for each in given[key]})
    if zero := [each for each in given["every"] if duration("averaging.every", each).amount == 0]:
        raise ValueError(f"averaging.every has {zero[0]!r}: use durations above 0.")
    if not (given["forks"] or given["every"] or given["permutations"]):
        raise ValueError(
            "the plan averaging has nothing to do: set averaging.forks, averaging.every or averaging.permutations."
        )


def _call_averaging(lab: Lab, imp: IMP, config: Config, examples: int) -> None:
    given = dict(config["averaging"])
    for key in ("forks", "every"):
        given[key] = [step_of(config, f"averaging.{key}", each, examples) for each in given[key]]
    averaging(lab, imp, **given, **_common(config))


# Chapter 5 ------------------------------------------------------------------------------------------------------------


def _check_early(config: Config, asked: bool) -> None:
    given = config["early"]
    of: Mapping[str, Any] = {
        "methods": at_init.METHODS, "benchmarks": at_init.BENCHMARKS, "ablations": at_init.ABLATIONS,
        "step_ablations": at_init.ABLATIONS,
    }  # fmt: skip
    for key, names in of.items():
        for name in given[key]:
            check_known(f"early.{key}", name, names)
    for key in ("levels", "ablated"):
        for level in given[key]:
            whole(level, f"early.{key}", 1)
    whole(given["per_class"], "early.per_class", 1)
    if wrong := [each for each in given["densities"] if not 0 < real(each, "early.densities") <= 1]:
        raise ValueError(f"early.densities has {wrong[0]!r}: use numbers above 0 and at most 1.")
    most = len(given["densities"])
    for key in ("levels", "ablated"):
        if most and (wrong := [level for level in given[key] if level > most]):
            raise ValueError(
                f"early.{key} has {wrong[0]}, but early.densities has {most}: use levels from 1 to {most}."
            )
    if asked and not (given["levels"] or most):
        raise ValueError(
            "the plan early needs densities: set early.levels, which are powers of 0.8, such as (5, 10, 15), or "
            "early.densities, such as (0.1, 0.05)."
        )
    check_times(config, {"early.ltr": given["ltr"]})
    check_times(config, {f"early.steps {step!r}": step for step in given["steps"]}, end=True)


def _call_early(lab: Lab, imp: IMP, config: Config, examples: int) -> None:
    given = {**config["early"], **_common(config)}
    steps = [step_of(config, f"early.steps {step!r}", step, examples, end=True) for step in given.pop("steps")]
    ltr = step_of(config, "early.ltr", given.pop("ltr"), examples)
    at_init.early(lab, imp, steps=steps, ltr=ltr, **given)


CATALOGUE: Mapping[str, Named] = {
    "lottery": Named(
        {
            # Of `lottery.ARMS`.
            "arms": FIGURE_3_7,
            # Between the points of a curve: a duration such as "1 epoch" or "400 steps"; a number is one of epochs.
            "validation_freq": "1 epoch",
        },
        _check_lottery,
        _call_lottery,
    ),
    "dilation": Named(
        # Levels, and the factors by which the schedule is stretched.
        {"dilation": {"levels": (), "arms": dilations.ARMS, "factors": dilations.FACTORS}},
        _check_dilation,
        _call_dilation,
    ),
    "anatomy": Named({"anatomy": {"levels": ()}}, _check_anatomy, _call_anatomy),
    "instability": Named(
        {
            "instability": {
                # Durations such as "0 steps" and "1%"; by default step 0 and steps in equal ratios.
                "forks": (),
                "runs": 3,
                # Of `instability.NETWORKS`, and levels of those that are pruned; by default the sparsest that matches.
                "networks": ("dense", "ticket"),
                "levels": (),
                # How copies are trained: `instability.Copies`. "after": another optimizer after the fork, with its
                # rate.
                "span": "remaining",
                "noise": "both",
                "seeds": (),
                "after": {},
                # What is measured: `instability.Measures`. "every": a duration such as "1 epoch"; "" for the end alone.
                "data": ("test", "train"),
                "every": "",
                "distances": False,
                "state": False,
                "test_examples": 0,
                "train_examples": 0,
                "points": 30,
                "statistics": "interpolate",
            }
        },
        _check_instability,
        _call_instability,
    ),
    "averaging": Named(
        {
            # Forks of the copies that are averaged, steps between merges of branches, data options of networks trained
            # on different data, matching of independent networks, points of planes along each axis.
            "averaging": {
                "forks": (),
                "runs": 3,
                "every": (),
                "parts": (),
                "permutations": False,
                "plane": 0,
                "reestimate": False,
            }
        },
        _check_averaging,
        _call_averaging,
    ),
    "early": Named(
        {
            # Pruning at initialisation: methods and benchmarks at densities of 0.8^level, or at "densities", of which
            # "levels" then chooses some, counted from 1; at the levels "ablated" also
            # their ablations, and pruning at "steps", with "step_ablations". "ltr": the step whose weights LTR trains.
            "early": {
                "methods": tuple(at_init.METHODS),
                "benchmarks": at_init.BENCHMARKS,
                "levels": (),
                "densities": (),
                "ablations": at_init.ABLATIONS,
                "step_ablations": at_init.ABLATIONS,
                "ablated": (),
                "steps": (),
                "ltr": "0 steps",
                # Examples of each class that scores see.
                "per_class": 10,
            }
        },
        _check_early,
        _call_early,
    ),
}
