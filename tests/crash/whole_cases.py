"""Cases of a whole run: ``python -m tests.crash.whole_cases ROOT``, with the library of strike.c preloaded.

Prints what it counted; then reads a line [suite, number] a case and prints a line of JSON for it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.crash.disk import Tree
from tests.crash.strike import CHANGING, GROWING, Arm, Ended, Kind, Mode
from tests.crash.whole_bench import Bench, Case

STARTS = 8  # of a run that is killed again and again, at most
TERMINATED = 128 + signal.SIGTERM
PAGE = 4096
CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "one bit": lambda data: bytes([*data[:-9], data[-9] ^ 4, *data[-8:]]),
    "half of it": lambda data: data[: len(data) // 2],
    "nothing in it": lambda data: b"",
    "gone": lambda data: None,
}
PARTS = ("safetensors", "state.json", "manifest.json")
# Of what is cut of IMP's store, the first three are refused, by name; the others are made again.
HALVED = (
    "plans/imp.json", "values/imp.level_00.value", "values/imp.rewind.value", "values/imp.origin.value",
    "values/imp.level_01.masks.value",
)  # fmt: skip


def died(bench: Bench, n: int) -> Case:
    """Killed before the n-th call; then with the power on, and with what its loss takes, in one way of four."""
    return _died(bench, Arm(n, Mode.KILL))


def torn(bench: Bench, n: int) -> Case:
    """Killed in the middle of the n-th write; then as above."""
    return _died(bench, Arm(n, Mode.TEAR, kinds=Kind.WRITE))


def _died(bench: Bench, arm: Arm) -> Case:
    case = _fresh(bench, arm.mode.name, arm.n)
    ended, _ = bench.strike(case, arm)
    losses = bench.losses(ended, arm.n)
    way = sorted(losses)[arm.n % len(losses)]
    bench.finish(case)
    bench.put(losses[way])
    bench.check_safe(case, ended, f"without {way}: ")
    bench.finish(case, f"without {way}: ")
    return case


def failed(bench: Bench, n: int) -> Case:
    """The n-th call fails once, with EIO or ENOSPC in turns."""
    return _failed(bench, Arm(n, Mode.FAIL, (errno.EIO, errno.ENOSPC)[n % 2]))


def full(bench: Bench, seed: int) -> Case:
    """From a random call on that needs room the disk is full."""
    return _lasting(bench, seed, errno.ENOSPC, GROWING & ~Kind.CLOSE & ~Kind.RENAME)


def read_only(bench: Bench, seed: int) -> Case:
    """From a random call on that changes something the folder is read-only."""
    return _lasting(bench, seed, errno.EROFS, CHANGING)


def dead(bench: Bench, seed: int) -> Case:
    """From a random call on the disk answers EIO."""
    return _lasting(bench, seed, errno.EIO, ~Kind.CLOSE)


def _lasting(bench: Bench, seed: int, code: int, kinds: int) -> Case:
    return _failed(bench, Arm(Random(f"{code} {seed}").randrange(bench.count(kinds)), Mode.FAIL_ON, code, kinds))


def _failed(bench: Bench, arm: Arm) -> Case:
    case = _fresh(bench, f"{arm.mode.name} {errno.errorcode[arm.error]}", arm.n)
    ended, _ = bench.strike(case, arm)
    _said_why(bench, case, ended)
    bench.finish(case)
    return case


def _said_why(bench: Bench, case: Case, ended: Ended) -> None:
    """A run that could not go on ended with another exit code than 0 and named a file; one that could has warned."""
    if ended.code == 0 and not ended.warnings:
        case.wrong.append("the fault was passed over in silence")
    if ended.code and str(bench.root) not in ended.text:
        case.wrong.append(f"no file is named: {ended.text}")


def killed(bench: Bench, seed: int) -> Case:
    """SIGKILL at a random time, again and again in the life of one run."""
    case, chance = _fresh(bench, "SIGKILL", seed), Random(seed)
    for _ in range(STARTS):
        ended, _ = bench.strike(case, meanwhile=_after(bench, chance, signal.SIGKILL))
        if not ended.signal:
            if case.struck:
                break
            bench.put({})  # it was faster than the signal
    bench.finish(case)
    return case


def terminated(bench: Bench, seed: int) -> Case:
    """SIGTERM at random times: the run commits and ends with 143."""
    case, chance = _fresh(bench, "SIGTERM", seed), Random(seed)
    for _ in range(STARTS):
        ended, tree = bench.strike(case, meanwhile=_after(bench, chance, signal.SIGTERM))
        case.struck += ended.code == TERMINATED
        if ended.code == TERMINATED and not ended.told:
            case.wrong.append("it ended without a commit")
        # Only before the folder is locked and after it is let go does the signal find no handler.
        if ended.signal and ended.told and "imp/values/imp.level_02.value" not in tree:
            case.wrong.append(f"it ended with signal {ended.signal} though it had begun to commit")
        if ended.code == 0 and not ended.signal:
            if case.struck:
                break
            bench.put({})
    bench.finish(case)
    return case


def _after(bench: Bench, chance: Random, number: signal.Signals) -> Callable[[int], None]:
    """Sends a signal at a random time between the first call on a file and the end."""

    def send(child: int) -> None:
        bench.wait(child, chance.uniform(0, bench.seconds))
        time.sleep(chance.uniform(0, 0.01))  # its clock ticks a hundred times a second
        os.kill(child, number)

    return send


def damaged(bench: Bench, number: int) -> Case:
    """A file of the newest of two checkpoints is changed, cut, emptied, removed: the run goes on from the other."""
    case, tree = _midway(bench, number)
    part, what = PARTS[number // len(CHANGES) % len(PARTS)], list(CHANGES)[number % len(CHANGES)]
    path = max(path for path in tree if path.endswith("manifest.json")).removesuffix("manifest.json") + part
    case.fault, case.call = f"{part}: {what}", path
    bench.put(_changed(tree, path, what))
    bench.finish(case, warned=True)
    # Without its manifest there is no checkpoint, and nothing to warn of.
    expected = 0 if (part, what) == ("manifest.json", "gone") else 1
    case.struck = int([path in text and "is skipped" in text for text in case.warned] == [True] * expected)
    return case


def halved(bench: Bench, number: int) -> Case:
    """A file of IMP's store is cut: the run says which one it is; with the file back it goes on, or without it."""
    case, tree = _midway(bench, number)
    name = HALVED[number % len(HALVED)]
    path, value = f"imp/{name}", name.removeprefix("values/").removesuffix(".value")
    case.fault, case.call = f"{name}: half of it", path
    cut = _changed(tree, path, "half of it")
    bench.put(cut)
    ended = bench.run()
    case.starts, case.ended = case.starts + 1, [*case.ended, ended.text.splitlines()[-1] if ended.text else ""]
    if number % len(HALVED) < 3:
        case.struck = int(ended.code == 1 and value.removeprefix("plans/") in case.ended[-1])
        bench.put(tree)
        bench.finish(case)
    else:
        case.struck = int(any(f"{value} is damaged" in text for text in ended.warnings))
        bench.put(cut)
        bench.finish(case, warned=True)
    return case


def _midway(bench: Bench, seed: int) -> tuple[Case, Tree]:
    """A run that was killed when it had two checkpoints and one finished training."""
    chance = Random(seed)
    while True:
        case = _fresh(bench, "KILL", chance.randrange(bench.calls // 2, bench.calls))
        _, tree = bench.strike(case, Arm(case.n, Mode.KILL))
        if (
            len([path for path in tree if path.endswith("manifest.json")]) == 2
            and "imp/values/imp.level_00.value" in tree
        ):
            return case, tree


def _changed(tree: Tree, path: str, what: str) -> Tree:
    content = tree[path]
    assert content is not None
    changed = CHANGES[what](content)
    rest = {other: data for other, data in tree.items() if other != path}
    return rest if changed is None else {**rest, path: changed}


def mounted_full(bench: Bench, seed: int) -> Case:
    """A real file system without room, then with it. Needs the right to mount."""
    case, chance = _fresh(bench, "a full tmpfs", seed), Random(seed)
    with _mounted(bench):
        ballast = bench.root / "ballast"
        ballast.write_bytes(bytes((1 << 20) - chance.randrange(2, 30) * PAGE))
        ended, _ = bench.strike(case)
        case.struck += ended.text.startswith("ENOSPC")
        _said_why(bench, case, ended)
        ballast.unlink()
        bench.finish(case)
    return case


def mounted_read_only(bench: Bench, seed: int) -> Case:
    """A real file system that is read-only when the run goes on, then not. Needs the right to mount."""
    case, tree = _midway(bench, seed)
    case.fault, case.struck = "a read-only tmpfs", 0
    bench.put({})
    with _mounted(bench):
        bench.put(tree)
        subprocess.run(["mount", "-o", "remount,ro", bench.root], check=True)
        ended, _ = bench.strike(case)
        case.struck += ended.text.startswith("EROFS")
        _said_why(bench, case, ended)
        subprocess.run(["mount", "-o", "remount,rw", bench.root], check=True)
        bench.finish(case)
    return case


@contextmanager
def _mounted(bench: Bench) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", bench.root], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", bench.root], check=True)


def _fresh(bench: Bench, fault: str, n: int) -> Case:
    bench.put({})
    return Case(fault, n)


SUITES = {
    suite.__name__: suite
    for suite in (
        died, torn, killed, terminated, failed, full, read_only, dead, damaged, halved, mounted_full, mounted_read_only,
    )
}  # fmt: skip


def main(folder: str) -> None:
    root = Path(folder)
    try:
        bench = Bench(root)
        print(json.dumps({"calls": bench.calls, "writes": bench.writes, "end": bench.wanted["end"]}), flush=True)
        for line in sys.stdin:
            suite, number = json.loads(line)
            began = time.monotonic()
            case = SUITES[suite](bench, number)
            case.seconds = round(time.monotonic() - began, 3)
            print(json.dumps(vars(case)), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
