"""The crash proof of a whole run: ``python -m tests.crash.whole --seed=1 --out=FILE``.

A small IMP run through `keras_lth.training.fit` is killed at every call that it makes on files, at random times, sent
SIGTERM, given full, read-only and dying disks and damaged files; each time it is started again and must end with the
same weights, masks, slots, metrics, history, tickets, and leave the same files. FILE gets what was counted.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

from tests.crash.suites import MEMORY, ROOT, library

Cases = list[dict[str, Any]]


class Workers:
    """Processes that run cases, two at a time; a context manager.

    Attributes:
        calls, writes: on files, of an undisturbed run.
        end: what an undisturbed run ends with.
    """

    def __init__(self, count: int = 2) -> None:
        place = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        self._workers = [_Worker(Path(tempfile.mkdtemp(prefix="crash_", dir=place))) for _ in range(count)]
        heads = [worker.answer() for worker in self._workers]
        assert heads[1:] == heads[:-1], "two undisturbed runs differ"
        self.calls, self.writes, self.end = heads[0]["calls"], heads[0]["writes"], heads[0]["end"]

    def run(self, cases: Iterable[tuple[str, int]], done: Cases | None = None, *, together: int = 1) -> Cases:
        """The results of (suite, number), as `whole_bench.Case` with its suite; ``done`` grows as they come.

        So many go ``together`` to one worker: neighbours leave equal folders, on which it runs the program once.
        """
        results: Cases = [] if done is None else done
        waiting, lock = iter(cases), threading.Lock()
        broken: list[BaseException] = []

        def work(worker: _Worker) -> None:
            try:
                while not broken:
                    with lock:
                        pairs = list(islice(waiting, together))
                    if not pairs:
                        return
                    results.extend({"suite": pair[0], **worker.ask(pair)} for pair in pairs)
            except BaseException as error:
                broken.append(error)

        threads = [threading.Thread(target=work, args=[worker]) for worker in self._workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if broken:
            raise broken[0]
        return results

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.close()


class _Worker:
    def __init__(self, root: Path) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the worker
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        single = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.whole_cases", str(root)],
            cwd=ROOT,
            env={**os.environ, **quiet, **single, "LD_PRELOAD": str(library())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, pair: tuple[str, int]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(pair) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"a worker ended with {self._process.returncode}: {self._errors.read()[-4000:]}")
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()  # closes its input: it ends, and removes its folder
        self._errors.close()


def until(suite: str, struck: int, first: int, done: Cases) -> Iterator[tuple[str, int]]:
    """Cases of a suite, from the seed ``first`` on, until those of it that are done struck so often."""
    for seed in count(first):
        if sum(case["struck"] for case in done if case["suite"] == suite) >= struck:
            return
        yield suite, seed


def wrong(cases: Cases) -> Cases:
    """Cases that were not struck, or after which something was wrong."""
    return [case for case in cases if case["wrong"] or not case["struck"]]


def summary(cases: Cases) -> dict[str, Any]:
    """What is kept of a suite's cases."""
    return {
        "cases": len(cases),
        "struck": sum(case["struck"] for case in cases),
        "starts": sum(case["starts"] for case in cases),
        "seconds": round(sum(case["seconds"] for case in cases)),
        "faults": dict(sorted(Counter(case["fault"] for case in cases).items())),
        "failures": wrong(cases),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stride", type=int, default=1, help="1: every call; 10: every tenth")
    parser.add_argument("--kills", type=int, default=300, help="SIGKILLs at random times")
    parser.add_argument("--terminations", type=int, default=60, help="SIGTERMs at random times")
    parser.add_argument("--faults", type=int, default=40, help="of each fault of the disk")
    parser.add_argument("--suites", default="", help="some of them, with commas; the others stay as they are in FILE")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    with Workers() as workers:
        kept = json.loads(asked.out.read_text())["suites"] if asked.suites and asked.out.exists() else {}
        versions = {name: importlib.metadata.version(name) for name in ("keras", "tensorflow", "numpy")}
        result = {
            "command": f"python -m tests.crash.whole {_said(parser, asked)}",
            "calls": workers.calls,
            "writes": workers.writes,
            "suites": kept,
            "versions": {"python": platform.python_version(), **versions},
        }
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        for suite, pairs, done in plan(workers, asked):
            workers.run(pairs, done, together=12 if suite in ("died", "torn") else 1)
            kept[suite] = summary(done)
            print(suite, json.dumps(kept[suite]), flush=True)
            asked.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(1 if any(one["failures"] for one in kept.values()) else 0)


def _said(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> str:
    """The options that differ from their defaults, and the seed."""
    said = {name: value for name, value in vars(asked).items() if name not in ("suites", "out")}
    return " ".join(f"--{n}={v}" for n, v in said.items() if n == "seed" or v != parser.get_default(n))


def plan(workers: Workers, asked: argparse.Namespace) -> Iterator[tuple[str, Iterable[tuple[str, int]], Cases]]:
    """The suites that are asked for, their cases, and a list for what comes of them."""
    first = 1000 * asked.seed
    seeds, few = range(first, first + asked.faults), range(first, first + 10)
    failing = sorted(Random(asked.seed).sample(range(workers.calls), min(asked.faults, workers.calls)))
    numbers: dict[str, Iterable[int]] = {
        "died": range(0, workers.calls, asked.stride), "torn": range(0, workers.writes, asked.stride),
        "killed": (), "terminated": (), "failed": failing, "full": seeds, "read_only": seeds, "dead": seeds,
        "damaged": range(12), "halved": range(5),
    }  # fmt: skip
    if may_mount():
        numbers |= {"mounted_full": few, "mounted_read_only": few}
    signals = {"killed": asked.kills, "terminated": asked.terminations}
    for suite in asked.suites.split(",") if asked.suites else numbers:
        done: Cases = []
        times = signals.get(suite)
        yield suite, until(suite, times, first, done) if times else [(suite, n) for n in numbers[suite]], done


def may_mount() -> bool:
    """Whether this process has the right to mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return mounted.returncode == 0


if __name__ == "__main__":
    main()
