"""Processes that fork after the thread pool has started, as multiprocessing and data loaders do on Linux."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMON = """
import multiprocessing, os, threading
import numpy as np
from keras_lth import ops

values = np.random.default_rng(0).normal(size=2_500_000).astype(np.float32)  # enough for three threads
expected = np.zeros(values.size, bool)
expected[np.argsort(-np.abs(values), kind="stable")[:1000]] = True

def right(_=None):
    return bool(np.array_equal(ops.top_k_masks([values], 1000)[0], expected))

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
assert right() and threads() >= before + 2  # the pool is there
"""

FORK = """
def child_is_right():
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if threads() == 1 and right() and threads() >= 3 else 1
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0

assert child_is_right()
stop = threading.Event()
wrong = []
def work():
    while not stop.is_set():
        if not right():
            wrong.append(1)
busy = [threading.Thread(target=work) for _ in range(2)]
for thread in busy:
    thread.start()
try:
    assert all(child_is_right() for _ in range(10))
finally:
    stop.set()
for thread in busy:
    thread.join()
assert not wrong and right()
print("done")
"""

POOL = """
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert all(pool.map(right, range(6)))
assert right()
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
@pytest.mark.parametrize("code", [FORK, POOL], ids=["os.fork", "multiprocessing"])
def test_children_have_a_pool_of_their_own(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", COMMON + code],
        env={**os.environ, "KERAS_LTH_THREADS": "3", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr
