"""A small IMP run in a folder, to be killed and started again: prints what it ends with, as JSON.

python -m tests.training.killed_program FOLDER [STEPS_PER_CALL]
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_lth as lth
from keras_lth import datasets, surgery, training

ROUNDS, EPOCHS, STEPS = 2, 2, 4  # prunings; epochs of a training; batches of an epoch
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(16 * STEPS, 8)).astype(np.float32)
Y = (X[:, :3] + 0.5 * RANDOM.normal(size=(len(X), 3))).argmax(axis=1)


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(12, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.1, seed=1),
            keras.layers.Dense(3),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def run(folder: Path, *, steps_per_call: int = 3, jit_compile: bool | None = None) -> dict[str, Any]:
    """The whole run, or the rest of it; a commit after every call. What it ends with, whatever happened before."""
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=0.3, factor=0.5)
    imp = lth.IMPCallback(
        rounds=ROUNDS, epochs_per_round=EPOCHS, rewind_to="3 steps", verbose=0, directory=folder / "imp",
        callbacks=[plateau],
    )  # fmt: skip
    model = network()
    history = training.fit(
        model, datasets.ordered(X, Y, batch_size=16, seed=5), epochs=(1 + ROUNDS) * EPOCHS, validation_data=(X, Y),
        callbacks=[imp], steps_per_call=steps_per_call, jit_compile=jit_compile, checkpoints=folder / "commits",
        checkpoint_every=0,
    )  # fmt: skip
    state = surgery.snapshot(model)
    return {
        "weights": digest(state.weights),
        "optimizer": digest(state.optimizer),
        "step": state.step,
        "seeds": digest(state.seeds),
        "metrics": digest({str(i): variable.numpy() for i, variable in enumerate(model.metrics_variables)}),
        "masks": [imp.masks(level).digest for level in range(ROUNDS + 1)],
        "worn": digest(surgery.masks_of(model)),
        "tickets": [digest({**t.masks, **dict(t.snapshot.named())}) for t in map(imp.ticket, range(ROUNDS + 1))],
        "levels": [{**level.as_dict(), "seconds": 0} for level in imp.history],
        "rows": [{**row, "seconds": 0} for row in imp.rows()],
        "history": history.history,
        "epochs": history.epoch,
        "plateau": [plateau.wait, plateau.cooldown_counter, plateau.best],
    }


def digest(arrays: Mapping[str, Any]) -> str:
    """Of names, types, shapes and bytes."""
    found = hashlib.sha256()
    for path, value in arrays.items():
        array = np.asarray(value)
        found.update(f"{path} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return found.hexdigest()


def main(folder: str, steps_per_call: str = "3") -> None:
    print("begins", flush=True)
    print(json.dumps(run(Path(folder), steps_per_call=int(steps_per_call))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
