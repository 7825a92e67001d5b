"""The lottery-ticket experiment (thesis 3.3.5, figure 3-7): IMP beside its ablations, level by level.

Arms, each at the densities that IMP passes through:

- ``imp``: the tickets themselves, found through ``model.fit(callbacks=[IMPCallback(...)])``;
- ``reinit``: IMP's masks with newly sampled initial values (random reinitialisation);
- ``random_layerwise``: as many weights per layer as IMP keeps, at random places, newly sampled values;
- ``random_global``: as many weights in all, at random places over the whole network, newly sampled values.

Every training that is finished lies in a file of its own, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import keras

from keras_lth import datasets, files, models, surgery
from keras_lth.callbacks.imp import IMPCallback
from keras_lth.callbacks.journal import Journal
from keras_lth.masks import Masks
from keras_lth.selection import random_like
from keras_lth.tickets import Snapshot

Config = Mapping[str, Any]


def seed_of(config: Config, *what: object) -> int:
    """A stable seed for a part of the experiment, such as ("reinit", replicate, level)."""
    text = "/".join(str(part) for part in (config["seed"], *what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") & 0x7FFFFFFF


class Setting:
    """One config at work: its data, a compiled model, and how it is trained."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.splits = datasets.load(config["data"])
        x, _ = self.splits.train
        self.steps_per_epoch = -(-len(x) // config["batch_size"])
        self.test = datasets.ordered(*self.splits.test, batch_size=1000, seed=0, shuffle=False)
        self.epochs = max(1, round(config["steps"] / self.steps_per_epoch))

    def model(self, seed: int) -> keras.Model:
        """A newly initialised, compiled model; its initial values are a function of ``seed``."""
        x, _ = self.splits.train
        build = getattr(models, self.config["model"], None)
        if build is None:
            raise ValueError(f"model={self.config['model']!r} is not in keras_lth.models: {', '.join(models.__all__)}.")
        model = build(x.shape[1:], self.splits.classes, seed=seed)
        options = dict(self.config["optimizer"])
        optimizer = keras.optimizers.get({"class_name": options.pop("name"), "config": options})
        model.compile(
            optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=self.config["jit_compile"],
            steps_per_execution=self.config["steps_per_execution"],
        )
        return model

    def fit(self, model: keras.Model, order_seed: int, epochs: int, callbacks: list[keras.callbacks.Callback]) -> None:
        """Train on the ordered training set, test after each epoch."""
        x, y = self.splits.train
        model.fit(
            datasets.ordered(x, y, batch_size=self.config["batch_size"], seed=order_seed),
            epochs=epochs,
            validation_data=self.test,
            validation_freq=self.config["validation_freq"],
            shuffle=False,
            callbacks=callbacks,
            verbose=0,
        )


def folder(workdir: files.RunPath, replicate: int, arm: str) -> files.RunPath:
    """Where an arm of a replicate lies."""
    return workdir / f"replicate_{replicate}" / arm


def run_imp(config: Config, workdir: files.RunPath, replicate: int) -> None:
    """The IMP arm of a replicate: one ``fit``."""
    setting = Setting(config)
    imp = IMPCallback(
        rounds=config["levels"],
        epochs_per_round=setting.epochs,
        fraction=config["fraction"],
        rewind_to=config["rewind_to"],
        scope=config["scope"],
        monitor="val_accuracy",
        directory=folder(workdir, replicate, "imp"),
    )
    model = setting.model(seed_of(config, "init", replicate))
    setting.fit(model, seed_of(config, "order", replicate), (config["levels"] + 1) * setting.epochs, [imp])
    print(imp.summary(), flush=True)


def run_ablation(config: Config, workdir: files.RunPath, replicate: int, arm: str) -> None:
    """An arm other than IMP: one training a level, on one model that is rewound to new initial values each time."""
    setting = Setting(config)
    here = folder(workdir, replicate, arm)
    found = Journal(folder(workdir, replicate, "imp"))
    model: keras.Model | None = None
    for level in range(1, config["levels"] + 1):
        path = here / f"level_{level:02d}.json"
        if path.exists():
            continue
        masks = ablated(found.ticket(level).masks, arm, seed_of(config, arm, "masks", replicate, level))
        if model is None:
            model = setting.model(seed_of(config, arm, "init", replicate, level))
        surgery.mask(model, masks)
        fresh = setting.model(seed_of(config, arm, "init", replicate, level))
        surgery.rewind(model, Snapshot(surgery.snapshot(fresh).weights), masks)
        record = EpochRecord()
        began = time.perf_counter()
        setting.fit(model, seed_of(config, arm, "order", replicate, level), setting.epochs, [record])
        row = {
            "level": level,
            "density": masks.density,
            "remaining": masks.remaining,
            "steps": setting.epochs * setting.steps_per_epoch,
            "seconds": time.perf_counter() - began,
            "epochs": record.rows,
        }
        files.write_atomic(path, (json.dumps(row, indent=1) + "\n").encode())
        print(
            f"{arm} replicate {replicate} level {level}: density {masks.density:.1%}, "
            f"accuracy {record.rows[-1]['val_accuracy']:.4f}",
            flush=True,
        )


def ablated(masks: Masks, arm: str, seed: int) -> Masks:
    """The masks of an arm at a level, from IMP's."""
    if arm == "reinit":
        return masks
    return random_like(masks, seed, scope="layer" if arm == "random_layerwise" else "global")


class EpochRecord(keras.callbacks.Callback):
    """The logs of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keep them."""
        self.rows.append({"epoch": epoch, **{name: float(value) for name, value in (logs or {}).items()}})
