"""The training loop beside Keras' ``fit`` at its best setting (XLA, 50 steps per execution): LeNet-300-100, batch 60.

Both train the same network on the same data in the same order, an epoch in turns; the ratio of two neighbouring epochs
cancels what the machine does meanwhile. Then 24 000 steps in a process of their own, with start and compilation.

    python benchmarks/loop.py --out loop.json
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timing

WHOLE = "--whole-process"


def whole(data: str) -> None:
    """One training of the thesis' setting through the loop, tested at its end."""
    from keras_lth import datasets, training
    from keras_lth.experiments.lottery import Setting

    config = importlib.import_module("configs.lenet_300_100").thesis(data).to_dict()
    setting = Setting(config)
    x, y = setting.splits.train
    model = setting.model(1)
    training.fit(model, datasets.ordered(x, y, batch_size=config["batch_size"], seed=1), epochs=setting.epochs)
    print(training.evaluate(model, setting.splits.test)["accuracy"], setting.epochs * setting.steps_per_epoch)


def turns(data: str, pairs: int) -> dict[str, float]:
    from keras_lth import datasets, training
    from keras_lth.experiments.lottery import Setting

    config = importlib.import_module("configs.lenet_300_100").thesis(data).to_dict()
    setting = Setting(config)
    x, y = setting.splits.train
    plain, looped = setting.model(1), setting.model(1)
    orders = [datasets.ordered(x, y, batch_size=config["batch_size"], seed=1) for _ in range(2)]
    loop = training.Loop(looped, orders[1])

    def fit(epoch: int) -> None:
        plain.fit(orders[0], initial_epoch=epoch, epochs=epoch + 1, verbose=0, shuffle=False)

    def run(epoch: int) -> None:
        loop.run(epoch * setting.steps_per_epoch, setting.steps_per_epoch, 1)

    seconds: dict[str, list[float]] = {"fit": [], "loop": []}
    for epoch in range(pairs + 1):
        for name, call in (("fit", fit), ("loop", run)) if epoch % 2 else (("loop", run), ("fit", fit)):
            begin = time.perf_counter()
            call(epoch)
            if epoch:  # the first compiles
                seconds[name].append(time.perf_counter() - begin)
    steps = setting.steps_per_epoch
    ratios = [a / b for a, b in zip(seconds["fit"], seconds["loop"], strict=True)]
    return {
        "fit (XLA, 50 steps per execution), steps/s": steps / statistics.median(seconds["fit"]),
        "loop, steps/s": steps / statistics.median(seconds["loop"]),
        "loop is faster by": statistics.median(ratios),
        "quartile 1": statistics.quantiles(ratios, n=4)[0],
        "quartile 3": statistics.quantiles(ratios, n=4)[2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument(WHOLE, action="store_true", help="only the 24 000 steps, in this process")
    arguments = parser.parse_args()
    if arguments.whole_process:
        whole(arguments.data)
        return
    rows = turns(arguments.data, arguments.pairs)
    begin = time.perf_counter()
    command = [sys.executable, __file__, WHOLE, f"--data={arguments.data}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    accuracy, steps = done.stdout.split()
    rows[f"{steps} steps in a process of their own, s"] = time.perf_counter() - begin
    rows["test accuracy after them"] = float(accuracy)
    for name, value in rows.items():
        print(f"{name:50} {value:10.3f}")
    if arguments.out:
        timing.write(arguments.out, {"machine": timing.machine(), "rows": rows})


if __name__ == "__main__":
    main()
