"""Durations in steps, the learning rate of each step, and the number of weights that remain at each level."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from keras_lth.arguments import is_whole, real, round_half_up, whole

Unit = Literal["steps", "epochs", "%"]
# The schedule of a learning rate. The rate grows linearly from 0 at step 0 to its peak at step `warmup`. Then it is
# multiplied by `factor` at each of the steps `drops`, or decays ("linear", "cosine") to `final` at the last step.
CONSTANT: Mapping[str, Any] = {"drops": (), "factor": 0.1, "warmup": 0, "decay": "none", "final": 0.0}
DECAYS = ("none", "linear", "cosine")
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


def rates(peak: float, schedule: Mapping[str, Any], steps: int) -> Any:
    """Return the rate of a training if it is constant, else pieces ``((from step, rate), …)``, as `Lab` takes them.

    A rate is a number, or a formula of the step: ``{"linear": [s, r, t, q]}`` is the line from r at step s to q at step
    t, ``{"cosine": …}`` half a wave between the same points.

    Args:
        peak: the rate after the warm-up.
        schedule: keys as in `CONSTANT`, which has the defaults.
        steps: T, at which a decay ends.

    Raises:
        ValueError: as in `check_schedule`.
    """
    check_schedule(schedule, steps)
    given = {**CONSTANT, **schedule}
    warmup = given["warmup"]
    pieces: list[tuple[int, Any]] = [(0, {"linear": [0, 0.0, warmup, peak]})] if warmup else []
    if given["decay"] != "none":
        return (*pieces, (warmup, {given["decay"]: [warmup, peak, steps, given["final"]]}))
    if not warmup and not given["drops"]:
        return peak
    pieces.append((warmup, peak))
    return (*pieces, *((step, peak * given["factor"] ** (n + 1)) for n, step in enumerate(given["drops"])))


def check_schedule(schedule: Mapping[str, Any], steps: int) -> None:
    """Raise ``ValueError`` for a schedule that cannot work or is longer than a training of ``steps``; say what would
    work.
    """
    given = {**CONSTANT, **schedule}
    drops: Sequence[Any] = given["drops"]
    if not all(is_whole(step, 1) for step in drops) or sorted(set(drops)) != list(drops):
        raise ValueError(f"schedule.drops must be steps in increasing order, such as (32000, 48000), not {drops!r}.")
    real(given["factor"], "schedule.factor")
    warmup, last = whole(given["warmup"], "schedule.warmup", 0), drops[-1] if drops else 0
    for name, step in (("warmup", warmup), ("drops", last)):
        if step >= steps:
            raise ValueError(
                f"schedule.{name}={given[name]!r} is longer than the training (steps={steps}): use steps below "
                f"{steps}, or train for steps={step + 1} or more."
            )
    if drops and drops[0] <= warmup:
        raise ValueError(f"schedule.drops={drops!r} begin inside the warm-up: use steps above warmup={warmup}.")
    if given["decay"] not in DECAYS:
        raise ValueError(f"schedule.decay is one of {', '.join(DECAYS)}, not {given['decay']!r}.")
    if given["decay"] != "none" and drops:
        raise ValueError(f"schedule.decay={given['decay']!r} replaces drops: use drops=(), or decay='none'.")
    if real(given["final"], "schedule.final") < 0:
        raise ValueError(f"schedule.final must be a rate of at least 0, not {given['final']!r}.")
    if given["final"] and given["decay"] == "none":
        raise ValueError(f"schedule.final={given['final']!r} is the end of a decay: use decay='linear' or 'cosine'.")


def dilated(schedule: Mapping[str, Any], steps: int, dilation: float) -> tuple[dict[str, Any], int]:
    """Stretch a schedule by a training dilation δ: warm-up, drops and T (thesis 3.3.6). Return it with the new T.

    Raises:
        ValueError: a δ that does not make each of these steps a whole step of at least 1; says which δ would.
    """
    share = Fraction(repr(real(dilation, "dilation")))
    given = {**CONSTANT, **schedule}
    named = {"steps": steps, "schedule.warmup": given["warmup"]} | {f"drop {step}": step for step in given["drops"]}
    made: dict[int, int] = {0: 0}
    for name, step in named.items():
        exact = share * step
        # A third is not a decimal fraction.
        if step and (round(exact) < 1 or abs(exact - round(exact)) > Fraction(1, 10**6)):
            unit = math.gcd(*named.values())
            near = max(1, round(share * unit)) / unit
            raise ValueError(
                f"a dilation of {dilation} makes {name}={step} {float(exact):g} steps, not a whole number: use "
                f"multiples of 1/{unit}, such as {near:.10g}."
            )
        made[step] = round(exact)
    drops = tuple(made[step] for step in given["drops"])
    return {**schedule, "drops": drops, "warmup": made[given["warmup"]]}, made[steps]


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
