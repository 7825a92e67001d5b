"""Measure what gradual pruning costs beside TensorFlow Model Optimization, each in a process of its own.

Both prune LeNet-300-100 and a small convolutional network with the same `PolynomialDecay`, by the same calls: ours from
`keras_lth.compat.tfmot` on Keras 3, theirs on Keras 2. In each process a network whose masks change at every step and
one whose masks stay take turns, a step each; the ratio of two neighbours cancels other load on the machine. Then theirs
trains on Fashion-MNIST, and ours chooses masks at the same steps from the same weights: differing bits are counted.

    pip install "keras_lth[tfmot]"       # or --python: an interpreter that has it
    python benchmarks/moving_masks.py --out moving_masks.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BATCH = 60
NETWORKS = ("lenet", "cnn")
STEPS, EVERY = 60, 6  # of the comparison of masks


def network(keras: Any, name: str) -> Any:
    """The same network with either Keras."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    if name == "lenet":
        stack = [layers.Flatten(), layers.Dense(300, "relu"), layers.Dense(100, "relu"), layers.Dense(10)]
    else:
        convolutions = [layers.Conv2D(width, 3, activation="relu") for width in (32, 64)]
        stack = [convolutions[0], layers.MaxPooling2D(), convolutions[1], layers.MaxPooling2D(), layers.Flatten(),
                 layers.Dense(10)]  # fmt: skip
    model = keras.Sequential([keras.layers.InputLayer((28, 28, 1)), *stack])
    model.build((None, 28, 28, 1))
    return model


def pruned(keras: Any, api: Any, name: str, frequency: int, steps: int) -> tuple[Any, Any]:
    """A compiled network that is pruned from 50 to 90 %, and its callback; a loop calls the callback's hooks."""
    schedule = api.PolynomialDecay(0.5, 0.9, 0, steps, frequency=frequency)
    model = api.prune_low_magnitude(network(keras, name), pruning_schedule=schedule)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    update = api.UpdatePruningStep()
    update.verbose = 0
    update.set_model(model)
    return model, update


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def cost(keras: Any, api: Any, name: str, pairs: int) -> dict[str, float]:
    """Seconds of a masked step, of one with an update, and of the update's hook alone."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x, y = rng.random((BATCH * 100, 28, 28, 1), np.float32), rng.integers(0, 10, BATCH * 100)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH, drop_remainder=True).cache().repeat()
    sides = {}
    for kind, frequency in (("masked", 10**6), ("updated", 1)):
        model, update = pruned(keras, api, name, frequency, 10**7)
        model.fit(data, steps_per_epoch=20, epochs=1, verbose=0, callbacks=[update])
        update.set_model(model)
        update.on_train_begin()
        sides[kind] = (model, update, iter(data))
    times: dict[str, list[float]] = {"masked": [], "updated": [], "hook": []}

    def step(kind: str) -> float:
        model, update, batches = sides[kind]
        hook = timed(lambda: update.on_train_batch_begin(0))
        if kind == "updated":
            times["hook"].append(hook)
        return hook + timed(lambda: model.train_function(batches))

    for pair in range(-20, pairs):
        for kind in ("masked", "updated") if pair % 2 else ("updated", "masked"):
            seconds = step(kind)
            if pair >= 0:
                times[kind].append(seconds)
    ratios = [b / a for a, b in zip(times["masked"], times["updated"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    step_ms, hook_ms = (1e3 * statistics.median(times[kind]) for kind in ("masked", "hook"))
    return {"masked step ms": step_ms, "ratio": middle, "quartile 1": low, "quartile 3": high, "hook ms": hook_ms,
            "hook / step": hook_ms / step_ms}  # fmt: skip


def trained(keras: Any, api: Any, name: str, file: str) -> None:
    """Train real TFMOT on Fashion-MNIST; write the weights before each step and the masks after it."""
    model, update = pruned(keras, api, name, EVERY, STEPS - EVERY)
    update.on_train_begin()
    images = np.load(os.path.join(os.path.dirname(file), "images.npz"))
    layers = [layer for layer in model.layers if getattr(layer, "pruning_vars", None)]
    kept = {}
    for step in range(1, STEPS + 1):
        if step % EVERY < 2:
            kept |= {f"weight/{n}/{step}": layer.pruning_vars[0][0].numpy() for n, layer in enumerate(layers)}
        update.on_train_batch_begin(batch=-1)
        part = slice(BATCH * step, BATCH * (step + 1))
        model.train_on_batch(images["x"][part], images["y"][part])
        if step % EVERY < 2:
            kept |= {f"mask/{n}/{step}": layer.pruning_vars[0][1].numpy() != 0 for n, layer in enumerate(layers)}
    np.savez(file, **kept)


def masks_differ(api: Any, keras: Any, name: str, file: str) -> dict[str, int]:
    """Choose masks by our schedule from TFMOT's weights; count bits that differ."""
    from keras_lth.compat.tfmot.marks import marked

    model, _ = pruned(keras, api, name, EVERY, STEPS - EVERY)
    marks = [mark for _, mark in marked(model).values()]
    theirs = np.load(file)
    found = {"masks compared": 0, "changes": 0, "bits that differ": 0}
    worn: dict[int, np.ndarray] = {}
    for step in range(1, STEPS + 1):
        for number, mark in enumerate(marks):
            if mark.due(step):
                worn[number] = np.asarray(mark.mask(theirs[f"weight/{number}/{step}"], step))
                found["changes"] += 1
            if f"mask/{number}/{step}" in theirs and number in worn:
                found["masks compared"] += 1
                found["bits that differ"] += int((worn[number] != theirs[f"mask/{number}/{step}"]).sum())
    return found


def side(name: str, pairs: int, folder: str) -> dict[str, Any]:
    """What one process does."""
    if name == "tfmot":
        keras, api = importlib.import_module("tf_keras"), importlib.import_module("tensorflow_model_optimization")
        api = api.sparsity.keras
        for each in NETWORKS:
            trained(keras, api, each, os.path.join(folder, f"{each}.npz"))
        return {each: cost(keras, api, each, pairs) for each in NETWORKS}
    keras, api = importlib.import_module("keras"), importlib.import_module("keras_lth.compat.tfmot")
    return {
        each: cost(keras, api, each, pairs) | masks_differ(api, keras, each, os.path.join(folder, f"{each}.npz"))
        for each in NETWORKS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has TFMOT and tf_keras")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=("ours", "tfmot"), help="of the processes that this program starts")
    parser.add_argument("--folder")
    arguments = parser.parse_args()
    if arguments.side:
        print("\n" + json.dumps(side(arguments.side, arguments.pairs, arguments.folder)))
        return
    from keras_lth import datasets

    with tempfile.TemporaryDirectory() as folder:
        x, y = datasets.load("fashion_mnist").train
        some = slice(0, BATCH * (STEPS + 1))
        np.savez(os.path.join(folder, "images.npz"), x=np.reshape(x[some], (-1, 28, 28, 1)), y=y[some])
        results = {}
        for name, python in (("tfmot", arguments.python), ("ours", sys.executable)):
            command = [python, __file__, f"--side={name}", f"--pairs={arguments.pairs}", f"--folder={folder}"]
            environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"} if name == "tfmot" else dict(os.environ)
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
            results[name] = json.loads(done.stdout.splitlines()[-1])
    columns = ("masked step ms", "ratio", "quartile 1", "quartile 3", "hook ms", "hook / step")
    print(f"{'side':6} {'network':8}" + "".join(f"{column:>16}" for column in columns))
    for name, of in results.items():
        for each, row in of.items():
            print(f"{name:6} {each:8}" + "".join(f"{row[column]:16.2f}" for column in columns))
    for each in NETWORKS:
        row = results["ours"][each]
        print(each, *(f"{row[key]} {key}" for key in ("masks compared", "changes", "bits that differ")), sep=", ")
    if arguments.out:
        import timing

        about = {"pairs": arguments.pairs, "machine": timing.machine()}
        arguments.out.write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
