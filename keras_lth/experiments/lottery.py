"""The lottery-ticket experiment (thesis 3.3.5, figure 3-7): IMP beside its ablations, level by level.

Arms, each at the densities that IMP passes through:

- ``imp``: the tickets themselves, found through ``model.fit(callbacks=[IMPCallback(...)])``;
- ``reinit``: IMP's masks with newly sampled initial values (random reinitialisation);
- ``random_layerwise``: as many weights per layer as IMP keeps, at random places, newly sampled values;
- ``random_global``: as many weights in all, at random places over the whole network, newly sampled values.

Every training that is finished lies in a file of its own, and one under way in checkpoints, so the same command goes on
where it was stopped, inside a training too.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_lth import datasets, files, models, surgery, training
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
    """One config at work: its data, a compiled model, and how it is trained, under a strategy or on one device."""

    def __init__(self, config: Config, strategy: tf.distribute.Strategy | None = None) -> None:
        self.config = config
        self.strategy = strategy or tf.distribute.get_strategy()
        self.hosts = surgery.Hosts(self.strategy)
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
        with self.strategy.scope():
            model = build(x.shape[1:], self.splits.classes, seed=seed, **self.config.get("model_options", {}))
            options = dict(self.config["optimizer"])
            kind = type(keras.optimizers.get(options.pop("name")))
            model.compile(
                kind(**options | {"learning_rate": self._rate()}),
                loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
                jit_compile="auto" if self.config["jit_compile"] is None else self.config["jit_compile"],
                steps_per_execution=self.config["steps_per_execution"],
            )
        return model

    def _rate(self) -> Any:
        """The learning rate: constant, or multiplied by ``schedule.factor`` at each step of ``schedule.drops``."""
        first, schedule = self.config["optimizer"]["learning_rate"], self.config.get("schedule")
        if not schedule:
            return first
        drops, factor = list(schedule["drops"]), schedule["factor"]
        rates = [first * factor**i for i in range(len(drops) + 1)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(drops, rates)

    def fit(
        self,
        model: keras.Model,
        order_seed: int,
        epochs: int,
        callbacks: list[keras.callbacks.Callback],
        checkpoints: files.RunPath,
    ) -> None:
        """Train on the ordered training set, test after each epoch; what is under way is kept in ``checkpoints``."""
        x, y = self.splits.train
        training.fit(
            model,
            datasets.ordered(
                x, y, batch_size=self.config["batch_size"], seed=order_seed, augment=self.config.get("augment")
            ),
            epochs=epochs,
            validation_data=self.test,
            validation_freq=self.config["validation_freq"],
            callbacks=callbacks,
            steps_per_call=self.config["steps_per_execution"],
            jit_compile=self.config["jit_compile"],
            checkpoints=checkpoints,
            checkpoint_every=self.config.get("checkpoint_every", 60.0),
        )


def folder(workdir: files.RunPath, replicate: int, arm: str) -> files.RunPath:
    """Where an arm of a replicate lies."""
    return workdir / f"replicate_{replicate}" / arm


def run_imp(
    config: Config, workdir: files.RunPath, replicate: int, strategy: tf.distribute.Strategy | None = None
) -> None:
    """The IMP arm of a replicate: one ``fit``."""
    setting = Setting(config, strategy)
    here = folder(workdir, replicate, "imp")
    imp = IMPCallback(
        rounds=config["levels"],
        epochs_per_round=setting.epochs,
        fraction=config["fraction"],
        rewind_to=config["rewind_to"],
        scope=config["scope"],
        monitor="val_accuracy",
        directory=here,
    )
    model = setting.model(seed_of(config, "init", replicate))
    epochs, checkpoints = (config["levels"] + 1) * setting.epochs, here / "checkpoints"
    setting.fit(model, seed_of(config, "order", replicate), epochs, [imp], checkpoints)
    if setting.hosts.chief:
        checkpoints.clear()  # the folder of the callback has all of a finished run
        print(imp.summary(), flush=True)


def run_ablation(
    config: Config, workdir: files.RunPath, replicate: int, arm: str, strategy: tf.distribute.Strategy | None = None
) -> None:
    """An arm other than IMP: one training a level, on one model that is rewound to new initial values each time."""
    setting = Setting(config, strategy)
    here = folder(workdir, replicate, arm)
    found = Journal(folder(workdir, replicate, "imp"))
    model: keras.Model | None = None
    for level in range(1, config["levels"] + 1):
        path = here / f"level_{level:02d}.json"
        checkpoints = here / f"checkpoints_{level:02d}"
        if setting.hosts.of_chief(int(path.exists())):
            if setting.hosts.chief:
                checkpoints.clear()
            continue
        masks = ablated(found.ticket(level).masks, arm, seed_of(config, arm, "masks", replicate, level))
        if model is None:
            model = setting.model(seed_of(config, arm, "init", replicate, level))
        surgery.mask(model, masks)
        fresh = setting.model(seed_of(config, arm, "init", replicate, level))
        surgery.rewind(model, Snapshot(surgery.snapshot(fresh).weights), masks)
        record = EpochRecord()
        began = time.perf_counter()
        setting.fit(model, seed_of(config, arm, "order", replicate, level), setting.epochs, [record], checkpoints)
        if not setting.hosts.chief:
            continue
        row = {
            "level": level,
            "density": masks.density,
            "remaining": masks.remaining,
            "steps": setting.epochs * setting.steps_per_epoch,
            "seconds": time.perf_counter() - began,
            "epochs": record.rows,
        }
        files.write_atomic(path, (json.dumps(row, indent=1) + "\n").encode())
        checkpoints.clear()
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
