"""Runs a lottery experiment whole: every replicate and arm, the instability analysis, the tables.

The trainings depend on each other only through the tickets, so with several workers each takes the next training that
is ready. A worker is a process of its own; what is finished lies in files, and the same command goes on from them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

from keras_lth import files

ARMS = ("imp", "reinit", "random_layerwise", "random_global")
Task = tuple[str, tuple[Any, ...]]


def run(config: dict[str, Any], workdir: str | os.PathLike[str], *, workers: int = 1) -> files.RunPath:
    """All that ``config`` asks for, in ``workdir``; returns it.

    Raises ``ValueError`` when the folder holds a run of another config, with what differs.
    """
    here = files.RunPath(workdir)
    arms = config["arms"]
    if not set(arms) <= set(ARMS) or "imp" not in arms:
        raise ValueError(f"arms are some of {', '.join(ARMS)}, imp always among them, not {', '.join(arms)}.")
    with files.DirectoryLock(here):
        began = time.time()
        _same_config(config, here)
        _run_tasks(config, here, workers)
        from keras_lth.experiments.collect import collect
        from keras_lth.experiments.instability import gather
        from keras_lth.experiments.lottery import Setting

        collect(here, Setting(config).steps_per_epoch)
        gather(here)
        session = {"seconds": round(time.time() - began), "workers": workers}
        files.append_line(here / "sessions.jsonl", json.dumps(session))
    return here


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


def _run_tasks(config: dict[str, Any], here: files.RunPath, workers: int) -> None:
    first: list[Task] = [("imp", (replicate,)) for replicate in range(config["replicates"])]
    if workers <= 1:
        for task in first:
            for each in [task, *_after(task, config)]:
                _do(each, config, here)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _worker, (threads,)) as pool:
        running: dict[Future[None], Task] = {pool.submit(_do, task, config, here): task for task in first}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                future.result()
                running |= {pool.submit(_do, each, config, here): each for each in _after(task, config)}


def _worker(threads: int) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def _do(task: Task, config: dict[str, Any], here: files.RunPath) -> None:
    name, args = task
    if name == "instability":
        from keras_lth.experiments.instability import run_instability

        run_instability(config, here, *args)
        return
    from keras_lth.experiments.lottery import run_ablation, run_imp

    if name == "imp":
        run_imp(config, here, *args)
    else:
        run_ablation(config, here, *args)
