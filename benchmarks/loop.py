"""Compare the training loop with Keras' ``fit`` at its best setting: LeNet-300-100 at batch 60, ResNet-20 at batch 128.

Both train the same network on the same data in the same order, alternating after each epoch. The ratio of two
neighbouring epochs cancels other load on the machine. XLA compiles LeNet's ``fit``, with 50 steps per execution.
ResNet-20, on the first 1 280 images, is timed with and without XLA, and the faster loop is compared with the faster
``fit``. Then 24 000 steps of LeNet run in a separate process, started like the program, with imports, compilation and a
test at the end.

    python benchmarks/loop.py --out loop.json
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timing

from keras_lth.configs import lenet_300_100

WHOLE = "--whole-process"


def whole(data: str) -> None:
    """One training of the thesis' setting through the loop, tested at its end."""
    from keras_lth.bin import quick_imports, set_xla_flags

    with quick_imports():
        from setting import Setting

        from keras_lth import datasets, training
    set_xla_flags()

    config = lenet_300_100.get_config(data).to_dict()
    setting = Setting(config)
    x, y = setting.splits.train
    model = setting.model(1)
    training.fit(model, datasets.ordered(x, y, batch_size=config["batch_size"], seed=1), epochs=setting.epochs)
    print(training.evaluate(model, setting.test)["accuracy"], setting.epochs * setting.steps_per_epoch)


def in_turns(calls: dict[str, Callable[[int], None]], pairs: int) -> dict[str, list[float]]:
    """Seconds of each call; all of them in turn, in an order that changes, after one round that compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for epoch in range(pairs + 1):
        for name in names if epoch % 2 else names[::-1]:
            begin = time.perf_counter()
            calls[name](epoch)
            if epoch:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def beside(fit: list[float], loop: list[float]) -> dict[str, float]:
    ratios = [a / b for a, b in zip(fit, loop, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    return {"loop is faster by": statistics.median(ratios), "quartile 1": quartiles[0], "quartile 3": quartiles[2]}


def contestants(config: dict[str, Any], examples: int | None, jit: bool, name: str) -> dict[str, Callable[[int], None]]:
    """An epoch of ``fit`` and an epoch of the loop, on networks of their own."""
    from setting import Setting

    from keras_lth import datasets, training

    setting = Setting({**config, "jit_compile": jit})
    x, y = (part[:examples] for part in setting.splits.train)
    plain, looped = setting.model(1), setting.model(1)
    orders = [datasets.ordered(x, y, batch_size=config["batch_size"], seed=1) for _ in range(2)]
    loop = training.Loop(looped, orders[1], jit_compile=jit)
    steps = orders[0].steps_per_epoch

    def fit(epoch: int) -> None:
        plain.fit(orders[0], initial_epoch=epoch, epochs=epoch + 1, verbose=0, shuffle=False)

    def run(epoch: int) -> None:
        loop.run(epoch * steps, steps, 1)
        np.asarray(looped.trainable_variables[0])  # waits for the last step

    return {f"fit{name}": fit, f"loop{name}": run}


def lenet(data: str, pairs: int) -> dict[str, float]:
    config = lenet_300_100.get_config(data).to_dict()
    seconds = in_turns(contestants(config, None, True, ""), pairs)
    steps = 60_000 // config["batch_size"] if data != "digits" else 24
    return {
        "LeNet: fit (XLA, 50 steps per execution), steps/s": steps / statistics.median(seconds["fit"]),
        "LeNet: loop, steps/s": steps / statistics.median(seconds["loop"]),
        **{f"LeNet: {name}": value for name, value in beside(seconds["fit"], seconds["loop"]).items()},
    }


def resnet(data: str, pairs: int, examples: int) -> dict[str, float]:
    config = importlib.import_module(f"keras_lth.configs.resnet_20_{data}").get_config().to_dict()
    calls = contestants(config, examples, False, "") | contestants(config, examples, True, ", XLA")
    seconds = in_turns(calls, pairs)
    steps = examples // config["batch_size"]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = {kind: min((n for n in medians if n.startswith(kind)), key=medians.__getitem__) for kind in ("fit", "loop")}
    return {
        **{f"ResNet-20: {name}, steps/s": steps / value for name, value in medians.items()},
        **{f"ResNet-20: {n}": v for n, v in beside(seconds[best["fit"]], seconds[best["loop"]]).items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--images", type=int, default=1280, help="images per epoch of ResNet-20")
    parser.add_argument(
        "--deterministic", action="store_true", help="call tf.config.experimental.enable_op_determinism()"
    )
    parser.add_argument(
        "--processes", type=int, default=5, help="number of processes that each run a whole training, one after another"
    )
    parser.add_argument(WHOLE, action="store_true", help="run only the 24 000 steps, in this process")
    arguments = parser.parse_args()
    if arguments.whole_process:
        whole(arguments.data)
        return
    if arguments.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    rows = lenet(arguments.data, arguments.pairs)
    if arguments.data == "fashion_mnist":
        rows |= resnet(arguments.data, arguments.pairs, arguments.images)
    command = [sys.executable, __file__, WHOLE, f"--data={arguments.data}"]
    seconds = []
    for _ in range(arguments.processes):
        begin = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds.append(time.perf_counter() - begin)
    if seconds:
        accuracy, steps = done.stdout.split()
        rows[f"{steps} steps in a process of their own, the least, s"] = min(seconds)
        rows["the same, the most, s"] = max(seconds)
        rows["test accuracy after them"] = float(accuracy)
    for name, value in rows.items():
        print(f"{name:60} {value:10.3f}")
    if arguments.out:
        timing.write(arguments.out, {"machine": timing.machine(), "rows": rows})


if __name__ == "__main__":
    main()
