"""Bézier curves between two networks: non-linear mode connectivity (T. Garipov et al., NeurIPS 2018), and planes.

A curve has one control point, c: (1 − t)² b + 2t(1 − t) c + t² a, so that, as on a line, t = 1 is the first network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_lth.analysis.connectivity import Arrays, Path, Weights, interpolate
from keras_lth.analysis.distances import Network, both, is_floating, is_statistic
from keras_lth.arguments import real, whole


def bezier(a: Network, control: Network, b: Network, t: float, *, masks: Mapping[str, Any] | None = None) -> Arrays:
    """Return the point of a quadratic Bézier curve at ``t`` in [0, 1]: ``b`` at 0, ``a`` at 1, bit for bit.

    It is the point at ``t`` of the line between those at ``t`` of the two lines to the control point. ``masks`` as for
    `distances.both`. Raises ``ValueError`` for another ``t``.
    """
    if not 0 <= t <= 1:
        raise ValueError(f"t must be in [0, 1], not {t!r}.")
    first, second = (interpolate(*pair, t, masks=masks) for pair in ((a, control), (control, b)))
    return interpolate(first, second, t)


def curve_path(
    a: Network, control: Network, b: Network, evaluate: Callable[[Weights], float], *, points: int = 30,
    masks: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Measure the error at evenly spaced ``t`` of a Bézier curve, as `linear_path` does on a line."""
    places = [float(t) for t in np.linspace(0, 1, whole(points, "points", 2))]
    errors = [float(evaluate(bezier(a, control, b, t, masks=masks))) for t in places]
    return Path(tuple(places), tuple(errors), "interpolate", getattr(evaluate, "measure", "error"))


def fit_curve(
    model: Any,
    a: Network,
    b: Network,
    data: Any,
    *,
    steps: int,
    optimizer: Any = None,
    batch_size: int = 128,
    seed: int = 0,
    masks: Mapping[str, Any] | None = None,
) -> Arrays:
    """Train the control point of a Bézier curve so that the loss along it is low; return it (Garipov et al., 3.2).

    Each step draws a t in [0, 1) and a batch, and takes the gradient of the loss at that point of the curve. The
    control point starts in the middle of the ends. Weights that are pruned in both ends stay 0. Batch-norm statistics
    are interpolated; re-estimate them on the curve (``Evaluator(…, train_data=…)``). The model's own weights are
    restored.

    Args:
        model: built and compiled, for its loss.
        a, b: the ends.
        data: training examples, ``(x, y)`` arrays.
        steps: of training.
        optimizer: a Keras optimizer, which no model uses; by default SGD at a rate of 0.01 with a momentum of 0.9.
        batch_size: examples a step.
        seed: of the draws.
        masks: as for `distances.both`.

    Raises ``ValueError`` for arguments that cannot work, ``FloatingPointError`` if the loss is not finite.
    """
    import keras
    import tensorflow as tf

    from keras_lth import surgery

    x, y = (np.asarray(each) for each in data)
    whole(steps, "steps", 1)
    size = min(whole(batch_size, "batch_size", 1), len(x))
    first, second = both(a, b, masks)
    control = interpolate(first, second, 0.5)
    variables = surgery.variables(model)
    known = {id(variable) for variable in model.trainable_variables}
    trained = [path for path, variable in variables.items() if id(variable) in known]
    made = {path: keras.Variable(control[path], name=path.replace("/", "_")) for path in trained}
    free = {path: tf.constant((first[path] != 0) | (second[path] != 0), made[path].dtype) for path in trained}
    ends = {path: (tf.constant(first[path]), tf.constant(second[path])) for path in trained}
    with keras.name_scope("curve"):
        rule = optimizer or keras.optimizers.SGD(0.01, momentum=0.9)
        rule.build(list(made.values()))

    def step(t: Any, one: Any, other: Any) -> Any:
        for path in trained:
            a_, b_ = ends[path]
            variables[path].assign((1 - t) ** 2 * b_ + 2 * t * (1 - t) * made[path] + t**2 * a_)
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=one, y=other, y_pred=model(one, training=True), training=True)
        found = tape.gradient(loss, [variables[path].value for path in trained])
        rule.apply([2 * t * (1 - t) * g * free[path] for path, g in zip(trained, found, strict=True)])
        return loss

    traced, draw = tf.function(step, autograph=False), np.random.default_rng(seed)
    own = {path: np.array(variable.numpy()) for path, variable in variables.items()}
    losses = []
    try:
        for _ in range(steps):
            rows = draw.integers(0, len(x), size)
            losses.append(float(traced(tf.constant(draw.random(), tf.float32), x[rows], y[rows])))
    finally:
        for path, value in own.items():
            variables[path].assign(value)
        model.reset_metrics()
    if not np.isfinite(losses).all():
        raise FloatingPointError("The loss on the curve is not finite: use a lower learning rate in optimizer.")
    return {**control, **{path: variable.numpy() for path, variable in made.items()}}


@dataclass(frozen=True)
class Plane:
    """The error in the plane through three networks (Garipov et al., figure 1).

    Attributes:
        x, y: coordinates of the columns and rows of the grid, in units of L2 distance; the first network is at (0, 0),
            the second on the x-axis.
        errors: of shape (rows, columns).
        places: (x, y) of the three networks.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    errors: np.ndarray
    places: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


def plane(
    networks: Sequence[Network],
    evaluate: Callable[[Weights], float],
    *,
    points: int = 15,
    margin: float = 0.2,
    masks: Mapping[str, Any] | None = None,
) -> Plane:
    """Measure the error on a grid of the plane through three networks, which reaches beyond them by ``margin``.

    Args:
        networks: three of one architecture.
        evaluate: a function from weights to an error, such as an `Evaluator`.
        points: of the grid, along each axis.
        margin: as a share of the extent of the three.
        masks: as for `distances.both`.

    Raises ``ValueError`` for another number of networks, or for three on one line.
    """
    if len(networks) != 3:
        raise ValueError(f"a plane goes through three networks, not {len(networks)}.")
    whole(points, "points", 2)
    first, second = both(networks[0], networks[1], masks)
    third = both(networks[0], networks[2], masks)[1]
    paths = [path for path, array in first.items() if is_floating(array.dtype) and not is_statistic(path)]

    def flat(weights: Weights) -> np.ndarray:
        return np.concatenate([weights[path].astype(np.float64).ravel() for path in paths])

    u, v = flat(second) - flat(first), flat(third) - flat(first)
    length = float(np.linalg.norm(u))
    along = float(v @ u / length) if length else 0.0
    height = float(np.linalg.norm(v - along * u / length)) if length else 0.0
    if not length or height <= 1e-9 * length:
        raise ValueError("the three networks lie on one line, so they span no plane: choose other networks.")
    places = ((0.0, 0.0), (length, 0.0), (along, height))
    share = real(margin, "margin")
    low = min(0.0, along), 0.0
    wide = max(length, along) - low[0], height
    xs = np.linspace(low[0] - share * wide[0], low[0] + (1 + share) * wide[0], points)
    ys = np.linspace(-share * height, (1 + share) * height, points)
    errors = np.array([[_error(evaluate, first, second, third, (x - y * along / height) / length, y / height)
                        for x in xs] for y in ys])  # fmt: skip
    return Plane(tuple(map(float, xs)), tuple(map(float, ys)), errors, places)


def _error(
    evaluate: Callable[[Weights], float], first: Arrays, second: Arrays, third: Arrays, of_second: float,
    of_third: float,
) -> float:  # fmt: skip
    """The error at first + s · (second − first) + t · (third − first); statistics too are mixed."""
    mixed = {}
    for path, array in first.items():
        mixed[path] = array
        if is_floating(array.dtype):
            one, two, three = (each[path].astype(np.float64) for each in (first, second, third))
            mixed[path] = (one + of_second * (two - one) + of_third * (three - one)).astype(array.dtype)
    return float(evaluate(mixed))
