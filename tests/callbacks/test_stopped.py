"""Stop button, the same cell again, a new kernel, another recipe in the same folder."""

from __future__ import annotations

import gc
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from tests.callbacks.small import X, Y, data, fit, model, unvalidated, weights
from tests.callbacks.test_imp_resume import same


class Stop(keras.callbacks.Callback):
    """The stop button in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.at, self.now = epoch, -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.now, batch) == (self.at, 2):
            raise KeyboardInterrupt


def new(folder: Path | None, **options: Any) -> lth.IMPCallback:
    return lth.IMPCallback(**{"rounds": 2, "epochs_per_round": 1, "directory": folder, "verbose": 0, **options})


def interrupted(built: keras.Model, callback: Any, epoch: int, epochs: int = 3) -> None:
    with pytest.raises(KeyboardInterrupt):
        unvalidated(built, callback, epochs, beside=[Stop(epoch)])


@dataclass(frozen=True)
class Ran:
    """Runs of `new` that all tests here take copies of the folders of: one that was never stopped, and one that was.

    ``cut`` only where each level begins from rewound weights.
    """

    whole: lth.IMPCallback
    weights: list[np.ndarray]
    cut: Path

    def copy(self, folder: Path, *, whole: bool) -> None:
        origin = self.whole.directory if whole else self.cut
        shutil.copytree(origin, folder, ignore=shutil.ignore_patterns(".lock"), dirs_exist_ok=True)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """By what is kept."""
    found = {}
    for keep in ("rewind", "trained"):
        folder = tmp_path_factory.mktemp(keep)
        unvalidated(built := model(), run := new(folder / "whole", keep=keep), 3)
        if keep == "rewind":
            interrupted(model(), new(folder / "cut"), 1)
        found[keep] = Ran(run, weights(built), folder / "cut")
    return found


@pytest.mark.parametrize(
    ("epoch", "kernel", "keep"),
    [
        (0, "same", "rewind"), (1, "stopped twice", "trained"), (2, "new", "rewind"),
        *(
            pytest.param(*cell, marks=pytest.mark.proof)
            for cell in ((0, "new", "trained"), (1, "same", "rewind"), (2, "same", "trained"))
        ),
    ],
)  # fmt: skip
def test_the_same_cell_again_ends_as_if_it_had_not_been_stopped(
    ran: dict[str, Ran], tmp_path: Path, epoch: int, kernel: str, keep: str
) -> None:
    expected = ran[keep].whole
    built = model()
    interrupted(built, new(tmp_path / "cut", keep=keep), epoch)
    if kernel == "new":
        built = model(seed=5)  # its weights are not those of the run: the folder's count
    if kernel == "stopped twice":
        interrupted(built, new(tmp_path / "cut", keep=keep), epoch)
    again = new(tmp_path / "cut", keep=keep)
    unvalidated(built, again, 3)
    same(built, ran[keep].weights)
    assert [again.masks(r).digest for r in range(3)] == [expected.masks(r).digest for r in range(3)]
    assert [level.score for level in again.history] == [level.score for level in expected.history]
    # Once more: it is finished and says so.
    assert unvalidated(built, new(tmp_path / "cut", keep=keep), 3).epoch == []


def test_without_a_folder_it_says_where_it_starts(capsys: pytest.CaptureFixture[str]) -> None:
    built = model()
    interrupted(built, new(None), 2)
    density = lth.masks_of(built).density
    assert density < 0.7
    unvalidated(built, imp := new(None, verbose=1), 3)
    first, *lines = capsys.readouterr().out.strip().splitlines()
    assert f"first (density {density:.1%})" in first and "rewinding to its current weights" in first
    # Of masks the report says "left dense"; the run itself is called first, not dense.
    assert not any("dense" in line.replace("left dense", "") for line in [first, *lines])
    assert imp.summary().splitlines()[1].split()[4] == "first"
    # Trained without masks: dense, and not at its initialisation.
    trained = model()
    trained.fit(X, Y, epochs=1, verbose=0)
    unvalidated(trained, new(None, rounds=1, verbose=1), 2)
    text = capsys.readouterr().out
    assert "1 dense epoch" in text and "rewinding to its current weights" in text
    unvalidated(model(), new(None, rounds=1, verbose=1), 2)
    assert "rewinding to initialisation" in capsys.readouterr().out


def test_masks_of_a_users_own_are_not_taken_for_the_runs(ran: dict[str, Ran], tmp_path: Path) -> None:
    ran["rewind"].copy(tmp_path, whole=True)
    built = model()
    lth.mask(built, {"dense/kernel": np.arange(96).reshape(8, 12) % 3 > 0})
    before = weights(built)
    with pytest.raises(ValueError, match=r"do not belong to the run in .*lth.unmask\(model\).*resume=False"):
        unvalidated(built, new(tmp_path), 3)
    for old, now in zip(before, weights(built), strict=True):
        np.testing.assert_array_equal(old, now)


def test_a_run_that_begins_masked_is_continued_by_a_model_without_masks(tmp_path: Path) -> None:
    half = {"dense/kernel": np.arange(96).reshape(8, 12) % 2 > 0}
    whole, cut = model(), model()
    lth.mask(whole, half)
    lth.mask(cut, half)
    unvalidated(whole, new(tmp_path / "whole"), 3)
    interrupted(cut, new(tmp_path / "cut"), 1)
    unvalidated(again := model(seed=4), imp := new(tmp_path / "cut"), 3)
    same(again, whole)
    assert [level.remaining for level in imp.history] == [96, 77, 62]


@pytest.mark.parametrize("kind", ["imp", "instability"])
def test_an_interrupted_model_is_usable(tmp_path: Path, kind: str) -> None:
    built = model()
    made = {
        "imp": lambda: new(tmp_path / "imp"),
        "instability": lambda: lth.InstabilityCallback(
            "2 steps", data={"t": (X, Y)}, points=2, directory=tmp_path / "instability", verbose=0
        ),
    }[kind]
    interrupted(built, made(), 1)
    masks = lth.masks_of(built)
    assert len(built.fit(X, Y, epochs=2, verbose=0).epoch) == 2
    assert lth.masks_of(built) == masks
    # The same cell again, while the traceback of the first may still hold its frames.
    try:
        unvalidated(built, made(), 3, beside=[Stop(1)])
    except KeyboardInterrupt as held:
        unvalidated(built, made(), 3)
        assert held.__traceback__ is not None
    del built
    gc.collect()


def test_what_watches_the_batches_is_taken_off_once_nobody_holds_the_fit() -> None:
    built = model()
    for _ in range(2):
        interrupted(built, lth.InstabilityCallback(data={"t": (X, Y)}, verbose=0), 0)
    gc.collect()
    assert "train_step" not in vars(built)


def test_another_model_in_a_second_fit(tmp_path: Path) -> None:
    imp = new(tmp_path, rounds=1)
    unvalidated(first := model(), imp, 2)
    unvalidated(second := model(seed=9), imp, 2)
    same(first, second)


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


RECIPES: dict[str, tuple[dict[str, Any], str]] = {
    "rate": ({"optimizer": lambda: keras.optimizers.Adam(0.1)}, r"optimizer\.learning_rate: 0\.001 there, 0\.1 here"),
    "schedule": (
        {"optimizer": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.001, 9))},
        r"optimizer\.learning_rate",
    ),
    "momentum": ({"optimizer": lambda: keras.optimizers.Adam(beta_1=0.5)}, r"beta_1: 0\.9 there, 0\.5 here"),
    "clipping": ({"optimizer": lambda: keras.optimizers.Adam(clipnorm=1.0)}, r"clipnorm: null there, 1\.0 here"),
    "optimizer": ({"optimizer": lambda: keras.optimizers.SGD(0.001)}, r'class: "Adam" there, "SGD" here'),
    "wrapped": (
        {"optimizer": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())},
        '"Adam" there, "LossScaleOptimizer" here',
    ),
    "loss": ({"loss": "sparse_categorical_crossentropy"}, "loss"),
    "logits": ({"loss": keras.losses.SparseCategoricalCrossentropy()}, r"loss\.from_logits: true there, false here"),
    "metrics": ({"metrics": ["accuracy", "sparse_top_k_categorical_accuracy"]}, "metrics"),
}


@pytest.mark.parametrize(("number", "name"), list(enumerate(RECIPES)))
def test_another_recipe_in_the_same_folder_is_refused(
    ran: dict[str, Ran], tmp_path: Path, number: int, name: str
) -> None:
    ran["rewind"].copy(tmp_path, whole=number % 2 == 1)
    options, match = RECIPES[name]
    built = model()
    built.compile(
        options.get("optimizer", keras.optimizers.Adam)(),
        loss=options.get("loss", keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        metrics=options.get("metrics", ["accuracy"]),
    )
    before = files_in(tmp_path)
    with pytest.raises(ValueError, match=rf"another run \(.*{match}.*resume=False"):
        unvalidated(built, new(tmp_path, rounds=3), 4)
    assert int(built.optimizer.iterations.numpy()) == 0
    assert files_in(tmp_path) == before
    if number < 2:  # of a run that was stopped and of one that was not
        unvalidated(built, imp := new(tmp_path, resume=False), 3)
        assert len(imp.history) == 3


def test_other_steps_and_another_judge_are_refused(tmp_path: Path) -> None:
    fit(model(), new(tmp_path), 3)
    with pytest.raises(ValueError, match="steps_per_epoch: 6 there, 3 here"):
        model().fit(X, Y, batch_size=32, epochs=3, validation_data=(X, Y), callbacks=[new(tmp_path)], verbose=0)
    with pytest.raises(ValueError, match="monitor: 'val_accuracy' there, 'val_loss' here"):
        fit(model(), new(tmp_path, rounds=3, monitor="val_loss"), 4)
    # A finished run loads without its validation data.
    unvalidated(built := model(), imp := new(tmp_path), 3)
    assert imp.history[-1].monitor == "val_accuracy" and lth.masks_of(built) == imp.masks(2)


def test_a_rate_that_a_scheduler_left_is_no_other_recipe(tmp_path: Path) -> None:
    def made() -> lth.IMPCallback:
        falls = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1 / (epoch + 1))
        return new(tmp_path, epochs_per_round=2, callbacks=[falls])

    built = model(lambda: keras.optimizers.SGD(0.1))
    interrupted(built, made(), 3, 6)
    assert float(built.optimizer.learning_rate.numpy()) == pytest.approx(0.05)
    unvalidated(built, imp := made(), 6)
    assert len(imp.history) == 3


def test_data_is_where_a_resumed_run_wants_it(ran: dict[str, Ran], tmp_path: Path) -> None:
    order = data()
    built = model()
    with pytest.raises(KeyboardInterrupt):
        built.fit(order, epochs=3, callbacks=[new(tmp_path), Stop(1)], verbose=0, shuffle=False)
    built.fit(order, epochs=3, callbacks=[new(tmp_path)], verbose=0, shuffle=False)
    same(built, ran["rewind"].weights)
