"""The learning rate of each step of a training: drops, warm-up and decay, and how they are stretched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from keras_lth.arguments import is_whole, real, whole

# The schedule of a learning rate. The rate grows linearly from 0 at step 0 to its peak at step `warmup`. Then it is
# multiplied by `factor` at each of the steps `drops`, or decays ("linear", "cosine") to `final` at the last step.
CONSTANT: Mapping[str, Any] = {"drops": (), "factor": 0.1, "warmup": 0, "decay": "none", "final": 0.0}
DECAYS = ("none", "linear", "cosine")


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
