"""Runs a lottery experiment whole: every replicate and arm, the instability analysis, the tables.

The trainings depend on each other only through the tickets, so with several workers each takes the next training that
is ready (`runners`). What is finished lies in files, and the same command goes on from them.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from keras_lth import files
from keras_lth.experiments import runners
from keras_lth.experiments.runners import Task

ARMS = ("imp", "reinit", "random_layerwise", "random_global")


def run(
    config: dict[str, Any],
    workdir: str | os.PathLike[str],
    *,
    workers: int = 1,
    strategy: Any = None,
    runner: str | runners.Runner = "local",
) -> files.RunPath:
    """All that ``config`` asks for, in ``workdir``; returns it.

    Args:
      config: as the files in ``configs`` make it.
      workdir: a local folder, or ``gs://…``.
      workers: trainings at once, each on one device.
      strategy: a ``tf.distribute.Strategy`` under which each training runs. Several hosts call this together.
      runner: where the workers are: "local", processes of this machine; "ray", a Ray cluster; or a runner.

    Raises ``ValueError`` when the folder holds a run of another config, with what differs; ``RuntimeError`` when
    another process works in it, hosts differ, or a worker died or failed.
    """
    here = files.RunPath(workdir)
    arms = config["arms"]
    if not set(arms) <= set(ARMS) or "imp" not in arms:
        raise ValueError(f"arms are some of {', '.join(ARMS)}, imp always among them, not {', '.join(arms)}.")
    if strategy is not None and (workers > 1 or runner != "local"):
        raise ValueError(
            f"workers={workers} (runner {runner!r}) train on one device each; a strategy gives one training several "
            "devices."
        )
    chosen = runners.make(runner, workers) if isinstance(runner, str) else runner
    if strategy is not None:
        _run_together(config, here, strategy)
        return here
    with files.DirectoryLock(here):
        began = time.time()
        _same_config(config, here)
        _run_tasks(config, here, chosen)
        _finish(config, here, {"workers": workers}, began)
    return here


def writes(strategy: Any) -> bool:
    """Whether this process is the one that writes files."""
    if strategy is None:
        return True
    from keras_lth.surgery import Hosts

    return Hosts(strategy).chief


def _run_together(config: dict[str, Any], here: files.RunPath, strategy: Any) -> None:
    """One training at a time, on all devices and hosts of ``strategy``."""
    from keras_lth.surgery import Hosts

    hosts = Hosts(strategy)
    began = time.time()
    lock = files.DirectoryLock(here)
    with hosts.together(), ExitStack() as stack:
        stack.callback(lock.release)
        hosts.first(lambda: _begin(config, here, lock) if hosts.chief else None)
        hosts.check_same(json.dumps(config, sort_keys=True).encode(), "configs")
        held = here / "config.json"
        hosts.check_same(held.read_text().encode() if held.exists() else b"", f"files in {here}")
        for replicate in range(config["replicates"]):
            task: Task = ("imp", (replicate,))
            for each in [task, *_after(task, config)]:
                _do(each, config, here, strategy)
        hosts.meet()
        if hosts.chief:
            _finish(config, here, {"hosts": hosts.count, "replicas": int(strategy.num_replicas_in_sync)}, began)


def _begin(config: dict[str, Any], here: files.RunPath, lock: files.DirectoryLock) -> None:
    lock.acquire()
    _same_config(config, here)


def _finish(config: dict[str, Any], here: files.RunPath, about: dict[str, Any], began: float) -> None:
    """The tables, and a line about this session."""
    from keras_lth.experiments.collect import collect
    from keras_lth.experiments.instability import gather
    from keras_lth.experiments.lottery import Setting

    collect(here, Setting(config).steps_per_epoch)
    gather(here)
    files.append_line(here / "sessions.jsonl", json.dumps({"seconds": round(time.time() - began), **about}))


def _same_config(config: dict[str, Any], here: files.RunPath) -> None:
    path = here / "config.json"
    text = json.dumps(config, indent=1, sort_keys=True)
    if path.exists():
        earlier, now = json.loads(path.read_text()), json.loads(text)
        # More replicates, arms or forks go on from what is there.
        free = ("replicates", "arms", "instability", "name")
        differs = [k for k in sorted({*earlier, *now}) if k not in free and earlier.get(k) != now.get(k)]
        if differs:
            listed = "; ".join(f"{k}: {earlier.get(k)!r} there, {now.get(k)!r} here" for k in differs)
            raise ValueError(f"{here} holds a run of another config ({listed}). Choose another workdir.")
    files.write_atomic(path, (text + "\n").encode())


def _after(task: Task, config: dict[str, Any]) -> list[Task]:
    """The tasks that a finished task makes ready."""
    name, args = task
    if name != "imp":
        return []
    (replicate,) = args
    out: list[Task] = [("ablation", (replicate, arm)) for arm in config["arms"] if arm != "imp"]
    if replicate == 0:
        forks = config["instability"]["forks"]
        out += [("instability", (network, fork)) for network in ("dense", "ticket") for fork in forks]
    return out


def _run_tasks(config: dict[str, Any], here: files.RunPath, runner: runners.Runner) -> None:
    first: list[Task] = [("imp", (replicate,)) for replicate in range(config["replicates"])]
    # A worker may be started in another folder.
    place = files.RunPath(os.path.abspath(here)) if files.is_local(here) else here
    runner.run(partial(_do, config=config, here=place), first, partial(_after, config=config))


def _do(task: Task, config: dict[str, Any], here: files.RunPath, strategy: Any = None) -> None:
    name, args = task
    if name == "instability":
        from keras_lth.experiments.instability import run_instability

        run_instability(config, here, args[0], args[1], strategy=strategy)
        return
    from keras_lth.experiments.lottery import run_ablation, run_imp

    if name == "imp":
        run_imp(config, here, args[0], strategy)
    else:
        run_ablation(config, here, args[0], args[1], strategy)
