"""``python -m tests.plans.kills COUNT``: two processes on one store, killed COUNT times at any moment; nothing is lost.

Each store is finished before the next begins: its values are those of a run that was never killed, every byte of them
whole, and nothing is left of trainings under way.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from keras_lth.plans import run
from keras_lth.store import Store, check
from tests.plans import toy

SLEEP = 0.02


def values(store: Store) -> dict[str, Any]:
    return {n: {k: a.tobytes() for k, a in store.get(n).arrays.items()} for n in store.names()}


def main(count: int, seed: int = 0) -> None:
    chance, killed, finished, again = random.Random(seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        alone = Store(Path(folder) / "alone")
        run(partial(toy.imps, sleep=0.0), alone, say=lambda text: None)
        while killed < count:
            here, log = Path(folder) / f"s{finished}", Path(folder) / f"log{finished}"
            os.environ |= {"TOY_LOG": str(log), "TOY_SLEEP": str(SLEEP)}
            command = [sys.executable, "-m", "tests.plans.program", str(here)]
            quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
            alive = [subprocess.Popen(command, **quiet) for _ in range(2)]
            while alive:
                time.sleep(chance.expovariate(1.0))
                if killed < count:
                    victim = chance.choice(alive)
                    if victim.poll() is None:
                        victim.kill()
                        killed += 1
                for process in list(alive):
                    if process.poll() is None:
                        continue
                    _, said = process.communicate()
                    alive.remove(process)
                    if process.returncode == -9:
                        alive.append(subprocess.Popen(command, **quiet))
                    else:
                        assert process.returncode == 0, said.decode()[-3000:]
            store = Store(here)
            assert not check(store) and not store.under_way() and values(store) == values(alone)
            taken = [line for line in toy.counted(log) if line[1] == "train"]
            again += len(taken) - len({tuple(line[2:]) for line in taken})
            finished += 1
            print(f"{killed} kills, {finished} stores finished, {again} calls were run again", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
