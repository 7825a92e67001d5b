"""What the cases of a program share: a folder, the program as forks of one process, and the calls that are struck."""

from __future__ import annotations

import errno
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.disk import Disk, Tree, read_tree, write_tree
from tests.crash.strike import CHANGING, COUNTED, GROWING, Arm, Ended, Kind, Mode, Striker

Suites = Mapping[str, Callable[[Any], Iterator["Case"]]]
# By error, the kinds of calls that it strikes once; and those that it strikes from a call on.
ONCE = {errno.ENOSPC: GROWING, errno.EIO: COUNTED, errno.EROFS: CHANGING}
LASTING = {errno.ENOSPC: GROWING & ~Kind.CLOSE & ~Kind.RENAME, errno.EROFS: CHANGING, errno.EIO: ~Kind.CLOSE}


@dataclass
class Fault:
    """What is printed of a fault: what it is, the call that it struck and how often, and what was wrong afterwards."""

    fault: str
    n: int
    call: str = ""
    struck: int = 0
    warned: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass
class Case(Fault):
    """A fault of a program in NumPy: how it ended, and of how many states of the folder it was started again."""

    signal: int = 0
    said: str = ""
    states: int = 0


class Bench(ABC):
    """A folder and a program.

    Attributes:
        every: which of the calls are struck: each so many.
        ways: in how many random ways a loss of power leaves the disk.
        once, lasting: the errors that calls give, once and from a call on.
        calls: on files, of an undisturbed run on an empty folder.
    """

    every, ways, calls = 1, 3, 0
    once = lasting = (errno.ENOSPC, errno.EROFS, errno.EIO)

    def __init__(self, root: Path) -> None:
        self.root, self.striker = root, Striker(root)

    @abstractmethod
    def program(self, told: Callable[[str, Any], None]) -> None:
        """What is struck; it tells what is safe."""

    @abstractmethod
    def after(self, case: Case, tree: Tree, ended: Ended, what: str = "") -> None:
        """What the program reported as safe is in ``tree``; started again, it ends as one that was never struck."""

    @abstractmethod
    def unnoticed(self, case: Case, ended: Ended, left: Tree) -> bool:
        """Whether a fault was passed over in silence."""

    def put(self, tree: Tree) -> None:
        """Make the folder hold just this."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        write_tree(self.root, tree)

    def run(self, arm: Arm | None = None) -> Ended:
        """Run the program on the folder as it is."""
        return self.striker.run(self.program, arm)

    def count(self, kinds: int) -> int:
        """Calls of these kinds that the program makes on an empty folder."""
        self.put({})
        return self.run(Arm(kinds=kinds)).calls

    def strike(self, fault: str, arm: Arm, tree: Tree | None = None) -> tuple[Case, Ended]:
        """Run the program on `tree` under `arm`; what it left must be what the recorded calls say."""
        self.put(tree or {})
        ended = self.run(arm)
        case = Case(fault, arm.n, ended.call, ended.struck, ended.warnings, signal=ended.signal, said=ended.text)
        if tree is None:
            disk = Disk(str(self.root))
            disk.play(ended.records)
            if disk.now() != read_tree(self.root):
                case.wrong.append("the record of the calls is not what the folder shows")
        if ended.other:
            case.wrong.append(f"it did not end with an OSError: {ended.text[-300:]}")
        return case, ended


def deaths(bench: Bench) -> Iterator[Case]:
    """Killed before every call, and in the middle of every write; with the power on, and with what its loss takes."""
    arms = [Arm(n, Mode.KILL) for n in range(0, bench.calls, bench.every)]
    writes = range(0, bench.count(Kind.WRITE), bench.every)
    for arm in arms + [Arm(n, Mode.TEAR, kinds=Kind.WRITE) for n in writes]:
        case, ended = bench.strike(arm.mode.name, arm)
        disk = Disk(str(bench.root))
        disk.play(ended.records)
        bench.after(case, read_tree(bench.root), ended)
        for what, tree in disk.losses(range(bench.ways * arm.n, bench.ways * (arm.n + 1))).items():
            bench.after(case, tree, ended, f"without {what}")
        yield case


def errors(bench: Bench) -> Iterator[Case]:
    """Every call fails once, then the program is started again."""
    return _failing(bench, Mode.FAIL, {code: ONCE[code] for code in bench.once})


def lasting(bench: Bench) -> Iterator[Case]:
    """From a call on the disk is full, or the folder read-only, or the disk dead; then it is well again."""
    return _failing(bench, Mode.FAIL_ON, {code: LASTING[code] for code in bench.lasting})


def _failing(bench: Bench, mode: Mode, kinds: Mapping[int, int]) -> Iterator[Case]:
    for code, some in kinds.items():
        for n in range(0, bench.count(some), bench.every):
            case, ended = bench.strike(f"{mode.name} {errno.errorcode[code]}", Arm(n, mode, code, some))
            left = read_tree(bench.root)
            if bench.unnoticed(case, ended, left):
                case.wrong.append("it ended as if nothing had happened")
            bench.after(case, left, ended)
            yield case


def show(suites: Suites, suite: str, bench: Bench, *, first: bool = False) -> None:
    """Print the cases of a suite, a line of JSON each; with ``first`` up to the first that goes wrong."""
    try:
        for case in suites[suite](bench):
            print(json.dumps(vars(case)), flush=True)
            if first and case.wrong:
                break
    finally:
        shutil.rmtree(bench.root, ignore_errors=True)
