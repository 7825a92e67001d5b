"""One worker of a small IMP run, or all of it on one device; may strike itself. Run by test_workers.py.

python -m tests.training.workers_program '{"workers": ["localhost:5000", …], "index": 0, "folder": …, …}'
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from keras_lth.training import strategies

WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")


def watched(folder: Path) -> list[str]:
    """What this process writes under ``folder`` from now on."""
    seen: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writes and str(arguments[0]).startswith(str(folder)):
            seen.append(f"{event} {Path(str(arguments[0])).name}")

    sys.addaudithook(hook)
    return seen


def make(task: dict[str, Any]) -> Any:
    if not task["workers"]:
        return strategies.make("none")
    return strategies.make("multiworker", workers=task["workers"], index=task["index"], timeout=60)


def parts(strategy: Any, strike: list[Any] | None) -> tuple[Any, Any, list[Any]]:
    """Model, plateau and a callback that ends this process by a signal at its n-th batch hook."""
    import keras

    class Strike(keras.callbacks.Callback):
        count = 0
        rates: tuple[float, ...] = ()

        def get_state(self) -> Any:
            return {"rates": list(self.rates)}, {}

        def set_state(self, state: Any, arrays: Any) -> None:
            self.rates = tuple(state["rates"])

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.rates += (float(self.model.optimizer.learning_rate.numpy()),)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.count += 1
            if strike is not None and self.count == strike[0]:
                os.kill(os.getpid(), getattr(signal, strike[1]))

    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(2)])
        model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"], jit_compile=False)
    # Where the loss falls this reduces the rate after each epoch but the first of a round.
    plateau = keras.callbacks.ReduceLROnPlateau("val_loss", mode="max", factor=0.5, patience=1, min_delta=0)
    return model, plateau, [Strike()]


def data(seed: int = 1) -> tuple[Any, Any, Any]:
    import numpy as np

    from keras_lth import datasets

    x = np.random.default_rng(0).normal(size=(96, 6)).astype(np.float32)
    y = (x[:, :2] ** 2).astype(np.float32)
    return x, y, datasets.ordered(x, y, batch_size=12, seed=seed)


def run(task: dict[str, Any], strategy: Any) -> dict[str, Any]:
    folder = Path(task["folder"])
    wrote = watched(folder) if task["workers"] else []
    import numpy as np

    import keras_lth as lth
    from keras_lth import surgery, training

    model, plateau, struck = parts(strategy, task.get("strike"))
    imp = lth.IMPCallback(
        rounds=2, epochs_per_round=2, rewind_to="3 steps", directory=folder / "imp", callbacks=[plateau], verbose=0
    )
    x, y, examples = data()
    history = training.fit(
        model, examples, epochs=6, steps_per_call=3, validation_data=(x, y), callbacks=[imp, *struck],
        checkpoints=folder / "commits", checkpoint_every=0, jit_compile=False,
    )  # fmt: skip
    state = surgery.snapshot(model)
    digest = hashlib.sha256()
    for part in ("weights", "optimizer", "seeds"):
        for path, value in getattr(state, part).items():
            digest.update(path.encode() + value.tobytes())
    return {
        "digest": digest.hexdigest(),
        "masks": [hashlib.sha256(b"".join(m.tobytes() for m in imp.masks(n).values())).hexdigest() for n in range(3)],
        "weights": {path: np.asarray(value).ravel().tolist() for path, value in state.weights.items()},
        "history": history.history,
        "levels": [[level.round, level.remaining, level.steps, level.logs] for level in imp.history],
        "rates": struck[0].rates,
        "plateau": [plateau.wait, float(plateau.best)],
        "wrote": list(wrote),
        "combined": combined(strategy) if task.get("combined") else None,
    }


def refusals(task: dict[str, Any], strategy: Any) -> dict[str, Any]:
    """What is said when the workers do not run the same, and what they can do after all this."""
    from keras_lth import training

    index, folder = task["index"], Path(task["folder"]) / "refused"
    said = {}
    for name, options, own, seed in (
        ("seed", {}, "shared", 1 + index),
        ("steps_per_call", {"steps_per_call": 3 + index}, "shared", 1),
        ("callbacks", {}, "shared", 1),
        ("folder", {}, f"own_{index}", 1),
        ("chief", {}, "/dev/null", 1),
    ):
        model, plateau, struck = parts(strategy, None)
        callbacks = struck if name != "callbacks" or index == 0 else [plateau, *struck]
        try:
            training.fit(model, data(seed)[2], epochs=1, callbacks=callbacks, checkpoints=folder / own, **options)
            said[name] = "nothing"
        except (RuntimeError, OSError) as error:
            said[name] = f"{type(error).__name__}: {error}"
    # After all this both can still train, here on files that they share.
    import tensorflow as tf

    from keras_lth import datasets

    x, y, _ = data()
    model, _, struck = parts(strategy, None)
    files = [
        datasets.from_files(
            lambda index, count: tf.data.Dataset.from_tensor_slices((x, y)).shard(count, index),
            batch_size=12, seed=1, shuffle=shuffle, hosts=2, host=index,
        )
        for shuffle in (True, False)
    ]  # fmt: skip
    history = training.fit(model, files[0], epochs=2, callbacks=struck, checkpoints=folder / "shared")
    wrote = watched(folder / "analysed")
    return {
        "instability": instability(strategy, folder / "analysed"),
        "wrote": wrote,
        "combined": combined(strategy),
        "said": said,
        "losses": history.history["loss"],
        "evaluated": [training.evaluate(model, examples, batch_size=12) for examples in (files[1], (x, y))],
    }


def collected() -> None:
    """What one worker has not collected yet must not matter to the others: one collects here, the other never."""
    if gc.isenabled():
        gc.collect()


def combined(strategy: Any) -> dict[str, Any]:
    """XLA, accumulation, clipping and masks at once: weights at the end, and the worst of what is masked."""
    import keras
    import numpy as np

    import keras_lth as lth
    from keras_lth import surgery, training

    collected()
    model, _, _ = parts(strategy, None)
    optimizer = {"momentum": 0.9, "gradient_accumulation_steps": 2, "global_clipnorm": 0.5}
    with strategy.scope():
        model.compile(keras.optimizers.SGD(0.1, **optimizer), "mse", jit_compile=True)
    masks = lth.mask(model, lth.select(lth.criteria.Magnitude()(model), density=0.5))
    training.fit(model, data()[2], epochs=3, steps_per_call=5)
    weights = surgery.snapshot(model).weights
    return {
        "weights": {path: np.asarray(value).ravel().tolist() for path, value in weights.items()},
        "masked": max(float(np.abs(weights[path][~mask]).max()) for path, mask in masks.items()),
    }


def instability(strategy: Any, folder: Path) -> dict[str, Any]:
    """Two trainings that part at step 3, compared on 96 examples, which batches of 7 cut unevenly."""
    import keras_lth as lth
    from keras_lth import training

    collected()
    model, _, _ = parts(strategy, None)
    x, y, examples = data()
    found = lth.InstabilityCallback(
        fork_at=3, data={"all": (x, y)}, metric="mae", points=4, batch_size=7, directory=folder, verbose=0
    )
    training.fit(model, examples, epochs=4, callbacks=[found])
    (result,) = found.results
    return {"errors": list(result.path.errors), "held": training.evaluate(model, (x, y))["mae"]}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given["index"] == 1:
        gc.disable()
    under = make(given)
    ended = run(given, under)
    print("RESULT " + json.dumps({"run": ended, "refused": refusals(given, under) if given.get("refusals") else None}))
