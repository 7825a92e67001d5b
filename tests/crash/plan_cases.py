"""The cases of a plan: ``python -m tests.crash.plan_cases SUITE ROOT``, with the library of strike.c preloaded.

As cases.py, for the engine: a small plan (init, train, prune, rewind, compare, rows) on a store. Each case strikes one
call; then the same run is started again, and the store must hold what one holds that was never struck.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_lth.imp import IMP
from keras_lth.plans import Notebook, run
from keras_lth.store import Store, check
from tests.crash.cases import Case
from tests.crash.disk import Disk, Tree, read_tree, write_tree
from tests.crash.strike import CHANGING, COUNTED, GROWING, READING, Arm, Ended, Kind, Mode, Striker
from tests.plans import toy

HOW = IMP(k=2, T=4, rounds=1)
# The whole proof takes minutes; without it every seventh call is struck.
EVERY = 1 if os.environ.get("KERAS_LTH_PROOF") else 7


def plan(book: Notebook) -> None:
    """IMP with one round, its ends compared."""
    _, levels = toy.imp(book, HOW)
    book.row(toy.COMPARE(*(line.at(HOW.T) for _, line in levels)), arm="compare")


class Bench:
    """A folder, the program, and the values it leaves when nothing happens to it."""

    def __init__(self, root: Path) -> None:
        self.root, self.striker = root, Striker(root)
        os.environ["TOY_CALLS"] = "1"
        self._ends: dict[Any, tuple[set[str], list[str]]] = {}
        self.put({})
        self.program(lambda what, which: None)  # in this process, so that every fork finds the modules loaded
        gc.collect()
        gc.freeze()
        self.wanted = self.values()
        assert len(self.wanted) == 9 and not self.leftovers()
        self.put({})
        first = self.striker.run(self.program)
        assert not first.text and not first.warnings
        self.calls = first.calls

    def program(self, told: Callable[[str, Any], None]) -> None:
        """The run as a user starts it; each value that is kept is reported."""

        class Telling(Store):
            def put(self, name: str, *arguments: Any) -> None:
                super().put(name, *arguments)
                told("value", name)

        rows = run(plan, Telling(self.root / "store"), commit_every=0, say=lambda text: told("said", text))
        told("rows", len(rows))

    def put(self, tree: Tree) -> None:
        """Make the folder hold just this."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        write_tree(self.root, tree)

    def values(self) -> dict[str, Any]:
        """What the store holds, without the records, in which there are times."""
        store = Store(self.root / "store")
        found = {name: store.get(name) for name in store.names()}
        return {n: [dict(v.meta), {k: a.tobytes().hex() for k, a in v.arrays.items()}] for n, v in found.items()}

    def leftovers(self) -> list[str]:
        """What a run that has ended well does not leave."""
        return [path for path in read_tree(self.root) if "scratch/" in path or path.endswith(".tmp")]

    def count(self, kinds: int) -> int:
        """Calls of these kinds that the program makes on an empty folder."""
        self.put({})
        return self.striker.run(self.program, Arm(kinds=kinds)).calls

    def strike(self, fault: str, arm: Arm, tree: Tree | None = None) -> tuple[Case, Ended]:
        """Run the program under `arm`."""
        self.put(tree or {})
        ended = self.striker.run(self.program, arm)
        case = Case(fault, arm.n, ended.call, ended.struck, ended.signal, ended.text, ended.warnings)
        if tree is None:
            disk = Disk(str(self.root))
            disk.play(ended.records)
            if disk.now() != read_tree(self.root):
                case.wrong.append("the record of the calls is not what the folder shows")
        if ended.other:
            case.wrong.append(f"it did not end with an OSError: {ended.text[-300:]}")
        return case, ended

    def after(self, case: Case, tree: Tree, ended: Ended, what: str = "") -> None:
        """Every value that was told is whole in `tree`; started again, the run ends as one that was never struck."""
        key = tuple(sorted(tree.items()))
        case.states += 1
        if key not in self._ends:
            self.put(tree)
            safe, found = self._safe(), []
            again = self.striker.run(self.program)
            if again.text:
                found.append(f"the next run ended with {again.text[-300:]}")
            elif self.values() != self.wanted:
                found.append("the next run made other values")
            elif self.leftovers():
                found.append(f"the next run left {self.leftovers()}")
            self._ends[key] = safe, found
        safe, found = self._ends[key]
        lost = [f"{name} was kept and is lost" for kind, name in ended.told if kind == "value" and name not in safe]
        case.wrong += [f"{what}: {text}" if what else text for text in lost + found]

    def _safe(self) -> set[str]:
        if not (self.root / "store" / "store.json").exists():
            return set()
        store = Store(self.root / "store")
        return store.names() - set(check(store))


def deaths(bench: Bench) -> Iterator[Case]:
    """Killed before every call, and in the middle of every write; with the power on, and with what its loss takes."""
    writes = bench.count(Kind.WRITE)
    arms = [Arm(n, Mode.KILL) for n in range(0, bench.calls, EVERY)]
    for arm in arms + [Arm(n, Mode.TEAR, kinds=Kind.WRITE) for n in range(0, writes, EVERY)]:
        case, ended = bench.strike(arm.mode.name, arm)
        disk = Disk(str(bench.root))
        disk.play(ended.records)
        bench.after(case, read_tree(bench.root), ended)
        for what, tree in disk.losses(range(arm.n, arm.n + 1)).items():
            bench.after(case, tree, ended, f"without {what}")
        yield case


def errors(bench: Bench) -> Iterator[Case]:
    """Every call fails once, then the run is started again."""
    for code, kinds in ((errno.ENOSPC, GROWING), (errno.EIO, COUNTED)):
        for n in range(0, bench.count(kinds), EVERY):
            yield _failed(bench, Arm(n, Mode.FAIL, code, kinds))


def lasting(bench: Bench) -> Iterator[Case]:
    """From a call on the disk is full, or the folder read-only; then it is well again."""
    for code, kinds in ((errno.ENOSPC, GROWING & ~Kind.CLOSE & ~Kind.RENAME), (errno.EROFS, CHANGING)):
        for n in range(0, bench.count(kinds), EVERY):
            yield _failed(bench, Arm(n, Mode.FAIL_ON, code, kinds))


def reads(bench: Bench) -> Iterator[Case]:
    """A run that goes on from the middle of the first training: every read fails once."""
    middle = next(n for n in range(bench.calls) if _commits(bench, n))
    bench.strike("KILL", Arm(middle, Mode.KILL))
    tree = read_tree(bench.root)
    bench.put(tree)
    for n in range(0, bench.striker.run(bench.program, Arm(kinds=READING)).calls, EVERY):
        case, ended = bench.strike("FAIL EIO", Arm(n, Mode.FAIL, errno.EIO, READING), tree)
        bench.after(case, read_tree(bench.root), ended)
        yield case


def _commits(bench: Bench, n: int) -> bool:
    bench.strike("KILL", Arm(n, Mode.KILL))
    return sum(path.endswith(".manifest.json") for path in read_tree(bench.root)) == 2


def _failed(bench: Bench, arm: Arm) -> Case:
    case, ended = bench.strike(f"{arm.mode.name} {errno.errorcode[arm.error]}", arm)
    if not case.said and ("rows", 3) not in [tuple(told) for told in ended.told]:
        case.wrong.append("it ended as if nothing had happened")
    bench.after(case, read_tree(bench.root), ended)
    return case


SUITES = {suite.__name__: suite for suite in (deaths, errors, lasting, reads)}


def main(suite: str, root: str) -> None:
    """Print the cases of a suite."""
    bench = Bench(Path(root))
    try:
        for case in SUITES[suite](bench):
            print(json.dumps(vars(case)), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
