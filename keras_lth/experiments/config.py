"""Make plans from a config: the meaning of its keys, and checks before anything is trained. No TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from keras_lth import rates
from keras_lth.arguments import real, whole
from keras_lth.datasets import check_options
from keras_lth.experiments.catalogue import CATALOGUE
from keras_lth.experiments.lab import Lab, network
from keras_lth.experiments.setting import Config, check_times, rates_of, step_of
from keras_lth.imp import IMP
from keras_lth.masks import Masks
from keras_lth.names import check_known, hint
from keras_lth.plans import Notebook
from keras_lth.plans.agenda import Plan
from keras_lth.plans.step import resolve

# Every key, with its default. A mapping without keys takes any.
DEFAULTS: Config = {
    # A plan of `catalogue.CATALOGUE`, or "module:function" of a user's own (lab, imp, **plan_options); several with
    # commas.
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
    "replicates": 1,
    "seed": 1,
    "jit_compile": None,
    # "dense", "auto" or "sparse": what masked trainings multiply by.
    "kernels": "dense",
    # Seconds between the commits of a running training.
    "checkpoint_every": 60.0,
    **{key: default for plan in CATALOGUE.values() for key, default in plan.keys.items()},
}
# These depend on another key, so a config replaces them as a whole.
OPEN = ("optimizer", "model_options", "data_options", "plan_options", "after")


def completed(given: Config) -> dict[str, Any]:
    """Return a config with its defaults.

    Raises ``ValueError`` for an unknown key; suggests similar ones.
    """
    return {**DEFAULTS, **{key: _of_form(key, value, DEFAULTS) for key, value in given.items()}}


def _of_form(key: str, value: Any, defaults: Config, above: str = "") -> Any:
    """A value in the form of its default: a mapping with its defaults, a tuple, also from "a,b" or None."""
    check_known(f"config{above}", key, defaults)
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
        if key not in OPEN:
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
    check_known("kernels", config["kernels"], ("dense", "auto", "sparse"))
    check_options(config["data_options"])
    rate = config["optimizer"].get("learning_rate")
    if rate is None or not real(rate, "optimizer.learning_rate") > 0:
        raise ValueError(f"optimizer.learning_rate must be a number above 0, not {rate!r}.")
    rates.check_schedule(config["schedule"], config["steps"])
    check_times(config, {"rewind_to": config["rewind_to"]})
    if not isinstance(config["fraction"], Mapping):
        real(config["fraction"], "fraction")
    _imp(config, 0)
    names = _names(config)
    for name in names:
        _check_plan(name)
    for name, plan in CATALOGUE.items():
        plan.check(config, name in names)


def lab_of(config: Config, book: Notebook) -> Lab:
    """Return the `Lab` with the setting of a config."""
    optimizer = {key: value for key, value in config["optimizer"].items() if key != "learning_rate"}
    return Lab(
        book,
        network(config["data"], config["model"], data_options=config["data_options"], **config["model_options"]),
        optimizer,
        rates=rates_of(config),
        batch_size=config["batch_size"],
        augment=tuple(config["augment"]) or None,
        jit_compile=config["jit_compile"],
        kernels=config["kernels"],
        exclude=list(config["exclude"]) or None,
    )


def imp_of(config: Config, examples: int) -> IMP:
    """Return the `IMP` of a config, for this number of training examples. Raises ``ValueError`` for a step past the
    end.
    """
    return _imp(config, step_of(config, "rewind_to", config["rewind_to"], examples))


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
    if name in CATALOGUE:
        CATALOGUE[name].call(lab, imp, config, examples)
    else:
        resolve(name)(lab, imp, **config["plan_options"])


def _names(config: Config) -> list[str]:
    given = config["plan"]
    return [name.strip() for name in (given.split(",") if isinstance(given, str) else given)]


def _check_plan(name: str) -> None:
    """Check that a plan exists. A user's function is imported."""
    if ":" not in name:
        if name not in CATALOGUE:
            raise ValueError(f'plan has no {name!r}: {hint(name, CATALOGUE)} Or name your own, "module:function".')
        return
    try:
        plan = resolve(name)
    except ImportError as error:
        raise ValueError(f"plan={name!r}: {error}") from None
    if not callable(plan):
        raise ValueError(f"plan={name!r} is {plan!r}, not a function of (lab, imp).")
