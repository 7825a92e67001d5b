"""Durations in steps, densities as functions of the step, and the number of weights that remain at each level."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from keras_lth.arguments import is_whole, real, round_half_up

Unit = Literal["steps", "epochs", "%"]
# How many of n weights a cut of a share removes.
Rounding = Callable[[float, int], int]
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?|ep|%)\s*")


@dataclass(frozen=True)
class Duration:
    """A length of training: a number of steps (batches) or epochs, or a share of the dense training."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, value: Duration | str | int) -> Duration:
        """Parse ``0``, ``500``, ``"500 steps"``, ``"2 epochs"`` or ``"1%"``; raise ``ValueError`` for anything else."""
        if isinstance(value, Duration):
            return value
        if is_whole(value, 0):
            return cls(int(value), "steps")
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if not match:
            raise ValueError(f'Invalid duration {value!r}; use 0, "500 steps", "2 epochs" or "1%".')
        unit: Unit = "%" if match[2] == "%" else "steps" if match[2].startswith("s") else "epochs"
        amount = float(match[1])
        if unit == "steps" and amount != int(amount):
            raise ValueError(f"Invalid duration {value!r}: a number of steps must be an integer.")
        return cls(amount, unit)

    def steps(self, steps_per_epoch: int | None, epochs: int) -> int:
        """Convert to steps of a dense training of ``epochs`` epochs.

        Raises ``ValueError`` for epochs or per cent if the number of batches of the data is unknown.
        """
        if self.unit == "steps" or self.amount == 0:
            return int(self.amount)
        if steps_per_epoch is None:
            raise ValueError(
                f"{self} needs the number of batches in an epoch, which this data does not report: give it in steps "
                f'("500 steps"), or pass steps_per_epoch to fit.'
            )
        per = steps_per_epoch if self.unit == "epochs" else steps_per_epoch * epochs / 100
        return round(self.amount * per)

    def __str__(self) -> str:
        amount = f"{self.amount:g}"
        return f"{amount}%" if self.unit == "%" else f"{amount} {self.unit}"


Time = Duration | str | int
Timed = TypeVar("Timed", bound="_Timed")
_TIMES = ("begin", "end", "every", "at")


class _Timed:
    """The steps of a training at which masks change: begin, begin + every, …, and end itself.

    "At step s" means after s steps, before the next one. A subclass has the fields ``begin``, ``end`` and ``every``.
    """

    begin: Time
    end: Time | None
    every: Time

    def __post_init__(self) -> None:
        for name in self._times():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, Duration.parse(value))
        begin, end, every = (None if t is None else Duration.parse(t) for t in (self.begin, self.end, self.every))
        if begin and end and begin.unit == end.unit and begin.amount > end.amount:
            raise ValueError(f"{self._name} begins at {begin}, after its end at {end}: use an earlier begin.")
        if every and every.amount == 0:
            raise ValueError(f"every must be at least 1 step, not {every}.")

    def in_steps(self: Timed, steps_per_epoch: int | None, epochs: int) -> Timed:
        """Return the same with all durations in steps of a training of ``epochs`` epochs.

        Raises:
            ValueError: a begin or an end after the end of the training, a begin after the end, or epochs or per cent
                where the number of batches is unknown.
        """
        times = {name: getattr(self, name) for name in self._times() if getattr(self, name) is not None}
        steps = {name: Duration.parse(time).steps(steps_per_epoch, epochs) for name, time in times.items()}
        if "every" in steps:
            steps["every"] = max(1, steps["every"])
        changes: dict[str, Any] = {name: Duration(step, "steps") for name, step in steps.items()}
        this: Any = self
        found: Timed = replace(this, **changes)
        begin, end, _ = found._steps()
        for verb, step in (("begins", begin), ("ends", end)):
            if steps_per_epoch is not None and step is not None and step > steps_per_epoch * epochs:
                total = steps_per_epoch * epochs
                raise ValueError(
                    f"{self._name} {verb} at step {step:,}, but the training ends at step {total:,} ({epochs} × "
                    f'{steps_per_epoch:,}): use at most {total:,}, or "100%".'
                )
        return found

    def last(self, step: int) -> int | None:
        """Return the last of the steps up to and with ``step``, None before the first; ask the result of `in_steps`."""
        begin, end, every = self._steps()
        if step < begin:
            return None
        return end if end is not None and step >= end else begin + (step - begin) // every * every

    def next(self, step: int) -> int | None:
        """Return the first of the steps after ``step``, None after the last; ask the result of `in_steps`."""
        begin, end, every = self._steps()
        if step < begin:
            return begin
        if end is not None and step >= end:
            return None
        after = begin + ((step - begin) // every + 1) * every
        return after if end is None else min(after, end)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _times(self) -> list[str]:
        return [name for name in _TIMES if name in getattr(self, "__dataclass_fields__", ())]

    def _steps(self) -> tuple[int, int | None, int]:
        return _whole(self.begin), None if self.end is None else _whole(self.end), _whole(self.every)


@dataclass(frozen=True)
class Updates(_Timed):
    """The steps at which masks change: begin, begin + every, …, and end.

    Args:
        begin: the first of them; steps, epochs, or per cent of the training.
        end: the last one; None: up to the end of the training.
        every: the distance between two of them.
    """

    begin: Time = 0
    end: Time | None = None
    every: Time = 100


class Schedule(_Timed, ABC):
    """A density as a function of the step: ``schedule(step)``, in (0, 1]."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the density from ``step`` on; ask the result of `in_steps`."""

    @property
    def last_density(self) -> float | None:
        """Return the density at the end; None if it is not known."""
        return None


@dataclass(frozen=True)
class Constant(Schedule):
    """One density, and the masks that have it chosen again at each update.

    Args:
        density: in (0, 1].
        begin, end, every: when masks change, as in `Updates`.
    """

    density: float
    begin: Time = 0
    end: Time | None = None
    every: Time = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        _share(self.density, "density")

    def __call__(self, step: int) -> float:
        """Return the density."""
        return self.density

    @property
    def last_density(self) -> float:
        """Return the density."""
        return self.density


@dataclass(frozen=True)
class OneShot(Schedule):
    """One density at one step.

    Args:
        density: in (0, 1].
        at: the step, or a duration.
    """

    density: float
    at: Time = 0

    def __post_init__(self) -> None:
        for name in ("begin", "end"):
            object.__setattr__(self, name, self.at)
        object.__setattr__(self, "every", 1)
        super().__post_init__()
        _share(self.density, "density")

    def __call__(self, step: int) -> float:
        """Return the density."""
        return self.density

    @property
    def last_density(self) -> float:
        """Return the density."""
        return self.density


@dataclass(frozen=True)
class Polynomial(Schedule):
    """``final + (initial − final) · (1 − (s − begin) / (end − begin))^power`` at step s (Zhu and Gupta, 2017).

    Args:
        initial, final: densities at begin and end, in (0, 1].
        begin, end, every: when masks change, as in `Updates`; the last time at ``end``.
        power: 3 in the paper; 1 is a straight line.
    """

    initial: float
    final: float
    begin: Time = 0
    end: Time = "75%"
    power: float = 3
    every: Time = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        _share(self.initial, "initial")
        _share(self.final, "final")
        if real(self.power, "power") <= 0:
            raise ValueError(f"power must be above 0, not {self.power!r}")

    def __call__(self, step: int) -> float:
        """Return the density at ``step``."""
        begin, end, _ = self._steps()
        length = (begin if end is None else end) - begin
        done = min(1.0, max(0.0, (step - begin) / length)) if length else float(step >= begin)
        return self.final + (self.initial - self.final) * (1.0 - done) ** self.power

    @property
    def last_density(self) -> float:
        """Return the density at the end."""
        return self.final


@dataclass(frozen=True)
class Periodic(Schedule):
    """Sparse and dense phases of one length in turn, sparse first; sparse from ``end`` on (AC/DC: Peste et al., 2021).

    Args:
        density: of the sparse phases, in (0, 1].
        every: the length of a phase.
        begin: of the first sparse phase.
        end: of the last dense phase.
        dense: the density of the dense phases.
    """

    density: float
    every: Time
    begin: Time = 0
    end: Time = "75%"
    dense: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _share(self.density, "density")
        _share(self.dense, "dense")

    def __call__(self, step: int) -> float:
        """Return the density at ``step``."""
        begin, end, every = self._steps()
        sparse = (end is not None and step >= end) or (step >= begin and (step - begin) // every % 2 == 0)
        return self.density if sparse else self.dense

    @property
    def last_density(self) -> float:
        """Return the density of the sparse phases."""
        return self.density


@dataclass(frozen=True)
class Function(Schedule):
    """Any function of the step.

    Args:
        function: step → density in (0, 1].
        begin, end, every: when it is asked, as in `Updates`.
    """

    function: Callable[[int], float]
    begin: Time = 0
    end: Time | None = None
    every: Time = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.function):
            raise TypeError(
                f"a schedule is one of keras_lth.schedules, or a function of the step, not {self.function!r}"
            )

    def __call__(self, step: int) -> float:
        """Return what the function says of ``step``."""
        return _share(self.function(step), f"the density that the schedule gives at step {step}")


def _whole(value: Time) -> int:
    time = Duration.parse(value)
    if time.unit != "steps" and time.amount:
        raise ValueError(
            f"{time} is not in steps yet: ask the schedule that in_steps(steps_per_epoch, epochs) returns."
        )
    return int(time.amount)


def _share(value: Any, what: str) -> float:
    share = real(value, what)
    if not 0 < share <= 1:
        raise ValueError(f"{what} must lie in (0, 1], not {value!r}")
    return share


def cut(
    remaining: Mapping[str, int], fraction: float | Mapping[str, float], rounded: Rounding = round_half_up
) -> dict[str, int]:
    """Return what remains of each group after one round: ``n − round(fraction · n)``, ties up (thesis 3.1.3).

    ``fraction`` is one number, or one for each group. Raises ``ValueError`` if nothing would remain in total.
    """
    share = fraction if isinstance(fraction, Mapping) else dict.fromkeys(remaining, fraction)
    after = {name: n - rounded(share[name], n) for name, n in remaining.items()}
    if sum(after.values()) <= 0:
        raise ValueError(
            f"Pruning {fraction} of {sum(remaining.values())} weights would leave none: use a smaller fraction."
        )
    return after


def levels(
    size: Mapping[str, int],
    fraction: float | Mapping[str, float] = 0.2,
    *,
    rounds: int | None = None,
    target_density: float | None = None,
    total: int | None = None,
    rounded: Rounding = round_half_up,
) -> list[dict[str, int]]:
    """Return the weights that remain at level 0, 1, 2, …, as a list of ``{group: count}``.

    A group is a weight (layerwise pruning) or the whole network (global pruning). Level 0 is ``size``. The list ends
    after ``rounds`` cuts or at ``target_density`` of ``total`` (default: the sum of ``size``), whichever comes first;
    the last cut is shortened to hit the target exactly. ``fraction=1`` with a target is one-shot pruning.

    Raises ``ValueError`` if neither is given, or if ``rounds`` cuts cannot reach the target.
    """
    if rounds is None and target_density is None:
        raise ValueError("Give rounds or target_density.")
    target = None if target_density is None else round_half_up(target_density, total or sum(size.values()))
    out = [dict(size)]
    while rounds is None or len(out) <= rounds:
        now = out[-1]
        if target is not None and sum(now.values()) <= target:
            break
        after = cut_to(now, fraction, target, rounded)
        if after == now:
            raise ValueError(
                f"A fraction of {fraction} no longer removes a weight of the {sum(now.values())} that remain after "
                f"{len(out) - 1} rounds: use fewer rounds or a higher density."
            )
        out.append(after)
    if target is not None and sum(out[-1].values()) > target:
        raise ValueError(
            f"{rounds} rounds at fraction {fraction} reach a density of "
            f"{sum(out[-1].values()) / sum(size.values()):.4g}, not {target_density}: omit rounds, or raise the "
            f"fraction."
        )
    return out


def cut_to(
    now: Mapping[str, int],
    fraction: float | Mapping[str, float],
    target: int | None,
    rounded: Rounding = round_half_up,
) -> dict[str, int]:
    """Return what remains after one `cut`, shortened in proportion if it would leave fewer than ``target``."""
    if target is None:
        return cut(now, fraction, rounded)
    share = fraction if isinstance(fraction, Mapping) else dict.fromkeys(now, fraction)
    gone = {name: rounded(share[name], n) for name, n in now.items()}
    short = target - (sum(now.values()) - sum(gone.values()))
    if short <= 0:
        return {name: n - gone[name] for name, n in now.items()}
    total = sum(gone.values())
    # Largest remainders, so that the shortened cuts add up to exactly the target; ties go to the first group.
    exact = {name: g * (total - short) / total for name, g in gone.items()}
    taken = {name: math.floor(e) for name, e in exact.items()}
    order = sorted(exact, key=lambda name: taken[name] - exact[name])
    for name in order[: total - short - sum(taken.values())]:
        taken[name] += 1
    return {name: n - taken[name] for name, n in now.items()}
