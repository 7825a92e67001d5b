"""Make plans from a config: the meaning of its keys, and checks before anything is trained. No TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from keras_lth import rates
from keras_lth.analysis.connectivity import TREATMENTS
from keras_lth.arguments import is_whole, real, whole
from keras_lth.datasets import check_options
from keras_lth.experiments import dilation as dilations
from keras_lth.experiments import early as early_plan
from keras_lth.experiments.anatomy import anatomy
from keras_lth.experiments.averaging import averaging
from keras_lth.experiments.instability import NETWORKS, Copies, Measures, instability, log_spaced
from keras_lth.experiments.lab import Lab, network
from keras_lth.experiments.lottery import ARMS, FIGURE_3_7, lottery
from keras_lth.imp import IMP
from keras_lth.masks import Masks
from keras_lth.names import near
from keras_lth.plans import Notebook
from keras_lth.plans.agenda import Plan
from keras_lth.plans.step import resolve
from keras_lth.schedules import Duration

Config = Mapping[str, Any]
PLANS = ("lottery", "instability", "averaging", "dilation", "anatomy", "early")

# Every key, with its default. A mapping without keys takes any.
DEFAULTS: Config = {
    # "lottery", "instability", "averaging", "dilation", "anatomy", "early", or "module:function" of a user's own
    # (lab, imp, **plan_options); several with commas.
    "plan": "lottery",
    "plan_options": {},
    "data": "digits",
    # What is made of the data, such as {"holdout": 0.1, "seed": 1}: options of `keras_lth.datasets.derived`.
    "data_options": {},
    "model": "lenet_300_100",
    "model_options": {},
    "augment": (),
    "batch_size": 60,
    "steps": 24_000,
    # "momentum" follows the papers' equations (`keras_lth.training.Momentum`); other names are Keras' optimizers.
    "optimizer": {"name": "adam", "learning_rate": 1.2e-3, "epsilon": 1e-8},
    # Of the learning rate: drops, warm-up and decay, in steps (`keras_lth.rates.rates`).
    "schedule": rates.CONSTANT,
    "levels": 15,
    "fraction": 0.2,
    "rewind_to": "0 steps",
    "scope": "global",
    # Regexes of weights that are never pruned.
    "exclude": (),
    # "open_lth": as many weights at each level as the public code of the papers keeps.
    "compat": None,
    # Of `lottery.ARMS`.
    "arms": FIGURE_3_7,
    "replicates": 1,
    "seed": 1,
    "jit_compile": None,
    # "dense", "auto" or "sparse": what masked trainings multiply by.
    "kernels": "dense",
    # Between the points of a curve: a duration such as "1 epoch" or "400 steps"; a number is one of epochs.
    "validation_freq": "1 epoch",
    "instability": {
        # Durations such as "0 steps" and "1%"; by default step 0 and steps in equal ratios.
        "forks": (),
        "runs": 3,
        # Of `instability.NETWORKS`, and levels of those that are pruned; by default the sparsest that matches.
        "networks": ("dense", "ticket"),
        "levels": (),
        # How copies are trained: `instability.Copies`. "after": another optimizer after the fork, with its rate.
        "span": "remaining",
        "noise": "both",
        "seeds": (),
        "after": {},
        # What is measured: `instability.Measures`. "every": a duration such as "1 epoch"; "" for the end alone.
        "data": ("test", "train"),
        "every": "",
        "distances": False,
        "state": False,
        "train_examples": 0,
        "points": 30,
        "statistics": "interpolate",
    },
    # Levels of the plans "dilation" and "anatomy", and the factors by which "dilation" stretches the schedule.
    "dilation": {"levels": (), "arms": dilations.ARMS, "factors": dilations.FACTORS},
    "anatomy": {"levels": ()},
    # Pruning at initialisation: methods and benchmarks at densities of 0.8^level; at the levels "ablated" also their
    # ablations, and pruning at "steps". "ltr": the step whose weights the benchmark LTR trains.
    "early": {
        "methods": tuple(early_plan.METHODS),
        "benchmarks": early_plan.BENCHMARKS,
        "levels": (),
        "ablations": early_plan.ABLATIONS,
        "ablated": (),
        "steps": (),
        "ltr": "0 steps",
    },
    # The plan "averaging": forks of the copies that are averaged, steps between merges of branches, data options of
    # networks trained on different data, matching of independent networks, points of planes along each axis.
    "averaging": {
        "forks": (),
        "runs": 3,
        "every": (),
        "parts": (),
        "permutations": False,
        "plane": 0,
        "reestimate": False,
    },
    # Seconds between the commits of a running training.
    "checkpoint_every": 60.0,
}
# These depend on another key, so a config replaces them as a whole.
_WHOLE = ("optimizer", "model_options", "data_options", "plan_options", "after")


def completed(given: Config) -> dict[str, Any]:
    """Return a config with its defaults.

    Raises ``ValueError`` for an unknown key; suggests similar ones.
    """
    return {**DEFAULTS, **{key: _of_form(key, value, DEFAULTS) for key, value in given.items()}}


def _of_form(key: str, value: Any, defaults: Config, above: str = "") -> Any:
    """A value in the form of its default: a mapping with its defaults, a tuple, also from "a,b" or None."""
    _known(f"config{above}", key, defaults)
    default = defaults[key]
    if isinstance(default, (Mapping, tuple)) and value is None:
        value = type(default)()
    if isinstance(default, tuple):
        value = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"config{above}.{key} must be a tuple such as {default or ('…',)}, not {value!r}.")
        return tuple(value)
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"config{above}.{key} must be a mapping such as {dict(default)}, not {value!r}.")
        if key not in _WHOLE:
            return {**default, **{k: _of_form(k, inner, default, f"{above}.{key}") for k, inner in value.items()}}
    return value


def check(config: Config) -> None:
    """Raise ``ValueError`` for a value that cannot work; name its key, the value and what would work. No data is
    read.
    """
    for key in ("batch_size", "steps", "replicates"):
        whole(config[key], key, 1)
    for key in ("levels", "seed"):
        whole(config[key], key, 0)
    if not real(config["checkpoint_every"], "checkpoint_every") > 0:
        raise ValueError(f"checkpoint_every must be a number of seconds above 0, not {config['checkpoint_every']!r}.")
    if config["jit_compile"] not in (None, True, False):
        raise ValueError(f"jit_compile is True, False or None (what is best here), not {config['jit_compile']!r}.")
    _known("kernels", config["kernels"], ("dense", "auto", "sparse"))
    check_options(config["data_options"])
    _check_rates(config)
    for arm in (*config["arms"], *config["dilation"]["arms"]):
        _known("arms", arm, ARMS)
    _check_dilation(config)
    _check_early(config)
    _plans(config)
    forks = config["instability"]["forks"]
    if "instability" in _names(config):
        _check_instability(config)
    elif forks:
        raise ValueError(
            f"instability.forks are set, but plan={config['plan']!r} does not use them: "
            "use plan='lottery,instability', or instability.forks=()."
        )
    if "averaging" in _names(config):
        _check_averaging(config)
    durations = {"rewind_to": config["rewind_to"], "early.ltr": config["early"]["ltr"]}
    durations |= {f"early.steps {step!r}": step for step in config["early"]["steps"]}
    durations |= {f"instability.forks {fork!r}": fork for fork in forks}
    if config["instability"]["every"]:
        durations["instability.every"] = config["instability"]["every"]
    if _frequency(config).amount == 0:
        raise ValueError(f"validation_freq must be a duration above 0, not {config['validation_freq']!r}.")
    for key, given in durations.items():
        if (duration := _duration(key, given)).unit != "epochs":
            _before_the_end(config, key, given, duration.steps(config["steps"], 1))
    if not isinstance(config["fraction"], Mapping):
        real(config["fraction"], "fraction")
    _imp(config, 0)


def lab_of(config: Config, book: Notebook) -> Lab:
    """Return the `Lab` with the setting of a config."""
    optimizer = {key: value for key, value in config["optimizer"].items() if key != "learning_rate"}
    return Lab(
        book,
        network(config["data"], config["model"], data_options=config["data_options"], **config["model_options"]),
        optimizer,
        rates=_rates(config),
        batch_size=config["batch_size"],
        augment=tuple(config["augment"]) or None,
        jit_compile=config["jit_compile"],
        kernels=config["kernels"],
        exclude=list(config["exclude"]) or None,
    )


def _rates(config: Config, dilation: float = 1.0) -> Any:
    """The learning rates, with the schedule stretched by a factor."""
    schedule, steps = rates.dilated(config["schedule"], config["steps"], dilation)
    return rates.rates(config["optimizer"]["learning_rate"], schedule, steps)


def imp_of(config: Config, examples: int) -> IMP:
    """Return the `IMP` of a config, for this number of training examples. Raises ``ValueError`` for a step past the
    end.
    """
    return _imp(config, _step(config, "rewind_to", config["rewind_to"], examples))


def _imp(config: Config, k: int) -> IMP:
    return IMP(
        k, config["steps"], config["levels"], config["fraction"], scope=config["scope"], seed=config["seed"],
        compat=config["compat"],
    )  # fmt: skip


def plans_of(config: Config, examples: int) -> dict[str, Plan]:
    """Return the plans of a config by name, for this number of training examples; they can be pickled.

    Raises ``ValueError`` for a step past the end.
    """
    imp_of(config, examples)
    for fork in config["instability"]["forks"]:
        _step(config, f"instability.forks {fork!r}", fork, examples)
    # Only the recipe is included: a store distinguishes the records of a plan by its arguments.
    recipe = {key: value for key, value in config.items() if key not in ("plan", "checkpoint_every")}
    return {
        re.sub(r"\W+", ".", name): partial(_plan, name=name, config=recipe, examples=examples)
        for name in _names(config)
    }


def check_levels(imp: IMP, masks: Masks) -> None:
    """Raise ``ValueError`` if the levels leave fewer weights than layers; say how many levels would work."""
    imp.check(masks, levels="levels")


def _plan(book: Notebook, name: str, config: Config, examples: int) -> None:
    lab, imp = lab_of(config, book), imp_of(config, examples)
    book.want(lab.examples(), lab.full())
    if config["compat"] and config["exclude"]:
        whole_network = replace(lab, exclude=None).full()
        size, mine = (lab.look(masks).rows[0]["size"] for masks in (whole_network, lab.full()))
        imp = replace(imp, ignored=size - mine)
    common: dict[str, Any] = {"replicates": config["replicates"], "seed": config["seed"]}
    if name == "lottery":
        curves = ("test", *(["holdout"] if config["data_options"].get("holdout") is not None else []))
        lottery(lab, imp, arms=config["arms"], every=_every(config, examples), curves=curves, **common)
    elif name == "instability":
        given = config["instability"]
        forks = [_step(config, "instability.forks", fork, examples) for fork in given["forks"]]
        instability(
            lab, imp, forks=forks or log_spaced(config["steps"]), networks=given["networks"], places=given["levels"],
            how=_copies(config), measures=_measures(config, examples), **common,
        )  # fmt: skip
    elif name == "dilation":
        given = config["dilation"]
        dilations.dilation(
            lab, imp, rates=partial(_rates, config), places=given["levels"], arms=given["arms"],
            factors=given["factors"], **common,
        )  # fmt: skip
    elif name == "averaging":
        given = dict(config["averaging"])
        given["forks"] = [_step(config, "averaging.forks", fork, examples) for fork in given["forks"]]
        given["every"] = [_step(config, "averaging.every", each, examples) for each in given["every"]]
        averaging(lab, imp, **given, **common)
    elif name == "anatomy":
        anatomy(lab, imp, places=config["anatomy"]["levels"], **common)
    elif name == "early":
        given = {**config["early"], **common}
        steps = [_step(config, "early.steps", step, examples) for step in given.pop("steps")]
        ltr = _step(config, "early.ltr", given.pop("ltr"), examples)
        early_plan.early(lab, imp, steps=steps, ltr=ltr, **given)
    else:
        resolve(name)(lab, imp, **config["plan_options"])


def _names(config: Config) -> list[str]:
    given = config["plan"]
    return [name.strip() for name in (given.split(",") if isinstance(given, str) else given)]


def _plans(config: Config) -> list[Callable[..., Any]]:
    """Check that each plan exists. A user's function is imported."""
    found: list[Callable[..., Any]] = []
    for name in _names(config):
        if ":" in name:
            try:
                plan = resolve(name)
            except ImportError as error:
                raise ValueError(f"plan={name!r}: {error}") from None
            if not callable(plan):
                raise ValueError(f"plan={name!r} is {plan!r}, not a function of (lab, imp).")
            found.append(plan)
        else:
            _known("plan", name, PLANS, 'or "module:function" of your own')
    return found


def _check_rates(config: Config) -> None:
    rate = config["optimizer"].get("learning_rate")
    if rate is None or not real(rate, "optimizer.learning_rate") > 0:
        raise ValueError(f"optimizer.learning_rate must be a number above 0, not {rate!r}.")
    rates.check_schedule(config["schedule"], config["steps"])


def _check_dilation(config: Config) -> None:
    """Refuse what the plans "dilation" and "anatomy" cannot do."""
    for key in ("dilation", "anatomy"):
        if wrong := [level for level in config[key]["levels"] if not is_whole(level, 0) or level > config["levels"]]:
            raise ValueError(f"{key}.levels has {wrong[0]!r}: use levels from 0 to levels={config['levels']}.")
    factors = [real(factor, "dilation.factors") for factor in config["dilation"]["factors"]]
    if not factors or sorted({*factors}) != factors or factors[0] <= 0:
        raise ValueError(f"dilation.factors must be numbers above 0 in increasing order, not {factors!r}.")
    if "dilation" not in _names(config):
        return
    if not config["dilation"]["levels"]:
        raise ValueError("the plan dilation needs levels: set dilation.levels, such as (3, 6, 9).")
    if _duration("rewind_to", config["rewind_to"]).amount:
        raise ValueError(
            f"the plan dilation stretches schedules that start at step 0, but rewind_to={config['rewind_to']!r}: use "
            "rewind_to='0 steps'."
        )
    try:
        for factor in factors:
            rates.dilated(config["schedule"], config["steps"], factor)
    except ValueError as error:
        raise ValueError(f"dilation.factors: {error} Or choose other steps (now {config['steps']}).") from None


def _check_early(config: Config) -> None:
    given = config["early"]
    for key, known in (
        ("methods", early_plan.METHODS), ("benchmarks", early_plan.BENCHMARKS), ("ablations", early_plan.ABLATIONS),
    ):  # fmt: skip
        for name in given[key]:
            _known(f"early.{key}", name, known)
    for key in ("levels", "ablated"):
        for level in given[key]:
            whole(level, f"early.{key}", 1)
    if "early" in _names(config) and not given["levels"]:
        raise ValueError("the plan early needs levels, which are powers of 0.8: set early.levels, such as (5, 10, 15).")


def _check_instability(config: Config) -> None:
    """Refuse what the plan "instability" cannot do."""
    given = config["instability"]
    for key, least in (("runs", 2), ("points", 2), ("train_examples", 0)):
        whole(given[key], f"instability.{key}", least)
    for name in given["networks"]:
        _known("instability.networks", name, NETWORKS)
    for what in given["data"]:
        _known("instability.data", what, ("test", "train"))
    _known("instability.statistics", given["statistics"], TREATMENTS)
    if wrong := [level for level in given["levels"] if not is_whole(level, 1) or level > config["levels"]]:
        raise ValueError(f"instability.levels has {wrong[0]!r}: use levels from 1 to levels={config['levels']}.")
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


def _check_averaging(config: Config) -> None:
    """Refuse what the plan "averaging" cannot do."""
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
        for each in given[key]:
            if (duration := _duration(f"averaging.{key}", each)).unit != "epochs":
                _before_the_end(config, f"averaging.{key}", each, duration.steps(config["steps"], 1))
                if key == "every" and duration.amount == 0:
                    raise ValueError(f"averaging.every has {each!r}: use durations above 0.")
    if not (given["forks"] or given["every"] or given["permutations"]):
        raise ValueError(
            "the plan averaging has nothing to do: set averaging.forks, averaging.every or averaging.permutations."
        )


def _copies(config: Config) -> Copies:
    given = config["instability"]
    after: dict[str, Any] = {}
    if given["after"]:
        optimizer = {key: value for key, value in given["after"].items() if key != "learning_rate"}
        after = {"rates": given["after"]["learning_rate"], "optimizer": optimizer}
    return Copies(given["runs"], given["span"], given["noise"], tuple(given["seeds"]), after)


def _measures(config: Config, examples: int) -> Measures:
    given = config["instability"]
    every = _step(config, "instability.every", given["every"], examples) if given["every"] else 0
    return Measures(
        given["data"], every, bool(given["distances"]), bool(given["state"]), given["train_examples"], given["points"],
        given["statistics"],
    )  # fmt: skip


def _every(config: Config, examples: int) -> int:
    frequency = _frequency(config)
    per_epoch = _per_epoch(config, examples) if frequency.unit == "epochs" else config["steps"]
    return max(1, frequency.steps(per_epoch, 1))


def _frequency(config: Config) -> Duration:
    given = config["validation_freq"]
    epochs = is_whole(given, 0) or (isinstance(given, str) and given.strip().isdigit())
    return _duration("validation_freq", f"{given} epochs" if epochs else given)


def _per_epoch(config: Config, examples: int) -> int:
    return -(-examples // config["batch_size"])


def _duration(key: str, given: Any) -> Duration:
    try:
        return Duration.parse(given)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _step(config: Config, key: str, given: Any, examples: int) -> int:
    duration = Duration.parse(given)
    step = duration.steps(_per_epoch(config, examples) if duration.unit == "epochs" else config["steps"], 1)
    return _before_the_end(config, key, given, step)


def _before_the_end(config: Config, key: str, given: Any, step: int) -> int:
    if step >= config["steps"]:
        raise ValueError(
            f"{key}={given!r} is step {step}, after the end of training (steps={config['steps']}): use an earlier step."
        )
    return step


def _known(what: str, name: str, known: Iterable[str], more: str = "") -> None:
    if name not in (listed := list(known)):
        close = near(str(name), listed)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(listed)}"
        raise ValueError(f"{what} has no {name!r}: {hint}{' ' + more if more else ''}")
