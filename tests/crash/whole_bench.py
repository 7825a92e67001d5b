"""A folder, a whole IMP run of TensorFlow in it, and what it ends with when nothing happens to it.

One process holds TensorFlow, imported and not yet started; each run of the program is a fork of it, and takes a second.
"""

from __future__ import annotations

import gc
import importlib
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_lth.files.checkpoints import Checkpoints
from keras_lth.store import Store
from tests.crash.bench import Fault
from tests.crash.disk import Disk, Tree, normal, read_tree, write_tree
from tests.crash.strike import Arm, Ended, Kind, Striker
from tests.training import killed_program


@dataclass
class Case(Fault):
    """A fault of a whole run: how often it was started, how each start ended, the seconds of all."""

    starts: int = 0
    ended: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Bench:
    """The folder ``root`` and the program.

    Attributes:
        calls, writes: on files of the folder, of an undisturbed run.
        wanted: what that run said it ended with, and what it left in the folder.
        seconds: that it computed from its first call on a file to its end.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.striker = root, Striker(root)
        self.put({})
        # What the program imports when it runs is imported here, once and for all.
        for name in self._told(self.run())["modules"]:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()
        self.put({})
        computed: list[float] = []
        whole = self.run(meanwhile=lambda child: computed.append(self.wait(child, math.inf)))
        self.seconds = computed[0]
        assert not whole.text and not whole.warnings and whole.struck == 0, whole
        self.calls = whole.calls
        self.writes = sum(record.kind == Kind.WRITE for record in whole.records)
        self._counts: dict[int, int] = {}
        # By folder: warnings of the run that began on it, and what was wrong with it.
        self._ends: dict[tuple[tuple[str, bytes | None], ...], tuple[list[str], list[str]]] = {}
        self.wanted = {"end": self._told(whole)["end"], **left(root)}

    def put(self, tree: Tree) -> None:
        """Make the folder hold just this."""
        self.root.mkdir(exist_ok=True)
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_tree(self.root, tree)

    def count(self, kinds: int) -> int:
        """Calls of these kinds that the program makes on an empty folder."""
        if kinds not in self._counts:
            self.put({})
            self._counts[kinds] = self.run(Arm(kinds=kinds)).calls
        return self._counts[kinds]

    def run(self, arm: Arm | None = None, meanwhile: Callable[[int], Any] = lambda child: None) -> Ended:
        """Run the program on the folder as it is."""
        return self.striker.run(self._program, arm, meanwhile)

    def _program(self, tell: Callable[[str, Any], None]) -> None:
        known, save = set(sys.modules), Checkpoints.save

        def saved(checkpoints: Checkpoints, *arguments: Any) -> None:
            save(checkpoints, *arguments)
            tell("commit", max(commit.number for commit in checkpoints._known))

        Checkpoints.save = saved  # it tells what is safe
        time.perf_counter = lambda: 0.0  # the seconds of a round are written down: equal runs leave equal bytes
        tell("end", killed_program.run(self.root, jit_compile=False))
        found = sorted(set(sys.modules) - known)
        tell("modules", [name for name in found if not name.startswith("__autograph_generated_file")])

    @staticmethod
    def _told(ended: Ended) -> dict[str, Any]:
        assert ended.code == 0 and not ended.text, ended.text
        return dict(ended.told)

    def wait(self, child: int, seconds: float) -> float:
        """Until a child has computed so many seconds since its first call on a file, or ended; how many it did.

        By the clock of its own, so that the load of the machine does not matter.
        """
        begun, now = None, 0.0
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            now = _computed(child)
            begun = now if begun is None and self.striker.calls else begun
            if begun is not None and now - begun >= seconds:
                break
            time.sleep(0.001)
        return now - (begun or 0.0)

    def strike(
        self, case: Case, arm: Arm | None = None, meanwhile: Callable[[int], Any] = lambda child: None
    ) -> tuple[Ended, Tree]:
        """Run the program on the folder as it is, to be struck; what it had been told to be safe must be there."""
        ended = self.run(arm, meanwhile)
        tree = read_tree(self.root)
        case.starts += 1
        case.call, case.struck = case.call or ended.call, case.struck + bool(ended.struck or ended.signal)
        case.ended.append(_described(ended))
        case.warned += ended.warnings
        if ended.other:
            case.wrong.append(f"it ended with {ended.text}")
        if not ended.signal and ended.code == 0 and dict(ended.told)["end"] != self.wanted["end"]:
            case.wrong.append("it ended as if nothing had happened")
        self.check_safe(case, ended)
        return ended, tree

    def check_safe(self, case: Case, ended: Ended, what: str = "") -> None:
        """The commits that had returned are in the folder, whole."""
        safe = max((which for kind, which in ended.told if kind == "commit"), default=0)
        checkpoints, numbers = Checkpoints(self.root / "commits"), [0]
        with warnings.catch_warnings(record=True) as broken:
            warnings.simplefilter("always")
            numbers += [commit.number for commit in checkpoints._commits() if checkpoints._load(commit) is not None]
        case.wrong += [f"{what}{warning.message}" for warning in broken]
        if safe > max(numbers):
            case.wrong.append(f"{what}commit {safe} was safe, {max(numbers)} is the last")

    def losses(self, ended: Ended, seed: int) -> dict[str, Tree]:
        """What a loss of power leaves of the calls that a run on an empty folder made; they must be all it made."""
        disk = Disk(str(self.root))
        disk.play(ended.records)
        assert disk.now() == read_tree(self.root), "the record of the calls is not what the folder shows"
        return disk.losses(range(seed, seed + 1))

    def finish(self, case: Case, what: str = "", *, warned: bool = False) -> None:
        """Started again, the run ends as one that was never struck; ``warned``: it may warn on the way.

        It is started once on equal folders: all of it is a function of the folder.
        """
        key = tuple(sorted(normal(read_tree(self.root)).items()))
        if key not in self._ends:
            self._ends[key] = self._again()
            case.starts += 1
        told, wrong = self._ends[key]
        case.warned += told
        case.wrong += [f"{what}the next run warned: {text}" for text in told if not warned]
        case.wrong += [what + text for text in wrong]

    def _again(self) -> tuple[list[str], list[str]]:
        """Warnings of a run on the folder as it is, and what was wrong with it."""
        ended = self.run()
        if ended.text or ended.code or ended.signal:
            return ended.warnings, [f"the next run ended with {_described(ended)}"]
        found, wanted = {"end": dict(ended.told)["end"], **left(self.root)}, self.wanted
        differ = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
        return ended.warnings, [f"{name} differs or is missing: {_brief(found, wanted, name)}" for name in differ]


def left(root: Path) -> dict[str, Any]:
    """What a finished run leaves: the values of IMP, the last commit, and the kinds of files beside it."""
    tree = {path: content for path, content in read_tree(root).items() if ".lock" not in path}
    found: dict[str, Any] = {p: content for p, content in tree.items() if not p.startswith(("commits/", "imp/values/"))}
    store = Store(root / "imp", create=False)
    for name in store.names():  # but for when it was made
        value = store.get(name)
        parts = {path: (array.dtype.str, array.shape, array.tobytes()) for path, array in value.arrays.items()}
        found[name] = {**parts, "meta": value.meta}
    last = Checkpoints(root / "commits").latest()
    assert last is not None
    arrays = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in last.arrays.items()}
    commits = sorted(path.split(".", 1)[1] for path in tree if path.startswith("commits/"))
    return {**found, "step": last.step, "arrays": arrays, "state": last.state, "commits": commits}


def _computed(process: int) -> float:
    """Seconds of processor time, of all threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _brief(found: dict[str, Any], wanted: dict[str, Any], name: str) -> str:
    one, other = found.get(name), wanted.get(name)
    if isinstance(one, dict) and isinstance(other, dict):
        return ", ".join(key for key in sorted({*one, *other}) if one.get(key) != other.get(key))
    return f"{str(one)[:80]} instead of {str(other)[:80]}"


def _described(ended: Ended) -> str:
    if ended.signal:
        return f"signal {ended.signal}"
    return ended.text or f"exit code {ended.code}"
