"""The cases: ``python -m tests.crash.cases SUITE ROOT [MUTANT]``, with the library of strike.c preloaded.

A line of JSON a case: the call that was struck, how the program ended, and what was wrong afterwards, if anything. One
process holds NumPy and the package; each run of the program is a fork of it.
"""

from __future__ import annotations

import errno
import gc
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from keras_lth import files
from keras_lth.files.checkpoints import Checkpoints
from tests.crash import imp, mutants
from tests.crash.disk import Disk, Tree, normal, read_tree, write_tree
from tests.crash.strike import CHANGING, COUNTED, GROWING, READING, Arm, Ended, Kind, Mode, Striker

Key = tuple[tuple[str, bytes | None], ...]
EVERY = 2  # a checkpoint after every second event of the plan: four of them


@dataclass
class Case:
    """What is printed of a case."""

    fault: str
    n: int
    call: str = ""
    struck: int = 0
    signal: int = 0
    said: str = ""
    warned: list[str] = field(default_factory=list)
    states: int = 0
    wrong: list[str] = field(default_factory=list)


class Bench:
    """A folder, the program, and what it leaves when nothing happens to it."""

    def __init__(self, root: Path) -> None:
        self.root, self.striker = root, Striker(root)
        # By tree: what was wrong with the run that began on it, and what it holds.
        self._ends: dict[Key, list[str]] = {}
        self._held: dict[Key, dict[str, Any]] = {}
        self.put({})
        self._program(lambda what, which: None)  # in this process, so that every fork finds the modules loaded
        gc.collect()
        gc.freeze()
        self.put({})
        first = self.run()
        assert not first.text and not first.warnings and first.struck == 0
        self.calls = first.calls
        self.wanted = normal(read_tree(root))
        self.results = results(root)

    def _program(self, told: Callable[[str, Any], None]) -> None:
        imp.run(str(self.root / "run"), EVERY, told)

    def put(self, tree: Tree) -> None:
        """Make the folder hold just this."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        write_tree(self.root, tree)

    def run(self, arm: Arm | None = None) -> Ended:
        """Run the program on the folder as it is."""
        return self.striker.run(self._program, arm)

    def count(self, kinds: int) -> int:
        """Calls of these kinds that the program makes on an empty folder."""
        self.put({})
        return self.run(Arm(kinds=kinds)).calls

    def strike(self, fault: str, arm: Arm, tree: Tree | None = None) -> tuple[Case, Ended]:
        """Run the program on `tree` under `arm`; what it left must be what the recorded calls say."""
        self.put(tree or {})
        ended = self.run(arm)
        case = Case(fault, arm.n, ended.call, ended.struck, ended.signal, ended.text, ended.warnings)
        if tree is None:
            disk = Disk(str(self.root))
            disk.play(ended.records)
            if disk.now() != read_tree(self.root):
                case.wrong.append("the record of the calls is not what the folder shows")
        if ended.other:
            case.wrong.append("it did not end with an OSError")
        return case, ended

    def after(self, case: Case, tree: Tree, told: list[tuple[str, Any]], what: str = "") -> None:
        """What the program was told to be safe is in `tree`; started again, it ends as one that was never struck."""
        key = tuple(sorted(normal(tree).items()))
        case.states += 1
        if key not in self._ends:
            self.put(tree)
            self._held[key] = held(self.root)
            ended = self.run()
            found = [f"the next run ended with {ended.text}"] if ended.text else []
            found += [f"the next run warned: {text}" for text in ended.warnings]
            self._ends[key] = found + differences(normal(read_tree(self.root)), self.wanted)
        there = self._held[key]
        found = list(there["broken"])
        found += [
            f"{name} was safe and is lost" for kind, name in told if kind == "file" and name not in there["files"]
        ]
        for kind in ("lines", "events"):
            count = max((n for which, n in told if which == kind), default=0)
            if count > there[kind]:
                found.append(f"{count} {kind} were safe, {there[kind]} are left")
        case.wrong += [f"{what}: {text}" if what else text for text in found + self._ends[key]]


def held(root: Path) -> dict[str, Any]:
    """What a folder holds: its files, the lines of the metrics, the events up to the last checkpoint."""
    run = root / "run"
    with warnings.catch_warnings(record=True) as broken:
        warnings.simplefilter("always")
        checkpoints = Checkpoints(run / "checkpoints")
        last = None
        for commit in checkpoints._commits():
            last = checkpoints._load(commit) or last
    names = {path.removeprefix("run/") for path in read_tree(root)}
    lines = len(files.read_lines(run / "metrics.jsonl"))
    events = last.state["events"] if last is not None else 0
    return {"files": names, "lines": lines, "events": events, "broken": [str(warning.message) for warning in broken]}


def differences(found: Tree, wanted: Tree) -> list[str]:
    """A line a path."""
    return [
        f"{path} {('is left over' if path not in wanted else 'differs') if path in found else 'is missing'}"
        for path in sorted({*found, *wanted})
        if found.get(path, path) != wanted.get(path, path)
    ]


def results(root: Path) -> dict[str, Any]:
    """What a run is for, whatever the numbers of its commits: the files beside the checkpoints, and the checkpoints."""
    tree = {path: content for path, content in read_tree(root).items() if ".lock" not in path}
    kept = {path: content for path, content in normal(tree).items() if "checkpoints/" not in path}
    last = Checkpoints(root / "run" / "checkpoints").latest()
    assert last is not None
    arrays = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in last.arrays.items()}
    return {"files": kept, "step": last.step, "state": last.state, "arrays": arrays}


# Suites ---------------------------------------------------------------------------------------------------------------


def deaths(bench: Bench) -> Iterator[Case]:
    """Killed before every call, and in the middle of every write; with the power on, and with what its loss takes."""
    writes = bench.count(Kind.WRITE)
    arms = [Arm(n, Mode.KILL) for n in range(bench.calls)]
    for arm in arms + [Arm(n, Mode.TEAR, kinds=Kind.WRITE) for n in range(writes)]:
        case, ended = bench.strike(arm.mode.name, arm)
        disk = Disk(str(bench.root))
        disk.play(ended.records)
        bench.after(case, read_tree(bench.root), ended.told)
        for what, tree in disk.losses(range(3 * arm.n, 3 * arm.n + 3)).items():
            bench.after(case, tree, ended.told, f"without {what}")
        yield case


def errors(bench: Bench) -> Iterator[Case]:
    """Every call fails once, then the program is started again."""
    for code, kinds in ((errno.ENOSPC, GROWING), (errno.EIO, COUNTED), (errno.EROFS, CHANGING)):
        for n in range(bench.count(kinds)):
            yield _failed(bench, Arm(n, Mode.FAIL, code, kinds))


def lasting(bench: Bench) -> Iterator[Case]:
    """From a call on the disk is full, or the folder read-only, or the disk dead; then it is well again."""
    kinds = {errno.ENOSPC: GROWING & ~Kind.CLOSE & ~Kind.RENAME, errno.EROFS: CHANGING, errno.EIO: ~Kind.CLOSE}
    for code, some in kinds.items():
        for n in range(bench.count(some)):
            yield _failed(bench, Arm(n, Mode.FAIL_ON, code, some))


def _failed(bench: Bench, arm: Arm) -> Case:
    case, ended = bench.strike(f"{arm.mode.name} {errno.errorcode[arm.error]}", arm)
    left = read_tree(bench.root)
    if not case.said and differences(normal(left), bench.wanted) and not case.warned:
        case.wrong.append("it ended as if nothing had happened")
    bench.after(case, left, ended.told)
    return case


def reads(bench: Bench) -> Iterator[Case]:
    """Every read of a run that goes on fails; then the program is started again."""
    tree = _midway(bench)
    bench.put(tree)
    for n in range(bench.run(Arm(kinds=READING)).calls):
        case, _ = bench.strike("FAIL EIO", Arm(n, Mode.FAIL, errno.EIO, READING), tree)
        _ended_well(bench, case)
        yield case


def twice(bench: Bench) -> Iterator[Case]:
    """Struck, started again, struck again, by chance."""
    for seed in range(100):
        chance = Random(seed)
        case, first = bench.strike("KILL", Arm(chance.randrange(bench.calls), Mode.KILL))
        disk = Disk(str(bench.root))
        disk.play(first.records)
        tree = chance.choice([read_tree(bench.root), *disk.losses(range(seed, seed + 1)).values()])
        code = chance.choice([0, errno.ENOSPC, errno.EROFS])
        mode = Mode.FAIL if code else Mode.KILL
        kinds = {0: COUNTED, errno.ENOSPC: GROWING, errno.EROFS: CHANGING}[code]
        bench.put(tree)
        calls = bench.run(Arm(kinds=kinds)).calls
        fault, arm = f"{case.fault} {case.n}, {mode.name}", Arm(chance.randrange(calls), mode, code, kinds)
        second, ended = bench.strike(fault, arm, tree)
        second.struck += case.struck - 1
        bench.after(second, read_tree(bench.root), ended.told)
        yield second


def damage(bench: Bench) -> Iterator[Case]:
    """Files of a run that was killed midway are changed, cut, emptied, removed, replaced; then it goes on."""
    tree = _midway(bench)
    newest = max(path for path in tree if path.endswith("manifest.json"))
    start = newest.removesuffix("manifest.json")
    changes: dict[str, Callable[[bytes], bytes | None]] = {
        "one bit": lambda data: bytes([*data[:-9], data[-9] ^ 4, *data[-8:]]),
        "half of it": lambda data: data[: len(data) // 2],
        "nothing in it": lambda data: b"",
        "zeros": lambda data: bytes(len(data)),
        "another file": lambda data: b"PK\x03\x04" + data,
        "gone": lambda data: None,
    }
    for number, path in enumerate(path for path in tree if path.startswith(start)):
        for what, change in changes.items():
            content = tree[path]
            assert content is not None
            changed = {**tree, path: change(content)} if change(content) is not None else {**tree}
            if change(content) is None:
                del changed[path]
            bench.put(changed)
            ended = bench.run()
            case = Case(f"{path.removeprefix(start)}: {what}", number, path, 1, 0, ended.text, ended.warnings)
            _ended_well(bench, case)
            yield case


def _midway(bench: Bench) -> Tree:
    """The folder of a run killed when it had three commits, the last two of them kept."""
    for n in range(bench.calls):
        bench.strike("KILL", Arm(n, Mode.KILL))
        tree = read_tree(bench.root)
        manifests = sorted(path for path in tree if path.endswith(".manifest.json"))
        if len(manifests) == 2 and "000003_" in manifests[-1]:
            return tree
    raise AssertionError("the program never has two checkpoints")


def _ended_well(bench: Bench, case: Case) -> None:
    """The program may have said that it cannot go on; started again, it ends with the results it should."""
    if case.said:
        ended = bench.run()
        if ended.text:
            case.wrong.append(f"the next run ended with {ended.text}")
    found = results(bench.root)
    case.wrong += [f"{key} differ" for key, value in bench.results.items() if found[key] != value]


SUITES = {suite.__name__: suite for suite in (deaths, errors, lasting, reads, twice, damage)}


def main(suite: str, root: str, mutant: str = "") -> None:
    """Print the cases of a suite; of a mutant of the package, up to the first that goes wrong."""
    mutants.apply(mutant)
    bench = Bench(Path(root))
    try:
        for case in SUITES[suite](bench):
            print(json.dumps(vars(case)), flush=True)
            if mutant and case.wrong:
                break
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    # Deaths leave warnings of descriptors that nobody closed.
    sys.exit(main(*sys.argv[1:]))
