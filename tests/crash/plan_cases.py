"""The cases of a plan: ``python -m tests.crash.plan_cases SUITE ROOT``, with the library of strike.c preloaded.

As cases.py, for the engine: a small plan (init, train, prune, rewind, compare, rows) on a store. Each case strikes one
call; then the same run is started again, and the store must hold what one holds that was never struck.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_lth.imp import IMP
from keras_lth.plans import Notebook, run
from keras_lth.store import Store, check
from tests.crash import bench as base
from tests.crash.bench import Case
from tests.crash.disk import Tree, read_tree
from tests.crash.strike import READING, Arm, Ended, Mode
from tests.plans import toy

HOW = IMP(k=2, T=4, rounds=1)
# The whole proof takes minutes; without it every seventh call is struck.
EVERY = 1 if os.environ.get("KERAS_LTH_PROOF") else 7


def plan(book: Notebook) -> None:
    """IMP with one round, its ends compared."""
    _, levels = toy.imp(book, HOW)
    book.row(toy.COMPARE(*(line.at(HOW.T) for _, line in levels)), arm="compare")


class Bench(base.Bench):
    """A folder, the program, and the values it leaves when nothing happens to it."""

    every, ways = EVERY, 1
    once, lasting = (errno.ENOSPC, errno.EIO), (errno.ENOSPC, errno.EROFS)

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        os.environ["TOY_CALLS"] = "1"
        self._ends: dict[Any, tuple[set[str], list[str]]] = {}
        self.put({})
        self.program(lambda what, which: None)  # in this process, so that every fork finds the modules loaded
        gc.collect()
        gc.freeze()
        self.wanted = self.values()
        assert len(self.wanted) == 9 and not self.leftovers()
        self.put({})
        first = self.run()
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

    def values(self) -> dict[str, Any]:
        """What the store holds, without the records, in which there are times."""
        store = Store(self.root / "store")
        found = {name: store.get(name) for name in store.names()}
        return {n: [dict(v.meta), {k: a.tobytes().hex() for k, a in v.arrays.items()}] for n, v in found.items()}

    def leftovers(self) -> list[str]:
        """What a run that has ended well does not leave."""
        return [path for path in read_tree(self.root) if "scratch/" in path or path.endswith(".tmp")]

    def unnoticed(self, case: Case, ended: Ended, left: Tree) -> bool:
        """Whether the run neither failed nor made its rows."""
        return not case.said and ("rows", 3) not in [tuple(told) for told in ended.told]

    def after(self, case: Case, tree: Tree, ended: Ended, what: str = "") -> None:
        """Every value that was reported is whole in `tree`; started again, it ends as one that was never struck."""
        key = tuple(sorted(tree.items()))
        case.states += 1
        if key not in self._ends:
            self.put(tree)
            safe, found = self._safe(), []
            again = self.run()
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


def reads(bench: Bench) -> Iterator[Case]:
    """A run that goes on from the middle of the first training: every read fails once."""
    middle = next(n for n in range(bench.calls) if _commits(bench, n))
    bench.strike("KILL", Arm(middle, Mode.KILL))
    tree = read_tree(bench.root)
    bench.put(tree)
    for n in range(0, bench.run(Arm(kinds=READING)).calls, EVERY):
        case, ended = bench.strike("FAIL EIO", Arm(n, Mode.FAIL, errno.EIO, READING), tree)
        bench.after(case, read_tree(bench.root), ended)
        yield case


def _commits(bench: Bench, n: int) -> bool:
    bench.strike("KILL", Arm(n, Mode.KILL))
    return sum(path.endswith(".manifest.json") for path in read_tree(bench.root)) == 2


SUITES = {suite.__name__: suite for suite in (base.deaths, base.errors, base.lasting, reads)}


if __name__ == "__main__":
    base.show(SUITES, sys.argv[1], Bench(Path(sys.argv[2])))
