"""Runs the plans of a config on a store: what is missing is made, what is there is not.

    python -m keras_lth.bin.run --config=lenet_300_100_digits --workdir=runs/lenet
    python -m keras_lth.bin.run --config=demo --workdir=runs/lenet --config.plan=lottery,instability --dry_run

A config is a Python file with get_config(), or the name of one in this project's folder configs. Every key has a
default (`keras_lth.experiments.config.DEFAULTS`) and can be overridden: ``--config.replicates=3``. The same command
goes on where it was stopped, inside a training too. The rows that are there lie in ``WORKDIR/rows``, a CSV file a
table.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_dict, config_flags

import keras_lth
from keras_lth import files
from keras_lth.bin import config_errors, parse, quick_imports, set_xla_flags
from keras_lth.experiments import config as configs
from keras_lth.experiments.tables import write_tables
from keras_lth.masks import Masks
from keras_lth.names import near
from keras_lth.plans import Notebook, Step, StepsFailedError, estimate
from keras_lth.plans import rows as rows_of
from keras_lth.plans import run as run_plans
from keras_lth.plans.agenda import Plan
from keras_lth.plans.run import Session
from keras_lth.plans.step import filled, resolve
from keras_lth.plans.training import trainer_of
from keras_lth.store import DamagedError, MissingError, Store, Value

_CONFIGS = Path(keras_lth.__file__).resolve().parent.parent / "configs"
_COMMAND = "python -m keras_lth.bin.run"


def main(argv: Sequence[str]) -> None:
    """Refuse what cannot work, make what is missing, write the rows."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    given = flags.FLAGS
    config = configs.completed(given.config.to_dict())
    setting = json.loads(json.dumps(config, default=str))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        configs.check(config)
        store = _store(given.workdir)
        plans = _plans(config, store)
        found = estimate(plans, given.workdir, given.only)
        missing = found.looks + sum(line.missing for line in found.lines)
        if missing:
            _try(config)
        print(found if missing or given.dry_run else "Nothing is missing.", flush=True)
        try:
            if missing and not given.dry_run:
                run_plans(
                    plans, Store(given.workdir), workers=given.workers, only=given.only, command=_command(sys.argv),
                    commit_every=config["checkpoint_every"], say=_say, setting=setting,
                )  # fmt: skip
            elif not given.dry_run:
                Session(plans, Store(given.workdir), setting=setting).missing()  # the store learns what is asked now
        finally:
            _write_rows(plans, given.workdir, setting)
    except StepsFailedError as error:
        raise SystemExit(f"{len(set(error.errors.values()))} failed, as said above; all else is made.") from error
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(_line(error)) from error


def _store(folder: str) -> Store | None:
    """The store that is there."""
    try:
        return Store(folder, create=False)
    except FileNotFoundError:
        return None


def _plans(config: dict[str, Any], store: Store | None) -> dict[str, Plan]:
    """The plans of a config that fits its data and its model; with both in the store, neither is loaded."""
    lab = configs.lab_of(config, Notebook(lambda step: None))
    with _refusing():
        sizes = lab.examples()
    about = _value(sizes, store)
    examples, shape = about.rows[0]["examples"], tuple(about.meta["shape"])
    if config["augment"] and len(shape) != 3:
        raise ValueError(
            f"augment={config['augment']!r} needs images of shape (height, width, channels), and an example of this "
            f"data has shape {shape}: use augment=()."
        )
    plans = configs.plans_of(config, examples)
    configs.check_levels(configs.imp_of(config, examples), Masks(_value(lab.full(), store).arrays))
    return plans


def _value(step: Step, store: Store | None) -> Value:
    """A value that is there, or that is made to look at it."""
    try:
        if store is not None:
            return store.get(step.name)
    except (MissingError, DamagedError):
        pass
    _import_keras()
    with _refusing():
        made: Value = resolve(step.kind.make)(**filled(step.given, step.kind.defaults))
    return made


def _try(config: dict[str, Any]) -> None:
    """Make what trains the dense network: its optimizer, its batches. They are kept for the run."""
    _import_keras()
    lab = configs.lab_of(config, Notebook(lambda step: None))
    with _refusing():
        trainer_of(lab.train(lab.init(0)), config["steps"])


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """What data, model and optimizer raise is a line: the config does not fit them."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"the config does not work: {_line(error)}") from error


def _import_keras() -> None:
    with quick_imports():
        importlib.import_module("keras_lth.experiments.kinds")
    set_xla_flags()


def _write_rows(plans: Mapping[str, Plan], workdir: str, setting: Mapping[str, Any]) -> None:
    if _store(workdir) is None:
        return
    folder, found = files.join(workdir, "rows"), rows_of(plans, workdir)
    for name, count in write_tables(found.rows, folder).items():
        print(f"{files.join(folder, name)}  {count} rows")
    files.write_atomic(files.join(folder, "setting.json"), (json.dumps(setting, indent=1) + "\n").encode())
    if found.missing:
        print(f"{len(found.missing)} rows wait for what is missing.")


def _command(argv: Sequence[str]) -> str:
    """How this run is started, for messages."""
    kept = [word for word in argv[1:] if not word.lstrip("-").startswith("only")]
    return f"{_COMMAND} {shlex.join(kept)}"


def _say(text: str) -> None:
    print(text, flush=True)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def load(name: str) -> ConfigDict:
    """The config in a file, or of a name in the folder ``configs``, with its defaults.

    Raises ``ValueError`` or ``OSError`` that says what there is.
    """
    path = Path(name)
    if not path.is_file():
        path = _CONFIGS / f"{name}.py"
    if not path.is_file():
        there = sorted(each.stem for each in _CONFIGS.glob("*.py") if "def get_config" in each.read_text())
        close = near(name, there)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(there)}"
        raise ValueError(f"there is no file {name} and no config of this name: {hint}")
    # A config builds on others by ``from configs.… import``.
    sys.path += [root for root in (str(_CONFIGS.parent),) if root not in sys.path]
    space = runpy.run_path(str(path))
    if "get_config" not in space:
        raise ValueError(f"{path} has no function get_config().")
    made = space["get_config"]()
    config = ConfigDict(configs.completed(made.to_dict() if isinstance(made, ConfigDict) else made))
    if config.jit_compile is None:
        config.jit_compile = config_dict.placeholder(bool)
    return config


def _taken(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of ``--config``, and the other arguments."""
    name, others, words = None, [], iter(argv)
    for word in words:
        flag, sign, value = word.partition("=")
        if flag in ("--config", "-config"):
            name = value if sign else next(words, None)
        else:
            others.append(word)
    return name, others


def run() -> None:
    """Define the flags and run; not at import, so that this module and another program's flags can meet."""
    name, argv = _taken(sys.argv)
    asked = any(word.lstrip("-").startswith("help") for word in argv)
    if name is None and not asked:
        raise SystemExit(f"--config is missing: a file with get_config(), or one of {_CONFIGS}.")
    about = "A file with get_config(), or its name in the folder configs."
    with config_errors():
        config = ConfigDict() if name is None else load(name)
        config_flags.DEFINE_config_dict("config", config, about, sys_argv=argv)
    flags.DEFINE_string("workdir", None, "The folder of the store, local or gs://; made if it is not there.")
    flags.DEFINE_bool("dry_run", False, "Print what is there, what is missing, the time and the bytes; make nothing.")
    flags.DEFINE_integer("workers", 1, "Processes that divide the work.", lower_bound=1)
    flags.DEFINE_string("only", None, "The name of a step: make that one, and what it needs.")
    flags.mark_flag_as_required("workdir")
    app.run(main, argv=argv, flags_parser=parse)


if __name__ == "__main__":
    run()
