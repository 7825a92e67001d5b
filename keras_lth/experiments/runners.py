"""Where the trainings of an experiment run: in this process, in several here, or on the machines of a Ray cluster.

A task is one training, or the trainings of one arm. It is idempotent: what it has finished lies in files, and run again
it goes on from there. Tasks depend on each other through the driver only: a finished one makes others ready.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

__all__ = ["RUNNERS", "LocalRunner", "RayRunner", "Runner", "Task", "make"]

Task = tuple[str, tuple[Any, ...]]
Do = Callable[[Task], None]
After = Callable[[Task], Sequence[Task]]
RUNNERS = ("local", "ray")
CONNECTING = 20.0  # seconds


class Runner(Protocol):
    """Runs tasks and what they make ready."""

    def run(self, do: Do, first: Sequence[Task], after: After) -> None:
        """Run ``do(task)`` for each of ``first`` and, when a task has ended, for those that ``after`` it are ready.

        What ``do`` raises ends the run.
        """


def make(name: str, workers: int = 1) -> Runner:
    """The runner called ``name``, with ``workers`` tasks at once. Raises ``ValueError`` for an unknown name."""
    if name not in RUNNERS:
        raise ValueError(f"runner is one of {', '.join(RUNNERS)}, not {name!r}")
    return RayRunner(workers) if name == "ray" else LocalRunner(workers)


@dataclass(frozen=True)
class LocalRunner:
    """One task after the other in this process; with several ``workers``, each in a process that is spawned for them,
    so ``do`` and the tasks can be pickled. The processors are shared equally. A SIGTERM is passed on to the workers,
    which commit what they do and end with ``SystemExit(143)``, and so does this process."""

    workers: int = 1

    def run(self, do: Do, first: Sequence[Task], after: After) -> None:
        """As `Runner.run`. Raises ``RuntimeError`` when a process died."""
        if self.workers <= 1:
            for task in first:
                do(task)
                self.run(do, after(task), after)
            return
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers, spawn, share, (threads,)) as pool, _passing_on(pool):
            running: dict[Future[None], Task] = {pool.submit(do, task): task for task in first}
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    try:
                        future.result()
                    except BrokenProcessPool as error:
                        listed = ", ".join(described(one) for one in (task, *running.values()))
                        raise RuntimeError(
                            f"a worker was killed (out of memory?) while these ran: {listed}. Started again, the run "
                            "goes on from what is finished"
                        ) from error
                    running |= {pool.submit(do, each): each for each in after(task)}


@dataclass(frozen=True)
class RayRunner:
    """Each task in a process of its own on a Ray cluster; https://www.ray.io.

    The cluster is the one that this process is connected to, else the one of ``address`` or RAY_ADDRESS, else one of
    this machine only, which ends with the run. On several machines the package must be installed on each, and the files
    must lie where all find them. A task takes ``1 / workers`` of the processors, though never more than one machine
    has, and TensorFlow as many threads.

    A task whose process or machine dies is run again, up to ``max_retries`` times; it goes on from its files.
    """

    workers: int = 1
    address: str | None = None
    max_retries: int = 3

    def run(self, do: Do, first: Sequence[Task], after: After) -> None:
        """As `Runner.run`.

        Raises:
          RuntimeError: Ray is not installed or not reached; a task raised, by its name; or died once too often.
        """
        ray = _ray()
        own = not ray.is_initialized()
        if own:
            self._connect(ray)
        try:
            self._run(ray, do, first, after)
        finally:
            if own:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        # Ray sends statistics to its makers unless told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        where = self.address or os.environ.get("RAY_ADDRESS") or "local"
        try:
            _check_reached(where)
            ray.init(where, include_dashboard=False if where == "local" else None, configure_logging=False)
        except (OSError, ValueError, RuntimeError) as error:
            said = f"{type(error).__name__}: {error}"
            if where == "local":
                raise RuntimeError(f"Ray did not start on this machine: {said}") from error
            raise RuntimeError(
                f"no Ray cluster at {where} ({said}). Was it started there (ray start --head), and do firewalls let "
                "the port through?"
            ) from error

    def _run(self, ray: Any, do: Do, first: Sequence[Task], after: After) -> None:
        died = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
        cpus = self._cpus(ray)
        # A process serves one task: TensorFlow takes its threads at the start, and leaves memory at the end.
        remote = ray.remote(num_cpus=cpus, max_retries=0, max_calls=1)(alone)
        running: dict[Any, tuple[Task, int]] = {}

        def submit(task: Task, attempt: int = 0) -> None:
            running[remote.options(name=described(task)).remote(do, task, cpus)] = task, attempt

        for task in first:
            submit(task)
        try:
            while running:
                for reference in ray.wait(list(running))[0]:
                    task, attempt = running.pop(reference)
                    try:
                        ray.get(reference)
                    except died as error:
                        if attempt == self.max_retries:
                            raise RuntimeError(
                                f"{described(task)} died {attempt + 1} times, the last time with {_brief(error)}"
                            ) from error
                        print(f"{described(task)} died ({_brief(error)}): run again", flush=True)
                        submit(task, attempt + 1)
                        continue
                    except ray.exceptions.RayError as error:
                        cause = getattr(error, "cause", None) or error
                        raise RuntimeError(f"{described(task)} failed: {type(cause).__name__}: {cause}") from error
                    for each in after(task):
                        submit(each)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _cpus(self, ray: Any) -> int:
        """The processors of a task."""
        machines = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        return max(1, min(sum(machines) // self.workers, max(machines, default=1)))


@contextmanager
def _passing_on(pool: ProcessPoolExecutor) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        for process in list(pool._processes):
            os.kill(process, signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def alone(do: Do, task: Task, threads: int) -> None:
    """The task, in a process that was started for it."""
    share(threads)
    do(task)


def share(threads: int) -> None:
    """Lets TensorFlow, which is not started yet, use no more than so many threads in this process."""
    for pool in ("INTRAOP", "INTEROP"):
        os.environ[f"TF_NUM_{pool}_THREADS"] = str(threads)


def described(task: Task) -> str:
    """The name of a task in messages, such as "ablation(0, reinit)"."""
    name, arguments = task
    return f"{name}({', '.join(map(str, arguments))})"


def _check_reached(address: str) -> None:
    """Raises ``OSError`` where nothing listens at host:port; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTING).close()


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}" if str(error).strip() else repr(error)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RuntimeError("runner 'ray' needs Ray, which is not installed: pip install 'keras_lth[ray]'") from error
    return ray
