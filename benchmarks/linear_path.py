"""A linear path beside a call of `model.evaluate` at each of its points: `lth.analysis.linear_path`, Keras at its best.

LeNet-300-100 on 10 000 images, and ResNet-20 on 2 000 images of 32×32. Keras' batch size is tuned first. Then both take
turns in one process, and their errors are compared point by point.

    python benchmarks/linear_path.py --out docs/results/benchmarks/linear_path.json
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np
import timing
import turns
from rows import Row, faster, table, verdict

import keras_lth as lth

# Name, builder, examples, shape of one, batch sizes of Keras, points, floor. A point of ResNet-20 takes a second.
CASES = (
    ("LeNet-300-100", lth.models.lenet_300_100, 10_000, (28, 28, 1), (250, 500, 1000, 2000, 10_000), 30, 2.0),
    ("ResNet-20", lth.models.resnet_20, 2_000, (32, 32, 3), (50, 100, 250), 10, 1.3),
)


def compiled(build: Callable[..., keras.Model], shape: tuple[int, ...]) -> keras.Model:
    model = build(shape, 10, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=loss, metrics=["accuracy"])
    return model


def measured(
    name: str, build: Callable[..., keras.Model], count: int, shape: tuple[int, ...], sizes: tuple[int, ...],
    points: int, floor: float, repeats: int,
) -> Row:  # fmt: skip
    draw = np.random.default_rng(0)
    x = draw.normal(size=(count, *shape)).astype(np.float32)
    y = draw.integers(0, 10, count).astype(np.int32)
    model = compiled(build, shape)
    a, b = (lth.snapshot(build(shape, 10, seed=seed)).weights for seed in (1, 2))
    variables = lth.surgery.variables(model)

    def by_evaluate(size: int, points: int) -> list[float]:
        errors = []
        for alpha in np.linspace(0, 1, points):
            for path, value in lth.analysis.interpolate(a, b, float(alpha)).items():
                variables[path].assign(value)
            errors.append(1 - model.evaluate(x, y, batch_size=size, verbose=0)[1])
        return errors

    tuned = {size: timing.best_ms(lambda size=size: by_evaluate(size, 2), 2) for size in sizes}
    best = min(tuned, key=tuned.__getitem__)
    with lth.analysis.Evaluator(model, (x, y)) as evaluate:

        def by_path() -> list[float]:
            return list(lth.analysis.linear_path(a, b, evaluate, points=points).errors)

        calls = {"path": by_path, "evaluate": lambda: by_evaluate(best, points)}
        errors = {which: call() for which, call in calls.items()}
        # To rounding: an example may change sides.
        np.testing.assert_allclose(errors["path"], errors["evaluate"], atol=2 / count)
        times: dict[str, list[float]] = {which: [] for which in calls}
        for turn in range(repeats):
            for which in list(calls)[:: 1 if turn % 2 else -1]:
                times[which].append(turns.milliseconds(calls[which]))
    mine, peer = (min(times[which]) for which in ("path", "evaluate"))
    work = f"{name}, {count} images, {points} points"
    return faster(work, mine, f"model.evaluate, batches of {best}", peer, floor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="where to write the result as JSON")
    parser.add_argument("--only", help="a part of the name of a case")
    parser.add_argument("--turns", type=int, default=2)
    given = parser.parse_args()
    rows = [measured(*case, given.turns) for case in CASES if (given.only or "") in case[0]]
    print(table(rows))
    print(verdict(rows))
    timing.write(given.out, {"machine": timing.machine(), "rows": [row.json() for row in rows]})


if __name__ == "__main__":
    main()
