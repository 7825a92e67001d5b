"""``python -m tests.experiments.hosts_program WORKERS INDEX FOLDER``: a host of the lottery on a small network."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

from keras_lth.training import strategies
from tests.two_devices import MARK


def main(workers: list[str], index: int, folder: str) -> None:
    strategy = strategies.make("multiworker", workers=workers, index=index)
    from keras_lth.experiments.kinds import Trainer
    from keras_lth.experiments.lottery import lottery
    from keras_lth.plans import run
    from keras_lth.store.shared import SharedStore
    from keras_lth.surgery import Hosts
    from tests.plans import nets

    hosts = Hosts(strategy)
    loads: list[int] = []
    load = Trainer.load

    def counted(self: Any, state: Any, *rest: Any, **more: Any) -> None:
        loads.append(state.meta["step"])
        load(self, state, *rest, **more)

    Trainer.load = counted
    Trainer.calls = 2

    def experiment(book: Any) -> None:
        lottery(nets.lab(book), replace(nets.HOW, k=4), arms=("imp", "reinit"), every=6)

    def say(text: str) -> None:
        print(text, flush=True)

    # Only the chief sees the store.
    store = SharedStore(folder if hosts.chief else "/nowhere", hosts)
    with hosts.together(), strategy.scope():
        rows = run(experiment, store, commit_every=0, say=say)
    print(MARK + json.dumps({"rows": rows, "loads": loads}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1].split(","), int(sys.argv[2]), sys.argv[3])
