"""TFMOT's schedules: at which steps masks change, and to which sparsity. Its steps begin at 1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["ConstantSparsity", "PolynomialDecay", "PruningSchedule", "is_due", "sparsity_at"]


class PruningSchedule(ABC):
    """Says at each step whether masks change, and to which sparsity: ``schedule(step) → (bool, float)``.

    A schedule of your own defines ``__call__`` and ``get_config``.
    """

    @abstractmethod
    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Return whether masks change at ``step``, and the sparsity in [0, 1), as tensors or numbers."""

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Return ``{"class_name": …, "config": …}``."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PruningSchedule:
        """Make a schedule from the inner dictionary of `get_config`."""
        return cls(**config)

    def _should_prune_in_step(self, step: Any, begin_step: int, end_step: int, frequency: int) -> Any:
        """Return whether ``step`` is begin, begin + frequency, … up to end; −1: without an end."""
        after = tf.math.greater_equal(step, begin_step)
        before = tf.math.logical_or(tf.math.less_equal(step, end_step), tf.math.less(end_step, 0))
        turn = tf.math.equal(tf.math.floormod(step - begin_step, frequency), 0)
        return tf.math.logical_and(tf.math.logical_and(after, before), turn)

    def _validate_step(self, begin_step: int, end_step: int, frequency: int, allow_negative_1: bool) -> None:
        """Raise ``ValueError`` for steps that cannot work."""
        if begin_step < 0:
            raise ValueError(f"begin_step should be >= 0, not {begin_step}")
        if end_step == -1 and not allow_negative_1:
            raise ValueError("end_step cannot be -1: this schedule needs an end")
        if end_step < -1:
            raise ValueError(f"end_step can be -1 or >= 0, not {end_step}")
        if -1 < end_step < begin_step:
            raise ValueError(f"begin_step should be <= end_step, not {begin_step} > {end_step}")
        if frequency <= 0:
            raise ValueError(f"frequency should be > 0, not {frequency}")

    def _validate_sparsity(self, sparsity: float, variable_name: str) -> None:
        """Raise ``ValueError`` for a sparsity outside [0, 1)."""
        if not 0.0 <= sparsity < 1.0:
            raise ValueError(f"{variable_name} must be in range [0,1), not {sparsity}")


class ConstantSparsity(PruningSchedule):
    """One sparsity at the steps begin, begin + frequency, … up to the end.

    Args:
        target_sparsity: in [0, 1).
        begin_step, end_step: the range; −1: without an end.
        frequency: steps between two changes of masks.
    """

    def __init__(self, target_sparsity: float, begin_step: int, end_step: int = -1, frequency: int = 100) -> None:
        self._validate_step(begin_step, end_step, frequency, True)
        self._validate_sparsity(target_sparsity, "target_sparsity")
        self.target_sparsity, self.begin_step = target_sparsity, begin_step
        self.end_step, self.frequency = end_step, frequency

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Return whether masks change at ``step``, and the sparsity."""
        due = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        return due, tf.constant(self.target_sparsity, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Return ``{"class_name": …, "config": …}``."""
        return _config(self, ("target_sparsity", "begin_step", "end_step", "frequency"))


class PolynomialDecay(PruningSchedule):
    """``final + (initial − final) · (1 − (step − begin) / (end − begin))^power``, from begin to end.

    Args:
        initial_sparsity, final_sparsity: in [0, 1).
        begin_step, end_step: the range.
        power: of the polynomial.
        frequency: steps between two changes of masks. The last one is at the last multiple, which may be before end.
    """

    def __init__(
        self,
        initial_sparsity: float,
        final_sparsity: float,
        begin_step: int,
        end_step: int,
        power: float = 3,
        frequency: int = 100,
    ) -> None:
        self._validate_step(begin_step, end_step, frequency, False)
        self._validate_sparsity(initial_sparsity, "initial_sparsity")
        self._validate_sparsity(final_sparsity, "final_sparsity")
        self.initial_sparsity, self.final_sparsity, self.power = initial_sparsity, final_sparsity, power
        self.begin_step, self.end_step, self.frequency = begin_step, end_step, frequency

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Return whether masks change at ``step``, and the sparsity."""
        # In TFMOT's order of operations in float32, so that counts at a tie of rounding are the same.
        length = self.end_step - self.begin_step
        part = tf.math.divide(tf.cast(step - self.begin_step, tf.float32), length)
        rest = 1 - tf.math.minimum(1.0, tf.math.maximum(0.0, part))
        sparsity = tf.math.multiply(self.initial_sparsity - self.final_sparsity, tf.math.pow(rest, self.power))
        due = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        return due, tf.math.add(sparsity, self.final_sparsity)

    def get_config(self) -> dict[str, Any]:
        """Return ``{"class_name": …, "config": …}``."""
        names = ("initial_sparsity", "final_sparsity", "power", "begin_step", "end_step", "frequency")
        return _config(self, names)


def is_due(schedule: Any, step: int) -> bool:
    """Return whether masks change at ``step``, by any schedule."""
    if type(schedule) in (ConstantSparsity, PolynomialDecay):
        begin, end = schedule.begin_step, schedule.end_step
        return step >= begin and (end < 0 or step <= end) and (step - begin) % schedule.frequency == 0
    return bool(schedule(tf.constant(step, tf.int64))[0])


def sparsity_at(schedule: Any, step: int) -> np.float32:
    """Return the sparsity at ``step``, by any schedule, in the float32 that TFMOT computes with."""
    return np.float32(tf.cast(schedule(tf.constant(step, tf.int64))[1], tf.float32))


def _config(schedule: PruningSchedule, names: tuple[str, ...]) -> dict[str, Any]:
    return {"class_name": type(schedule).__name__, "config": {name: getattr(schedule, name) for name in names}}
