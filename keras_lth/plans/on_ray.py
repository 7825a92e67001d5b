"""Workers on a Ray cluster (https://www.ray.io): tasks that do the same work, each in its own process.

The cluster is the one that this process is connected to, else that of RAY_ADDRESS, else one on this machine, which ends
with the run. With several machines, the package must be installed on each, and each must have access to the store.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from keras_lth.plans.workers import with_threads

CONNECTING = 20.0  # seconds


def on_ray(count: int, function: Callable[..., None], arguments: tuple[Any, ...], *, restarts: int = 3) -> str:
    """Run ``function(*arguments)`` in ``count`` tasks, each with its share of the processors for TensorFlow.

    A task whose process or machine dies is restarted, at most ``restarts`` times. Returns a message about tasks that
    died more often, or "".

    Raises ``RuntimeError`` if Ray is not installed or cannot be reached, or if a task raises.
    """
    ray = _ray()
    own = not ray.is_initialized()
    if own:
        _connect(ray, os.environ.get("RAY_ADDRESS") or "local")
    try:
        return _run(ray, count, function, arguments, restarts)
    finally:
        if own:
            ray.shutdown()


def _run(ray: Any, count: int, function: Callable[..., None], arguments: tuple[Any, ...], restarts: int) -> str:
    died = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
    cpus = _cpus(ray, count)
    # TensorFlow reads its number of threads when it starts, so a process serves one task.
    remote = ray.remote(num_cpus=cpus, max_retries=0, max_calls=1)(with_threads)
    running: dict[Any, tuple[int, int]] = {}
    lost: list[str] = []

    def start(number: int, attempt: int = 0) -> None:
        running[remote.options(name=f"worker {number}").remote(cpus, function, arguments)] = number, attempt

    for number in range(count):
        start(number)
    try:
        while running:
            for reference in ray.wait(list(running))[0]:
                number, attempt = running.pop(reference)
                try:
                    ray.get(reference)
                except died as error:
                    if attempt == restarts:
                        lost.append(_brief(error))
                        continue
                    print(f"worker {number} died ({_brief(error)}): restarting it", flush=True)
                    start(number, attempt + 1)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", None) or error
                    raise RuntimeError(f"worker {number} failed: {_brief(cause)}") from error
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
    return f"{len(lost)} of {count} workers died {restarts + 1} times, the last with {lost[-1]}" if lost else ""


def _cpus(ray: Any, count: int) -> int:
    """The processors of a task: its share of all, at most those of one machine."""
    machines = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return max(1, min(sum(machines) // count, max(machines, default=1)))


def _connect(ray: Any, address: str) -> None:
    # Ray sends usage statistics unless told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _check_reached(address)
        ray.init(address, include_dashboard=False if address == "local" else None, configure_logging=False)
    except (OSError, ValueError, RuntimeError) as error:
        if address == "local":
            raise RuntimeError(f"Ray did not start on this machine: {_brief(error)}") from error
        raise RuntimeError(
            f"No Ray cluster at {address} ({_brief(error)}): start one there (ray start --head), and check that "
            "firewalls open the port."
        ) from error


def _check_reached(address: str) -> None:
    """Raise ``OSError`` if nothing listens at host:port; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTING).close()


def _brief(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else repr(error)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RuntimeError("--runner=ray needs Ray, which is not installed: pip install 'keras_lth[ray]'") from error
    return ray
