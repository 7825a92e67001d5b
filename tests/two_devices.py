"""Two virtual CPU devices, and programs run on them in a process of their own.

Virtual devices must be set up before TensorFlow starts, which pytest's own process has long done.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARK = "RESULT "


@cache
def result_of(program: Path, *arguments: str) -> dict[str, Any]:
    """What the program handed to `report`; run once with these arguments for all tests that ask for it."""
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith(MARK))[len(MARK) :])


def mirrored() -> Any:
    """In the program, before anything else of TensorFlow: a MirroredStrategy over the two devices."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def report(result: dict[str, Any]) -> None:
    """In the program, at its end: hands the result to the test."""
    print(MARK + json.dumps(result))
