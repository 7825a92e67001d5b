"""Run the plans of a config on a store: compute the values that the store lacks.

    python -m keras_lth.bin.run --config=lenet_300_100_digits --workdir=runs/lenet
    python -m keras_lth.bin.run --config=demo --workdir=runs/lenet --config.plan=lottery,instability --dry_run

A config is a Python file with get_config(), or the name of a module of `keras_lth.configs`. Every key has a default
(`keras_lth.experiments.config.DEFAULTS`) and can be overridden: ``--config.replicates=3``. The same command resumes
where it was stopped, even inside a training. The rows that are ready are in ``WORKDIR/rows``, one CSV file per table.

``--workers=2`` runs two trainings at once, ``--runner=ray`` runs them on a Ray cluster. One training on several
devices: ``--strategy=mirrored``; on several machines, the same command on each: ``--strategy=multiworker
--cluster=host0:2222,host1:2222 --task=0`` (or TF_CONFIG); on TPUs: ``--strategy=tpu --tpu=NAME``. ``--workdir`` may be
``gs://…``.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import logging
import os
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_dict, config_flags

from keras_lth import configs, files
from keras_lth.bin import config_errors, import_keras, parse
from keras_lth.bin.progress import shown
from keras_lth.experiments import config as experiment
from keras_lth.experiments.tables import write_tables
from keras_lth.masks import Masks
from keras_lth.names import hint
from keras_lth.plans import Notebook, Step, StepsFailedError, estimate
from keras_lth.plans import rows as rows_of
from keras_lth.plans import run as run_plans
from keras_lth.plans.agenda import Plan
from keras_lth.plans.run import NOT_BOTH, RUNNERS
from keras_lth.plans.step import filled, resolve
from keras_lth.plans.training import trainer_of
from keras_lth.store import DamagedError, MissingError, Store, Value
from keras_lth.store.shared import Hosts, SharedStore, told

_COMMAND = "python -m keras_lth.bin.run"
STRATEGIES = ("none", "mirrored", "multiworker", "tpu")


def main(argv: Sequence[str]) -> None:
    """Refuse what cannot work, compute what is missing, write the rows."""
    if len(argv) > 1:
        raise SystemExit(f"Unknown arguments: {' '.join(argv[1:])}. Flags look like --config.replicates=3.")
    given = flags.FLAGS
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        config = experiment.completed(given.config.to_dict())
        experiment.check(config)
        with _hosts(given) as hosts:
            _run(config, given, hosts)
    except StepsFailedError as error:
        raise SystemExit(f"{len(set(error.errors.values()))} steps failed (see above); all others are done.") from error
    except (ImportError, ValueError, RuntimeError, OSError) as error:
        raise SystemExit(_line(error)) from error


@contextlib.contextmanager
def _hosts(given: Any) -> Iterator[Hosts | None]:
    """The hosts that run together under the strategy of the flags; None if this process runs alone."""
    if given.strategy == "none" and not (given.tpu or given.cluster or given.task is not None):
        yield None
        return
    if given.workers > 1 or given.runner != "local":
        raise ValueError(NOT_BOTH)
    import_keras()
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    from keras_lth import surgery
    from keras_lth.training import strategies

    strategy = strategies.make(
        given.strategy, tpu=given.tpu, workers=given.cluster, index=given.task, timeout=given.timeout
    )
    hosts = surgery.Hosts(strategy)
    with hosts.together(), strategy.scope():
        yield hosts if hosts.count > 1 else None


def _run(config: dict[str, Any], given: Any, hosts: Hosts | None) -> None:
    folder, chief = given.workdir, hosts is None or hosts.chief
    if hosts is not None:
        hosts.check_same(repr(config).encode(), "configs")
    plans = _plans(config, _there(folder, hosts))
    found = told(hosts, lambda: estimate(plans, folder, given.only))
    missing = found.looks + sum(line.missing for line in found.lines)
    if missing:
        _try(config)
    if chief:
        print(found if missing or given.dry_run else "Nothing is missing.", flush=True)
    try:
        if missing and not given.dry_run:
            live = sys.stdout.isatty() and not given.quiet and hosts is None
            with shown(folder, live=live, events=given.tensorboard and chief):
                run_plans(
                    plans, Store(folder) if hosts is None else SharedStore(folder, hosts), workers=given.workers,
                    runner=given.runner, only=given.only, command=_command(sys.argv),
                    commit_every=config["checkpoint_every"], prepare="keras_lth.bin:import_keras", say=_say,
                    quiet=live or given.quiet,
                )  # fmt: skip
    finally:
        if chief:
            _write_rows(plans, folder, config)


def _there(folder: str, hosts: Hosts | None) -> Store | None:
    """The existing store."""
    try:
        return Store(folder, create=False) if hosts is None else SharedStore(folder, hosts, create=False)
    except FileNotFoundError:
        return None


def _plans(config: dict[str, Any], store: Store | None) -> dict[str, Plan]:
    """The plans of a config that fits its data and its model; if the store knows both, neither is loaded."""
    lab = experiment.lab_of(config, Notebook(lambda step: None))
    with _refusing():
        sizes = lab.examples()
    about = _value(sizes, store)
    examples, shape = about.rows[0]["examples"], tuple(about.meta["shape"])
    if config["augment"] and len(shape) != 3:
        raise ValueError(
            f"augment={config['augment']!r} needs images of shape (height, width, channels), but an example of this "
            f"data has shape {shape}: use augment=()."
        )
    plans = experiment.plans_of(config, examples)
    experiment.check_levels(experiment.imp_of(config, examples), Masks(_value(lab.full(), store).arrays))
    return plans


def _value(step: Step, store: Store | None) -> Value:
    """A value that exists, or that is computed to look at it."""
    try:
        if store is not None:
            return store.get(step.name)
    except (MissingError, DamagedError):
        pass
    import_keras()
    with _refusing():
        made: Value = resolve(step.kind.make)(**filled(step.given, step.kind.defaults))
    return made


def _try(config: dict[str, Any]) -> None:
    """Create what trains the dense network: its optimizer and batches. They are kept for the run."""
    import_keras()
    lab = experiment.lab_of(config, Notebook(lambda step: None))
    with _refusing():
        trainer_of(lab.train(lab.init(0)), config["steps"])


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn an exception of data, model or optimizer into one line: the config does not work."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"the config does not work: {_line(error)}") from error


def _write_rows(plans: Mapping[str, Plan], workdir: str, config: Mapping[str, Any]) -> None:
    if _there(workdir, None) is None:
        return
    folder, found = files.join(workdir, "rows"), rows_of(plans, workdir)
    for name, count in write_tables(found.rows, folder).items():
        print(f"{files.join(folder, name)}  {count} rows")
    # Rows without their store must still say what they describe.
    text = json.dumps(config, indent=1, default=str) + "\n"
    files.write_atomic(files.join(folder, "setting.json"), text.encode())
    if found.missing:
        print(f"{len(found.missing)} rows are waiting for missing values.")


def _command(argv: Sequence[str]) -> str:
    """The command that starts this run, for messages."""
    kept = [word for word in argv[1:] if not word.lstrip("-").startswith("only")]
    return f"{_COMMAND} {shlex.join(kept)}"


def _say(text: str) -> None:
    print(text, flush=True)


def _line(error: Exception) -> str:
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))  # Keras prints in bold
    return f"{type(error).__name__}: {' '.join(text.split())}"


def load(name: str) -> ConfigDict:
    """Return the config in a file, or of a module of `keras_lth.configs`, with its defaults.

    Raises ``ValueError`` or ``OSError`` that lists the known configs.
    """
    there = sorted(path.stem for path in configs.FOLDER.glob("*.py") if "def get_config" in path.read_text())
    get_config: Callable[[], Any] | None
    if Path(name).is_file():
        get_config = runpy.run_path(name).get("get_config")
    elif name in there:
        get_config = importlib.import_module(f"{configs.__name__}.{name}").get_config
    else:
        raise ValueError(f"there is no file {name} and no config with this name: {hint(name, there, 'known configs')}")
    if get_config is None:
        raise ValueError(f"{name} has no function get_config(): define one that returns a ConfigDict or a dict.")
    made = get_config()
    if not isinstance(made, (ConfigDict, Mapping)):
        raise ValueError(f"get_config() of {name} returns {made!r}: it must return a ConfigDict or a dict.")
    config = ConfigDict(experiment.completed(ConfigDict(made).to_dict()))
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


def _open(config: ConfigDict, argv: Sequence[str]) -> None:
    """Give mappings that hold any key those of the overrides, such as ``--config.model_options.width=8``."""
    for word in argv:
        flag, _, value = word.lstrip("-").partition("=")
        first, *path = flag.split(".")
        if first != "config" or len(path) != 2 or path[0] not in experiment.OPEN or path[0] not in config:
            continue
        if path[1] not in config[path[0]]:
            try:
                config[path[0]][path[1]] = ast.literal_eval(value)
            except (SyntaxError, ValueError):
                config[path[0]][path[1]] = value


def run() -> None:
    """Define the flags and run. Flags are not defined at import, so that they cannot clash with another program's."""
    # A user's own plan, model or data are in this folder, which a console script does not search.
    sys.path += [] if {"", os.getcwd()} & set(sys.path) else [os.getcwd()]
    name, argv = _taken(sys.argv)
    asked = any(word.lstrip("-").startswith("help") for word in argv)
    if name is None and not asked:
        raise SystemExit("--config is missing: pass a file with get_config(), or a name such as lenet_300_100_digits.")
    about = "A file with get_config(), or the name of a config that comes with keras_lth."
    with config_errors():
        config = ConfigDict() if name is None else load(name)
        _open(config, argv)
        config_flags.DEFINE_config_dict("config", config, about, sys_argv=argv)
    flags.DEFINE_string("workdir", None, "The folder of the store, local or gs://; created if it does not exist.")
    flags.DEFINE_bool(
        "dry_run", False, "Print what the store has, what is missing, the time and the bytes; compute nothing."
    )
    flags.DEFINE_integer("workers", 1, "Processes that divide the work.", lower_bound=1)
    flags.DEFINE_enum("runner", "local", list(RUNNERS), "Where workers run: on this machine, or on a Ray cluster.")
    flags.DEFINE_enum("strategy", "none", STRATEGIES, "The devices that one training uses; see docs/pods.md.")
    flags.DEFINE_string("tpu", None, "With --strategy=tpu: the name or grpc address of a TPU, or local.")
    flags.DEFINE_list("cluster", [], "With --strategy=multiworker: host:port of every worker; TF_CONFIG by default.")
    flags.DEFINE_integer("task", None, "With --strategy=multiworker: the index of this process in --cluster.")
    flags.DEFINE_float("timeout", 300.0, "Seconds to wait for other workers, or for the TPU.", lower_bound=0.0)
    flags.DEFINE_bool("quiet", False, "Print no line for each value, and no live table on a terminal.")
    flags.DEFINE_bool("tensorboard", False, "Write the curves to WORKDIR/tensorboard while it runs.")
    flags.DEFINE_string("only", None, "The name of a step: compute only this step and what it needs.")
    flags.mark_flag_as_required("workdir")
    app.run(main, argv=argv, flags_parser=parse)


if __name__ == "__main__":
    run()
