"""Best-of-several timing, and what ran it, for the benchmarks in this folder."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def best_ms(call: Callable[[], object], repeats: int) -> float:
    """The least of `repeats` wall-clock times in milliseconds, after one call that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, load before the run, versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": model,
        "cores": cores,
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def write(path: str | None, result: dict[str, Any]) -> None:
    """The result as JSON, where a path is given."""
    if path is not None:
        Path(path).write_text(json.dumps(result, indent=2) + "\n")
