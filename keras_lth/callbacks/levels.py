"""A finished level of IMP, and how it is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_SMALLER = ("loss", "error", "mse", "mae", "perplexity")


@dataclass(frozen=True)
class Level:
    """One training of IMP: level 0 is the dense one. ``score`` is the monitored metric after its last epoch."""

    round: int
    density: float
    remaining: int
    steps: int
    seconds: float
    monitor: str
    score: float
    matching: bool
    logs: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Level:
        """From ``as_dict``; other keys are left out."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


class Monitor:
    """Which log a training is judged by. The name is settled at the first logs: a ``val_`` metric before a training
    one, a metric before the loss."""

    def __init__(self, name: str | None = None, mode: str = "auto") -> None:
        if mode not in ("auto", "max", "min"):
            raise ValueError(f'mode is "auto", "max" or "min", not {mode!r}.')
        self._asked, self._mode = name, mode
        self.name = name or ""

    def score(self, logs: Mapping[str, Any]) -> float:
        """The monitored value. Raises ``ValueError`` that lists the logs when it is not among them."""
        self.name = self._asked or self._default(logs)
        if self.name not in logs:
            raise ValueError(f"monitor={self.name!r} is not among the logs: {', '.join(sorted(logs)) or 'none'}.")
        return float(logs[self.name])

    @staticmethod
    def _default(logs: Mapping[str, Any]) -> str:
        names = [n for n in logs if n.startswith("val_")] or [n for n in logs if n != "learning_rate"]
        metrics = [n for n in names if not n.endswith("loss")]
        accuracy = [n for n in metrics if "acc" in n]
        return (accuracy or metrics or names or ["loss"])[0]

    def at_least(self, score: float, dense: float) -> bool:
        """Whether ``score`` is as good as the dense one, without a margin: a winning ticket (thesis 3.2)."""
        smaller = self._mode == "min" or (self._mode == "auto" and self.name.endswith(_SMALLER))
        return score <= dense if smaller else score >= dense


def nearest(densities: Sequence[float], density: float) -> int:
    """The level nearest to ``density``, within half a cut. Raises ``ValueError`` that lists the levels."""
    if not 0 < density <= 1:
        raise ValueError(f"A density lies in (0, 1], not {density!r}.")
    away = [abs(math.log(d / density)) for d in densities]
    level = away.index(min(away))
    beside = [abs(math.log(densities[level] / densities[i])) for i in (level - 1, level + 1) if 0 <= i < len(densities)]
    if away[level] > max(beside, default=0.0) / 2 + 1e-9:
        listed = ", ".join(f"{i}: {d:.2%}" for i, d in enumerate(densities))
        raise ValueError(f"No level has a density near {density:.2%}. The levels are {listed}.")
    return level


def summary(history: Sequence[Level]) -> str:
    """A table with a row a level."""
    if not history:
        return "No training has finished yet."
    head = ("round", "density", "weights", history[0].monitor, "matching?", "steps", "seconds")
    rows = [
        (
            str(level.round),
            f"{level.density:.2%}",
            f"{level.remaining:,}",
            f"{level.score:.4f}",
            "dense" if level.round == 0 else "yes" if level.matching else "no",
            f"{level.steps:,}",
            f"{level.seconds:.1f}",
        )
        for level in history
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in [head, *rows])
