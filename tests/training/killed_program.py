"""A small IMP run in a folder, to be killed and started again: prints what it ends with.

python tests/training/killed_program.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import keras

import keras_lth as lth
from keras_lth import surgery, training
from tests.training.networks import X, Y, examples, network


def main(folder: Path) -> None:
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=50)
    imp = lth.IMPCallback(
        rounds=3, epochs_per_round=4, rewind_to="5 steps", verbose=0, directory=folder / "imp", callbacks=[stop]
    )
    model = network(dropout=0.1)
    print("begins", flush=True)
    history = training.fit(
        model, examples(), epochs=16, validation_data=(X, Y), callbacks=[imp], steps_per_call=3,
        checkpoints=folder / "commits", checkpoint_every=0,
    )  # fmt: skip
    state = surgery.snapshot(model)
    digest = hashlib.sha256()
    for part in ("weights", "optimizer", "seeds"):
        for path, value in getattr(state, part).items():
            digest.update(path.encode() + value.tobytes())
    levels = [(level.round, level.remaining, level.steps, level.logs) for level in imp.history]
    masks = [hashlib.sha256(b"".join(mask.tobytes() for mask in imp.masks(n).values())).hexdigest() for n in range(4)]
    lines = (folder / "imp" / "metrics.jsonl").read_text()
    print(
        json.dumps([digest.hexdigest(), levels, masks, history.history, lines, stop.wait, float(stop.best)]), flush=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
