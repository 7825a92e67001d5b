"""Error along the line between two networks (thesis 4.1.1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lth.analysis.distances import Network, both, is_floating, is_statistic
from keras_lth.arguments import is_whole

Weights = Mapping[str, np.ndarray]
Arrays = dict[str, np.ndarray]

TREATMENTS = {
    "interpolate": "interpolated like the weights",
    "first": "those of the first network",
    "second": "those of the second network",
    "reestimate": "re-estimated on training data at every point",
}


def interpolate(
    a: Network,
    b: Network,
    alpha: float,
    statistics: str = "interpolate",
    *,
    masks: Mapping[str, np.ndarray] | None = None,
    extrapolate: bool = False,
) -> dict[str, np.ndarray]:
    """Return ``alpha · a + (1 − alpha) · b``, a mapping from path to array, in the original dtypes.

    Floating weights are mixed in double precision and rounded once. ``alpha=1`` gives ``a`` bit for bit, ``alpha=0``
    gives ``b``, and a value that is equal in both is kept exactly, so a weight pruned in both stays exactly 0.
    Variables that are not floating come from ``a``, except at ``alpha=0``, where they come from ``b``. Batch-norm
    statistics, the variables named moving_mean and moving_variance, are treated by ``statistics``: ``"interpolate"``,
    or ``"first"`` (those of ``a``) or ``"second"`` (those of ``b``) at every ``alpha``, including the ends. ``masks``
    as in `both`.

    Raises ``ValueError`` for an alpha outside [0, 1] without ``extrapolate``, an unknown treatment, or networks that
    differ in shape.
    """
    if not (0 <= alpha <= 1 or (extrapolate and math.isfinite(alpha))):
        raise ValueError(f"alpha must be in [0, 1], not {alpha!r}; extrapolate=True allows points beyond the ends.")
    if statistics not in ("interpolate", "first", "second"):
        raise ValueError(f'statistics must be "interpolate", "first" or "second" here, not {statistics!r}.')
    first, second = treated(*both(a, b, masks), statistics)
    return {path: _mix(x, second[path], alpha) for path, x in first.items()}


def treated(first: Arrays, second: Arrays, statistics: str) -> tuple[Arrays, Arrays]:
    """Return two ends of a line on which batch-norm statistics are interpolated, or those of one end everywhere."""
    of = {"first": first, "second": second}.get(statistics)
    kept = {} if of is None else {path: array for path, array in of.items() if is_statistic(path)}
    return {**first, **kept}, {**second, **kept}


def _mix(x: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    if alpha == 0:
        return np.array(y)
    if alpha == 1 or not is_floating(x.dtype):
        return np.array(x)
    line = alpha * x.astype(np.float64) + (1 - alpha) * y.astype(np.float64)
    return np.where(x == y, x, line.astype(x.dtype))


@dataclass(frozen=True)
class Path:
    """The error at evenly spaced points of a line between two networks; ``alphas[0] = 0`` is the second network.

    Attributes:
        alphas: share of the first network, 0 … 1, both included.
        errors: the error at each of them.
        statistics: treatment of batch-norm statistics: "interpolate", "first", "second" or "reestimate".
        measure: what the error is, such as "1 − accuracy".

    An error that is NaN is a gap: the barrier is then NaN, which is not known, and the path is not stable.

    Raises ``ValueError`` unless there are at least 2 points, the ends 0 and 1 included, with as many errors.
    """

    alphas: tuple[float, ...]
    errors: tuple[float, ...]
    statistics: str = "interpolate"
    measure: str = "error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "alphas", tuple(float(alpha) for alpha in self.alphas))
        object.__setattr__(self, "errors", tuple(float(error) for error in self.errors))
        if self.statistics not in TREATMENTS:
            raise ValueError(f"statistics must be one of {', '.join(TREATMENTS)}, not {self.statistics!r}.")
        if len(self.alphas) != len(self.errors) or self.alphas[:1] != (0.0,) or self.alphas[-1:] != (1.0,):
            raise ValueError(
                f"A path needs one error for each alpha from 0 to 1, not {len(self.errors)} errors at {self.alphas}."
            )

    @property
    def endpoints(self) -> tuple[float, float]:
        """Return the errors at the ends: of the second network (alpha 0), of the first (alpha 1)."""
        return self.errors[0], self.errors[-1]

    @property
    def highest(self) -> tuple[float, float]:
        """Return (alpha, error) of the highest point that is known, the first one if there are several."""
        known = [at for at, error in enumerate(self.errors) if not math.isnan(error)] or [0]
        at = max(known, key=self.errors.__getitem__)
        return self.alphas[at], self.errors[at]

    @property
    def gaps(self) -> tuple[float, ...]:
        """Return the alphas at which the error is NaN."""
        return tuple(alpha for alpha, error in zip(self.alphas, self.errors, strict=True) if math.isnan(error))

    @property
    def barrier(self) -> float:
        """Return the error barrier height; see ``error_barrier``."""
        return error_barrier(self.errors)

    def stable(self, threshold: float = 0.02) -> bool:
        """Return whether the barrier is below ``threshold``; see `is_stable`."""
        return is_stable(self, threshold)

    def as_dict(self) -> dict[str, Any]:
        """Return a form for JSON, which includes ``barrier`` and ``endpoints`` for readers."""
        return {
            "alphas": list(self.alphas),
            "errors": list(self.errors),
            "statistics": self.statistics,
            "measure": self.measure,
            "endpoints": list(self.endpoints),
            "barrier": self.barrier,
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Path:
        """Rebuild a path from ``as_dict``; values that follow from the errors are computed again."""
        return cls(tuple(row["alphas"]), tuple(row["errors"]), row["statistics"], row["measure"])

    def __str__(self) -> str:
        alpha, error = self.highest
        if self.gaps:
            return f"barrier not known: the {self.measure} is NaN at {len(self.gaps)} of {len(self.alphas)} points"
        return (
            f"barrier {self.barrier:.4f} ({self.measure} {self.endpoints[1]:.4f} and {self.endpoints[0]:.4f} at the "
            f"ends, highest {error:.4f} at alpha {alpha:.2f}; {len(self.alphas)} points; batch-norm statistics "
            f"{TREATMENTS[self.statistics]})"
        )


def error_barrier(path: Path | Sequence[float]) -> float:
    """Return the error barrier height: the highest error on a path minus the mean of its two ends (thesis 4.1.1); ≥ 0.

    ``path`` is a ``Path``, or the errors in order. The barrier is NaN, not known, if an error is NaN or an end is
    infinite. Raises ``ValueError`` for fewer than 2 errors.
    """
    errors = [float(error) for error in (path.errors if isinstance(path, Path) else path)]
    if len(errors) < 2:
        raise ValueError(f"A path needs at least its two ends, not {len(errors)} errors.")
    if any(map(math.isnan, errors)) or math.isinf(errors[0]) or math.isinf(errors[-1]):
        return math.nan
    # Half of each, so that two equal ends give their own value exactly.
    return max(errors) - (errors[0] / 2 + errors[-1] / 2)


def is_stable(found: Path | Sequence[float] | float, threshold: float = 0.02) -> bool:
    """Return whether an instability is below ``threshold``; the thesis uses 2 points (4.1.1). NaN is not stable.

    ``found`` is a path, the errors along one, or an instability, such as the mean barrier of several pairs.
    """
    barrier = float(found) if isinstance(found, (int, float, np.floating)) else error_barrier(found)
    return barrier < threshold


def linear_path(
    a: Network,
    b: Network,
    evaluate: Callable[[Weights], float] | None = None,
    *,
    model: Any = None,
    data: Any = None,
    points: int = 30,
    statistics: str = "interpolate",
    masks: Mapping[str, np.ndarray] | None = None,
    metric: str | None = None,
    mode: str = "auto",
    batch_size: int | None = None,
    train_data: Any = None,
) -> Path:
    """Measure the error at ``points`` evenly spaced points of the line from ``b`` (alpha 0) to ``a`` (alpha 1).

    Pass either ``evaluate``, a function from weights (path → array) to an error, or a built and compiled Keras
    ``model`` with ``data``; see ``evaluation.Evaluator`` for ``data``, ``metric``, ``mode``, ``batch_size`` and
    ``train_data``. The model's own weights are restored bit for bit. ``statistics`` is the treatment of batch-norm
    statistics, which the thesis does not state: ``"interpolate"``, ``"first"``, ``"second"``, or ``"reestimate"`` on
    ``train_data`` at every point. ``masks`` as for `distances.both`.

    Raises ``ValueError`` for fewer than 2 points, an unknown treatment, or networks that cannot be compared.
    """
    if not is_whole(points, 2):
        raise ValueError(f"points must be an integer ≥ 2 (the two ends), not {points!r}.")
    if statistics not in TREATMENTS:
        raise ValueError(f"statistics must be one of {', '.join(map(repr, TREATMENTS))}, not {statistics!r}.")
    if evaluate is None:
        with _evaluator(statistics, model, data, metric, mode, batch_size, train_data) as evaluator:
            return linear_path(a, b, evaluator, points=points, statistics=statistics, masks=masks)
    if model is not None or data is not None:
        raise ValueError("Give either evaluate or model and data, not both.")
    if statistics == "reestimate" and not getattr(evaluate, "reestimates", False):
        raise ValueError(
            'statistics="reestimate" needs a model, data and train_data: evaluate cannot re-estimate statistics.'
        )
    ends = both(a, b, masks)
    check = getattr(evaluate, "check", None)
    if check is not None:
        for name, end in zip(("first", "second"), ends, strict=True):
            check(end, name)
    first, second = treated(*ends, statistics)
    alphas = [float(alpha) for alpha in np.linspace(0, 1, points)]
    along = getattr(evaluate, "along", None)
    if along is not None:
        errors = along(first, second, alphas)
    else:
        errors = [float(evaluate(interpolate(first, second, alpha))) for alpha in alphas]
    return Path(tuple(alphas), tuple(errors), statistics, getattr(evaluate, "measure", "error"))


def instability(
    ends: Sequence[Network],
    evaluate: Callable[[Weights], float] | None = None,
    *,
    model: Any = None,
    data: Any = None,
    points: int = 30,
    statistics: str = "interpolate",
    masks: Mapping[str, np.ndarray] | None = None,
    metric: str | None = None,
    mode: str = "auto",
    batch_size: int | None = None,
    train_data: Any = None,
) -> float:
    """Return the linear interpolation instability: the mean error barrier over all pairs of ``ends`` (thesis 4.1.1).

    The ends are networks trained from one state under different SGD noise. The other arguments are those of
    `linear_path`. It is NaN if the barrier of a pair is not known. Raises ``ValueError`` for fewer than 2 ends.
    """
    if len(ends) < 2:
        raise ValueError(f"instability compares pairs of networks: pass at least 2 ends, not {len(ends)}.")
    if evaluate is None:
        with _evaluator(statistics, model, data, metric, mode, batch_size, train_data) as evaluator:
            return instability(ends, evaluator, points=points, statistics=statistics, masks=masks)
    paths = [
        linear_path(a, b, evaluate, points=points, statistics=statistics, masks=masks)
        for a, b in itertools.combinations(ends, 2)
    ]
    return float(np.mean([path.barrier for path in paths]))


def _evaluator(
    statistics: str, model: Any, data: Any, metric: str | None, mode: str, batch_size: int | None, train_data: Any
) -> Any:
    if model is None or data is None:
        raise ValueError("Give evaluate, a function from weights to an error, or both model and data.")
    if statistics == "reestimate" and train_data is None:
        raise ValueError('statistics="reestimate" needs train_data, the training examples.')
    from keras_lth.analysis.evaluation import Evaluator

    again = train_data if statistics == "reestimate" else None
    return Evaluator(model, data, metric=metric, mode=mode, batch_size=batch_size, train_data=again)
