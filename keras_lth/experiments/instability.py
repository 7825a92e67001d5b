"""Instability of a dense network and of a ticket, from several steps of their training (thesis 4.1.1, 4.2.2).

The ticket is the sparsest matching one of a replicate's IMP; it is trained from its own rewound weights, and forked
at each step asked for, like the dense network.
"""

from __future__ import annotations

import json
from typing import Any

import tensorflow as tf

from keras_lth import files
from keras_lth.analysis.instability import Comparison
from keras_lth.callbacks.instability import InstabilityCallback
from keras_lth.callbacks.journal import Journal
from keras_lth.experiments.lottery import Config, Setting, folder, seed_of
from keras_lth.tickets import Ticket


def sparsest_matching(imp_folder: files.RunPath) -> int:
    """The sparsest level that IMP itself found to be matching; 0, the dense network, when none is."""
    rows = json.loads((imp_folder / "levels.json").read_text())
    return max(row["round"] for row in rows if row["matching"])


def run_instability(
    config: Config,
    workdir: files.RunPath,
    network: str,
    fork: str,
    replicate: int = 0,
    strategy: tf.distribute.Strategy | None = None,
) -> None:
    """One network ("dense" or "ticket"), one fork: a training and its copies under other data orders."""
    name = f"{network}_{fork.replace(' ', '_').replace('%', 'pc')}"
    path, checkpoints = workdir / "instability" / f"{name}.json", workdir / "instability" / f"checkpoints_{name}"
    setting = Setting(config, strategy)
    if setting.hosts.of_chief(int(path.exists())):
        return
    imp_folder = folder(workdir, replicate, "imp")
    level = 0 if network == "dense" else sparsest_matching(imp_folder)
    ticket: Ticket = Journal(imp_folder).ticket(level)
    model = setting.model(seed_of(config, "init", replicate))
    ticket.apply_to(model)
    runs = config["instability"]["runs"]
    callback = InstabilityCallback(
        fork_at=fork, runs=runs, data={"train": setting.splits.train, "test": setting.splits.test}
    )
    setting.fit(
        model,
        seed_of(config, "instability", replicate),
        runs * setting.epochs,
        [callback],
        checkpoints,
    )
    if not setting.hosts.chief:
        return
    about = {"network": network, "level": level, "density": ticket.density, "replicate": replicate}
    rows = [{**about, "fork_step": callback.as_dict()["fork_step"], **_flat(result)} for result in callback.results]
    files.write_atomic(path, (json.dumps(rows) + "\n").encode())
    checkpoints.clear()
    print(f"instability of {network} (level {level}) from {fork}:\n{callback.summary()}", flush=True)


def _flat(result: Comparison) -> dict[str, Any]:
    row = result.as_dict()
    return {**row, **row.pop("path"), "stable": result.stable()}


def gather(workdir: files.RunPath) -> None:
    """All forks in one ``instability.json``."""
    here = workdir / "instability"
    rows = [row for name in here.names("*.json") for row in json.loads((here / name).read_text())]
    if rows:
        rows.sort(key=lambda row: (row["network"], row["fork_step"], row["data"], row["pair"]))
        files.write_atomic(workdir / "instability.json", (json.dumps(rows, indent=1) + "\n").encode())
