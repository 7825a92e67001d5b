"""Time the criteria of pruning at initialisation on VGG-16 for 32×32 images (14.7 million weights).

SNIP and GraSP beside a training step of the same batch, an iteration of SynFlow beside a forward and backward pass of
one example in the same precision, and the selection of its masks. All take turns in one process; least times.

    python benchmarks/criteria.py --out criteria.json
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np
import tensorflow as tf
import timing
from rows import Row, markdown, number

import keras_lth as lth
from keras_lth.criteria.synflow import Flow
from keras_lth.surgery import masks_of

EACH = 3


def network() -> keras.Model:
    model = lth.models.vgg_16((32, 32, 3), 10, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, 0.9), loss, jit_compile=False)
    return model


def backward(model: keras.Model, dtype: str) -> Any:
    """A compiled forward and backward pass of one example, with float64 copies of the weights."""
    twin = network()
    twin.set_weights(model.get_weights())
    one = tf.ones((1, 32, 32, 3), dtype)
    values = [tf.cast(tf.convert_to_tensor(v.value), dtype) for v in twin.variables]

    @tf.function
    def run() -> Any:
        from keras_lth.surgery.apart import apart

        with tf.GradientTape() as tape:
            tape.watch(values)
            with apart(twin, list(zip(twin.variables, values, strict=True)), dtype=dtype):
                total = tf.reduce_sum(twin(one, training=False))
        return [each for each in tape.gradient(total, values) if each is not None]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(arguments.batch, 32, 32, 3)).astype("float32"), np.arange(arguments.batch) % 10
    model = network()
    weights = lth.prunable(model)
    full = {path: np.ones(tuple(v.shape), bool) for path, v in weights.items()}
    snip, grasp = lth.criteria.SNIP(), lth.criteria.GraSP()
    snips, grasps = (each.scorer(model, weights, x, y) for each in (snip, grasp))
    flow, plain = Flow(model, weights), backward(model, "float64")
    scores = flow(full)[1]
    calls = {
        "step": lambda: model.train_on_batch(x, y),
        "snip": lambda: snips(full),
        "grasp": lambda: grasps(full),
        "flow": lambda: flow(full),
        "plain": lambda: [one.numpy() for one in plain()],
        "select": lambda: lth.select(scores, density=0.5),
    }
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(EACH + 1):
        for name in list(calls) if turn % 2 else list(calls)[::-1]:
            begin = time.perf_counter()
            calls[name]()
            best[name] = min(best[name], 1e3 * (time.perf_counter() - begin)) if turn else best[name]
    begin = time.perf_counter()
    masks = lth.prune_iteratively(network(), lth.criteria.SynFlow(), density=0.001, iterations=100)
    seconds = time.perf_counter() - begin
    assert masks.remaining == round(0.001 * masks.size) and not masks_of(model)
    one = best["plain"] + best["select"]
    step = f"a training step, batch {arguments.batch}"
    rows = [
        Row("SNIP", best["snip"], step, best["step"], best["snip"] / best["step"], 1.5, True),
        Row("GraSP", best["grasp"], step, best["step"], best["grasp"] / best["step"], 5, True),
        Row("SynFlow, an iteration", best["flow"] + best["select"], "forward and backward of one, selection", one,
            (best["flow"] + best["select"]) / one, 1.5, True),
        Row("SynFlow, 100 iterations, float64", 1e3 * seconds, "40 s", 40e3, seconds / 40, 1, True),
    ]  # fmt: skip
    body = [[r.work, number(r.ours), r.peer, number(r.theirs), number(r.ratio), number(r.floor or 0)] for r in rows]
    print(markdown(["criterion", "ms", "beside", "ms", "ratio", "at most"], body))
    timing.write(arguments.out, {"machine": timing.machine(), "rows": [row.json() for row in rows]})


if __name__ == "__main__":
    main()
