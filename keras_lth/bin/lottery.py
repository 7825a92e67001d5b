"""Finds lottery tickets and trains them beside their ablations.

    python -m keras_lth.bin.lottery --config=configs/lenet_300_100_fashion_mnist.py --workdir=runs/lenet

Every value of the config can be overridden: ``--config.replicates=3``. The same command goes on where it was stopped,
inside a training too. On several devices: ``--strategy=mirrored``; on several machines, the same command on each:
``--strategy=multiworker --cluster=host0:2222,host1:2222 --task=0`` (or TF_CONFIG); on TPUs:
``--strategy=tpu --tpu=NAME``. ``--workdir`` may be ``gs://…``.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

from keras_lth.bin import parse, quick_imports, set_xla_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "A Python file with get_config(), such as configs/demo.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; made if it is not there.")
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes that train at once.", lower_bound=1)
_RUNNER = flags.DEFINE_enum("runner", "local", ["local", "ray"], "Where workers are: here, or on a Ray cluster.")
_STRATEGY = flags.DEFINE_enum(
    "strategy", "none", ["none", "mirrored", "multiworker", "tpu"], "On what one training runs; see the page on pods."
)
_TPU = flags.DEFINE_string("tpu", None, "Of --strategy=tpu: name or grpc address of a TPU, or local.")
_CLUSTER = flags.DEFINE_list("cluster", [], "Of --strategy=multiworker: host:port of every worker; else TF_CONFIG.")
_TASK = flags.DEFINE_integer("task", None, "Of --strategy=multiworker: which of --cluster this process is.")
_TIMEOUT = flags.DEFINE_float("timeout", 300.0, "Seconds to wait for other workers, or for the TPU.", lower_bound=0.0)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: Sequence[str]) -> None:
    """Run the experiment."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    with quick_imports():
        importlib.import_module("keras_lth.experiments.lottery")
    set_xla_flags()

    from keras_lth.experiments import run

    began = time.time()
    try:
        strategy = None
        if _STRATEGY.value != "none" or _TPU.value or _CLUSTER.value or _TASK.value is not None:
            from keras_lth.training import strategies

            strategy = strategies.make(
                _STRATEGY.value, tpu=_TPU.value, workers=_CLUSTER.value, index=_TASK.value, timeout=_TIMEOUT.value
            )
        config = _CONFIG.value.to_dict()
        workdir = run.run(config, _WORKDIR.value, workers=_WORKERS.value, strategy=strategy, runner=_RUNNER.value)
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    if not run.writes(strategy):
        return
    print(f"\nDone in {(time.time() - began) / 60:.1f} minutes. In {workdir}:")
    print("  results.csv      a row a training      curves.csv   test accuracy through training")
    print("  replicate_0/imp  metrics.jsonl, levels.json, tickets/level_NN.ticket")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
