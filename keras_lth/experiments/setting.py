"""What several keys of a config share: durations as steps of its training, and its rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_lth import rates
from keras_lth.schedules import Duration

Config = Mapping[str, Any]


def duration(key: str, given: Any) -> Duration:
    """Parse a duration; raise ``ValueError`` that names the key."""
    try:
        return Duration.parse(given)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def check_times(config: Config, times: Mapping[str, Any], *, end: bool = False) -> None:
    """Raise ``ValueError`` for a time, by key, that is not before the end of training, or is after it if the ``end`` is
    a time too. Epochs depend on the data.
    """
    for key, given in times.items():
        if (found := duration(key, given)).unit != "epochs":
            _checked(config, key, given, found.steps(config["steps"], 1), end)


def step_of(config: Config, key: str, given: Any, examples: int, *, end: bool = False) -> int:
    """Return the step of a time, for this number of training examples; raise ``ValueError`` as `check_times`."""
    found = Duration.parse(given)
    step = found.steps(per_epoch(config, examples) if found.unit == "epochs" else config["steps"], 1)
    return _checked(config, key, given, step, end)


def per_epoch(config: Config, examples: int) -> int:
    """Return the number of batches in an epoch."""
    return -(-examples // config["batch_size"])


def rates_of(config: Config, dilation: float = 1.0) -> Any:
    """Return the learning rates as `Lab` takes them, of the schedule stretched by a factor."""
    schedule, steps = rates.dilated(config["schedule"], config["steps"], dilation)
    return rates.rates(config["optimizer"]["learning_rate"], schedule, steps)


def _checked(config: Config, key: str, given: Any, step: int, end: bool) -> int:
    if step >= config["steps"] + end:
        raise ValueError(
            f"{key}={given!r} is step {step}, after the end of training (steps={config['steps']}): use an earlier step."
        )
    return step
