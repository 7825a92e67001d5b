"""Repeat the published result of SET on Fashion-MNIST: 5 seeds, beside dense, static and RigL, with the wall time.

D. Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired by network
science", 2018, in the form of their tutorial at ECML-PKDD 2019: 2 000 training and 1 000 test images, 784-1000³-10,
ReLU, 400 epochs of batches of 40. Their code differs from what its words say, and this follows the code:

- The error of an output p = sigmoid(z) is (p − y) · s(p)(1 − s(p)), with s the sigmoid: its derivative is taken at p,
  not at z.
- Dropout drops 20 % of the hidden units in the forward pass only; the backward pass sees all of them. In inference the
  inputs of every layer after the first are scaled by 0.8, its bias too.
- Kernels of sparse networks have gradients averaged over the batch and a rate of 0.05. Those of the dense network are
  summed, at a rate of 0.001, and its biases are averaged: as a rate of 0.04, and of 0.001 for biases.
- Weight decay takes 2e-4 of every parameter at every step, whatever the rate.

Two things differ: SET drops 30 % of the smallest magnitudes of a layer, not of its positive and its negative weights
each, and layers have exactly the expected number of weights of their random graphs.

A run is a line of ``--out``; the same command continues where it stopped. Processes with other seeds share the file.
The first two commands give the accuracies, the third the seconds, on an idle machine.

    OUT=docs/results/moving_masks
    python benchmarks/set_published.py --out $OUT/set.csv --threads 1 --masked 0 --seeds 0 2 4
    python benchmarks/set_published.py --out $OUT/set.csv --threads 1 --masked 0 --seeds 1 3
    python benchmarks/set_published.py --out $OUT/set_seconds.csv --seeds 0 --epochs 20
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import keras_lth as lth
from keras_lth import datasets

EPOCHS, BATCH, RATE, DROPPED, DECAY = 400, 40, 0.05, 0.2, 2e-4
EPSILON, ZETA, DEVIATION = 13, 0.3, 0.1
WIDTHS = (784, 1000, 1000, 1000, 10)
# Accuracy after the last epoch, mean and deviation of the five result files that come with their code.
PUBLISHED = {"dense": (0.8198, 0.0026), "static": (0.8060, 0.0060), "set": (0.8256, 0.0090)}
METHODS = ("dense", "static", "set", "rigl")


@keras.saving.register_keras_serializable("set_published")
class Dropped(keras.layers.Layer):
    """Drop units in the forward pass of training; the gradient passes through all."""

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(**options)
        self.random = keras.random.SeedGenerator(seed)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return x
        # The algorithm that Keras leaves to XLA takes longer on a CPU than the sparse products.
        draws = tf.random.stateless_uniform(tf.shape(x), self.random.next(), alg="threefry")
        kept = keras.ops.cast(draws >= DROPPED, x.dtype)
        return x + keras.ops.stop_gradient(x * kept - x)


@keras.saving.register_keras_serializable("set_published")
class Scaled(keras.layers.Layer):
    """Scale by the share of units that training keeps, in inference."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x if training else x * (1 - DROPPED)


@keras.saving.register_keras_serializable("set_published")
class Bias(keras.layers.Layer):
    """Add a bias whose gradient is divided by the batch size."""

    def build(self, shape: Any) -> None:
        self.bias = self.add_weight(shape=shape[-1:], initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        share = self.bias / BATCH
        return x + keras.ops.stop_gradient(self.bias - share) + share


def error(y: Any, z: Any) -> Any:
    """The loss of logits whose gradient is that of the published code; its value has no meaning."""
    p = keras.ops.sigmoid(z)
    slope = keras.ops.sigmoid(p) * (1 - keras.ops.sigmoid(p))
    return keras.ops.sum(keras.ops.stop_gradient((p - y) * slope) * z, axis=-1)


def network(seed: int, *, dense: bool) -> keras.Model:
    """The network with normal values of deviation 0.1, compiled."""
    x = inputs = keras.Input((WIDTHS[0],))
    for number, width in enumerate(WIDTHS[1:], 1):
        values = keras.initializers.RandomNormal(stddev=DEVIATION, seed=100 * seed + number)
        x = keras.layers.Dense(width, use_bias=not dense, kernel_initializer=values, name=f"dense{number}")(x)
        x = Bias(name=f"bias{number}")(x) if dense else x
        x = Scaled()(x) if number > 1 else x
        if number < len(WIDTHS) - 1:
            x = Dropped(100 * seed + number)(keras.layers.ReLU()(x))
    model = keras.Model(inputs, x)
    rate = BATCH * 0.001 if dense else RATE
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, weight_decay=DECAY / rate)
    model.compile(optimizer, loss=error, metrics=["categorical_accuracy"])
    return model


def densities() -> dict[str, float]:
    """The expected densities of graphs of ε(rows + columns) edges that are drawn with repetition."""
    pairs = itertools.pairwise(WIDTHS)
    return {f"dense{n}/kernel": 1 - math.exp(-EPSILON * (r + c) / (r * c)) for n, (r, c) in enumerate(pairs, 1)}


def data() -> tuple[Any, Any]:
    """The images of the published code, in its order."""
    splits = datasets.load("fashion_mnist")
    random = np.random.RandomState(0)
    found = []
    for (x, y), count in ((splits.train, 2_000), (splits.test, 1_000)):
        order = np.arange(len(x))
        random.shuffle(order)
        x, y = (np.asarray(each)[order[:count]] for each in (x, y))
        found.append((x.reshape(count, -1).astype("float32"), np.eye(10, dtype="float32")[y]))
    return found[0], found[1]


def run(method: str, seed: int, kernels: str, epochs: int) -> dict[str, Any]:
    """Train once; return accuracies and seconds."""
    train, test = data()
    assert 0.99 < train[0].max() <= 1 and train[0].min() == 0
    model, callbacks = network(seed, dense=method == "dense"), []
    if method != "dense":
        how: dict[str, Any] = {"seed": seed, "verbose": 0}
        moved = {
            "static": lambda: lth.StaticSparse(densities(), seed=seed, verbose=0),
            "set": lambda: lth.SET(densities(), fraction=ZETA, deviation=DEVIATION, **how),
            "rigl": lambda: lth.RigL(densities(), fraction=ZETA, every="1 epoch", until="75%", **how),
        }
        callbacks = [moved[method]()]
        if kernels == "sparse":
            # The masks that the callback would begin with.
            lth.mask(model, lth.select(lth.criteria.Random(seed)(model), density=lth.densities.ByName(densities())))
            lth.sparsify(model, only_if_faster=False, batch_size=BATCH)
    begin = time.perf_counter()
    batches = datasets.ordered(*train, batch_size=BATCH, seed=seed)
    lth.training.fit(model, batches, epochs=epochs, callbacks=callbacks, verbose=0)
    seconds = time.perf_counter() - begin
    right = [float((model.predict(x, verbose=0).argmax(1) == y.argmax(1)).mean()) for x, y in (test, train)]
    return {"method": method, "kernels": kernels, "seed": seed, "epochs": epochs, "accuracy": right[0],
            "train_accuracy": right[1], "seconds": round(seconds, 1)}  # fmt: skip


def table(rows: pd.DataFrame) -> str:
    """Means, deviations and the distance to the published mean in standard errors of the difference."""
    lines = [f"{'method':8} {'kernels':8} {'runs':>4} {'accuracy':>16} {'published':>16} {'errors apart':>12} {'s':>6}"]
    groups = rows.groupby(["method", "kernels"])
    for (method, kernels), mine in sorted(groups, key=lambda group: (METHODS.index(group[0][0]), group[0][1])):
        mean, deviation, count = mine["accuracy"].mean(), mine["accuracy"].std(), len(mine)
        published, apart = "–", ""
        if method in PUBLISHED and count > 1:
            other, spread = PUBLISHED[method]
            published = f"{100 * other:.2f} ± {100 * spread:.2f}"
            apart = f"{abs(mean - other) / math.sqrt(deviation**2 / count + spread**2 / 5):.1f}"
        lines.append(f"{method:8} {kernels:8} {count:4} {100 * mean:8.2f} ± {100 * deviation:5.2f} {published:>16} "
                     f"{apart:>12} {mine['seconds'].median():6.0f}")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("set_published.csv"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--masked", type=int, default=1, help="seeds below it are trained on masked dense layers too")
    parser.add_argument("--threads", type=int, default=0, help="of TensorFlow; 0: all")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    wanted = [
        (method, seed, kernels)
        for seed in arguments.seeds
        for method in METHODS
        for kernels in (("dense",) if method == "dense" else ("sparse", "dense"))
        if kernels == "sparse" or method == "dense" or seed < arguments.masked
    ]
    for method, seed, kernels in wanted:
        rows = (
            pd.read_csv(arguments.out)
            if arguments.out.exists()
            else pd.DataFrame(columns=["method", "seed", "kernels"])
        )
        if ((rows["method"] == method) & (rows["seed"] == seed) & (rows["kernels"] == kernels)).any():
            continue
        row = run(method, seed, kernels, arguments.epochs)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        # A line is added, so processes with other seeds can share the file.
        pd.DataFrame([row]).to_csv(arguments.out, mode="a", header=not arguments.out.exists(), index=False)
        print(row, flush=True)
    print(table(pd.read_csv(arguments.out)))


if __name__ == "__main__":
    main()
