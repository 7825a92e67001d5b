"""Finds lottery tickets and trains them beside their ablations.

    python -m keras_lth.bin.lottery --config=configs/lenet_300_100_fashion_mnist.py --workdir=runs/lenet

Every value of the config can be overridden: ``--config.replicates=3``. The same command goes on where it was stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "A Python file with get_config(), such as configs/demo.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; made if it is not there.")
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes that train at once.", lower_bound=1)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: Sequence[str]) -> None:
    """Run the experiment, then its report."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {' '.join(argv[1:])}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from keras_lth import report
    from keras_lth.experiments import run

    began = time.time()
    try:
        config = _CONFIG.value.to_dict()
        workdir = run.run(config, _WORKDIR.value, workers=_WORKERS.value)
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    page = report.write(workdir)
    print(f"\nDone in {(time.time() - began) / 60:.1f} minutes. In {workdir}:")
    print("  results.csv      a row a training      curves.csv   test accuracy through training")
    print("  replicate_0/imp  metrics.jsonl, levels.json, tickets/level_NN.ticket")
    print(f"  report/{page.name}  figures and table on one page")


def parse(argv: Sequence[str]) -> list[str]:
    """Flags from the command line; what the config does not know is one line, with the near key, not a traceback."""
    try:
        return app.parse_flags_with_usage(list(argv))
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        words = str(error).replace("\\n", " ").replace("\\", "").replace("'", "").split()
        raise SystemExit(f"--config: {' '.join(words)}") from error


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
