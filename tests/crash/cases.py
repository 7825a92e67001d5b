"""The cases: ``python -m tests.crash.cases SUITE ROOT [MUTANT]``, with the library of strike.c preloaded.

A line of JSON a case: the call that was struck, how the program ended, and what was wrong afterwards, if anything. One
process holds NumPy and the package; each run of the program is a fork of it.
"""

from __future__ import annotations

import errno
import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from keras_lth import files
from keras_lth.files.checkpoints import Checkpoints
from tests.crash import bench as base
from tests.crash import imp, mutants
from tests.crash.bench import Case
from tests.crash.disk import Disk, Tree, normal, read_tree
from tests.crash.strike import CHANGING, COUNTED, GROWING, READING, Arm, Ended, Mode

Key = tuple[tuple[str, bytes | None], ...]
EVERY = 2  # a checkpoint after every second event of the plan: four of them


class Bench(base.Bench):
    """A folder, the program, and what it leaves when nothing happens to it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        # By tree: what was wrong with the run that began on it, and what it holds.
        self._ends: dict[Key, list[str]] = {}
        self._held: dict[Key, dict[str, Any]] = {}
        self.put({})
        self.program(lambda what, which: None)  # in this process, so that every fork finds the modules loaded
        gc.collect()
        gc.freeze()
        self.put({})
        first = self.run()
        assert not first.text and not first.warnings and first.struck == 0
        self.calls = first.calls
        self.wanted = normal(read_tree(root))
        self.results = results(root)

    def program(self, told: Callable[[str, Any], None]) -> None:
        """A plan of events, with a checkpoint after every second one."""
        imp.run(str(self.root / "run"), EVERY, told)

    def unnoticed(self, case: Case, ended: Ended, left: Tree) -> bool:
        """Whether the run ended without an error or a warning, and other than it should."""
        return bool(not case.said and differences(normal(left), self.wanted) and not case.warned)

    def after(self, case: Case, tree: Tree, ended: Ended, what: str = "") -> None:
        """What the program reported as safe is in `tree`; started again, it ends as one that was never struck."""
        key = tuple(sorted(normal(tree).items()))
        case.states += 1
        if key not in self._ends:
            self.put(tree)
            self._held[key] = held(self.root)
            again = self.run()
            found = [f"the next run ended with {again.text}"] if again.text else []
            found += [f"the next run warned: {text}" for text in again.warnings]
            self._ends[key] = found + differences(normal(read_tree(self.root)), self.wanted)
        there = self._held[key]
        found = list(there["broken"])
        found += [
            f"{name} was safe and is lost" for kind, name in ended.told if kind == "file" and name not in there["files"]
        ]
        for kind in ("lines", "events"):
            count = max((n for which, n in ended.told if which == kind), default=0)
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
        bench.after(second, read_tree(bench.root), ended)
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
            case = Case(f"{path.removeprefix(start)}: {what}", number, path, 1, ended.warnings, said=ended.text)
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


SUITES = {suite.__name__: suite for suite in (base.deaths, base.errors, base.lasting, reads, twice, damage)}


def main(suite: str, root: str, mutant: str = "") -> None:
    """Print the cases of a suite; of a mutant of the package, up to the first that goes wrong."""
    mutants.apply(mutant)
    base.show(SUITES, suite, Bench(Path(root)), first=bool(mutant))


if __name__ == "__main__":
    # Deaths leave warnings of descriptors that nobody closed.
    sys.exit(main(*sys.argv[1:]))
