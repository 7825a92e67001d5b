from __future__ import annotations

import copy
import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import files, plans
from keras_lth.store import Store, check
from tests.callbacks.small import fit, model, unvalidated, weights
from tests.forms import short_if


class StopHere(Exception):
    """Stands for a crash."""


class Crash(keras.callbacks.Callback):
    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.at = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.model.optimizer.iterations.numpy() and self.at == self.epoch and batch == 2:
            raise StopHere

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch


def imp(folder: Path, **options: Any) -> lth.IMPCallback:
    return lth.IMPCallback(**{"rounds": 3, "epochs_per_round": 2, "directory": folder, "verbose": 0, **options})


def same(a: keras.Model, b: keras.Model | list[np.ndarray]) -> None:
    for x, y in zip(weights(a), b if isinstance(b, list) else weights(b), strict=True):
        np.testing.assert_array_equal(x, y)


@dataclass(frozen=True)
class Finished:
    """A run of `imp` that was never stopped, trained once for all tests; they write into a copy of its folder."""

    run: lth.IMPCallback
    weights: list[np.ndarray]

    def copy(self, folder: Path) -> Path:
        return shutil.copytree(self.run.directory, folder, ignore=shutil.ignore_patterns(".lock"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    built, run = model(), imp(tmp_path_factory.mktemp("whole") / "run")
    unvalidated(built, run, 8)
    return Finished(run, weights(built))


def without_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seconds"}


OPTIONS: list[dict[str, Any]] = [
    {"rewind_to": "1 epoch"}, {"keep": "trained"}, {"rewind_to": 3, "restore_optimizer": True},
]  # fmt: skip


# Stopped in the dense training and in a round; what keeps trained weights is stopped in test_stopped.py.
SHORT = [(OPTIONS[0], 1), (OPTIONS[2], 4)]


@pytest.mark.parametrize(
    ("options", "epoch"),
    short_if(lambda *cell: cell in SHORT, [(options, epoch) for options in OPTIONS for epoch in (1, 3, 4)]),
)
def test_a_stopped_run_ends_as_one_that_was_never_stopped(tmp_path: Path, options: dict[str, Any], epoch: int) -> None:
    whole = model()
    expected = imp(tmp_path / "whole", **options)
    fit(whole, expected, 8)
    with pytest.raises(StopHere):
        fit(model(), imp(tmp_path / "cut", **options), 8, beside=[Crash(epoch)])
    # A new process has another model: the folder's counts.
    again = model(seed=5)
    resumed = imp(tmp_path / "cut", **options)
    fit(again, resumed, 8)
    same(again, whole)
    assert [r.masks(3).digest for r in (resumed, expected)] == [expected.masks(3).digest] * 2
    keep = ("round", "density", "remaining", "steps", "score", "matching", "logs")
    rows = [[{k: level.as_dict()[k] for k in keep} for level in run.history] for run in (resumed, expected)]
    assert rows[0] == rows[1]
    # Every value of the two stores, but for the seconds that it took.
    first, second = (Store(tmp_path / name) for name in ("whole", "cut"))
    assert first.names() == second.names()
    for name in first.names():
        a, b = first.get(name), second.get(name)
        assert a.arrays.keys() == b.arrays.keys(), name
        assert all(a.arrays[key].tobytes() == b.arrays[key].tobytes() for key in a.arrays), name
        assert [without_seconds(row) for row in a.rows] == [without_seconds(row) for row in b.rows], name
    assert expected.ticket(3).snapshot.same_bits(resumed.ticket(3).snapshot)
    assert all(expected.trained(level).same_bits(resumed.trained(level)) for level in range(4))


def test_a_finished_run_loads_and_returns(whole: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = model(seed=9)
    loaded = imp(whole.copy(tmp_path / "run"), verbose=1)
    history = unvalidated(other, loaded, 8)
    assert history.epoch == []
    same(other, whole.weights)
    assert lth.masks_of(other) == whole.run.masks(3)
    assert loaded.summary() == whole.run.summary()
    assert "is already finished; loaded it from" in capsys.readouterr().out
    # The next fit on this model trains: nothing is left behind.
    assert len(other.fit(np.zeros((4, 8), "float32"), np.zeros(4), epochs=2, verbose=0).epoch) == 2


def test_more_rounds_go_on_from_a_finished_run(whole: Finished, tmp_path: Path) -> None:
    unvalidated(model(), imp(tmp_path, rounds=1), 4)
    longer = imp(tmp_path)
    history = unvalidated(model(seed=4), longer, 8)
    assert len(history.epoch) == 4
    assert longer.masks(3) == whole.run.masks(3)
    assert Store(tmp_path).names() == Store(whole.run.directory).names()
    assert unvalidated(model(seed=6), imp(tmp_path), 8).epoch == []


def test_another_run_is_not_overwritten(whole: Finished, tmp_path: Path) -> None:
    folder = whole.copy(tmp_path / "run")
    before = {p: p.read_bytes() for p in folder.rglob("*.value")}
    with pytest.raises(ValueError, match=r"another run \(fraction: 0.2 there, 0.5 here\).*resume=False"):
        unvalidated(model(), imp(folder, fraction=0.5), 8)
    assert before and before == {p: p.read_bytes() for p in folder.rglob("*.value")}
    again = imp(folder, fraction=0.5, resume=False)
    unvalidated(model(), again, 8)
    assert [level.remaining for level in again.history] == [144, 72, 36, 18]
    assert len(list((folder / "values").glob("*.masks.value"))) == 4


KILLED = """
import sys
sys.path.insert(0, {root!r})
import keras, os, signal
from tests.callbacks.small import model, unvalidated
from tests.callbacks.test_imp_resume import imp
from pathlib import Path
class Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if len(list(Path({folder!r}).glob("values/*.masks.value"))) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
unvalidated(model(), imp({folder!r}), 8, beside=[Die()])
"""


def test_killed_for_real_and_started_again(whole: Finished, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    code = KILLED.format(root=root, folder=str(tmp_path / "cut"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Level 2's masks are there, its training was cut off.
    assert {"imp.level_01", "imp.level_02.masks"} <= (there := Store(tmp_path / "cut").names())
    assert "imp.level_02" not in there
    again = model(seed=5)
    unvalidated(again, imp(tmp_path / "cut"), 8)
    same(again, whole.weights)


HOLDER = """
import sys
from keras_lth import files
with files.DirectoryLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_share_a_folder(whole: Finished, tmp_path: Path) -> None:
    folder = whole.copy(tmp_path / "run")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(RuntimeError, match=f"in use by process {holder.pid}"):
            unvalidated(model(), imp(folder), 8)
    finally:
        holder.communicate("")
    assert unvalidated(model(), imp(folder), 8).epoch == []


def test_a_copy_does_not_free_the_folder(tmp_path: Path) -> None:
    run = imp(tmp_path, rounds=1, epochs_per_round=1)

    class Copy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            copy.deepcopy(run)
            with pytest.raises(RuntimeError, match="in use"):
                files.DirectoryLock(tmp_path).acquire()

    unvalidated(model(), run, 2, beside=[Copy()])
    assert len(run.history) == 2


def test_an_unwritable_folder_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        unvalidated(model(), imp(tmp_path / "file" / "run"), 8)


def test_a_full_disk_loses_nothing_that_was_finished(
    whole: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = os.write, []

    def write(descriptor: int, data: bytes) -> int:
        if len(list((tmp_path / "values").glob("*.masks.value"))) >= 3:
            full.append(descriptor)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space left"):
            unvalidated(model(), imp(tmp_path), 8)
    assert full
    assert not list(tmp_path.rglob("*.tmp"))
    again = model(seed=5)
    unvalidated(again, imp(tmp_path), 8)
    same(again, whole.weights)


def damage(tmp_path: Path, name: str) -> None:
    path = tmp_path / "values" / f"{name}.value"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "trainings"),
    [
        ("imp.level_02.masks", 0),  # chosen again, from the end of level 1
        ("imp.level_03.trained", 1),  # trained again
        ("imp.level_01.curve", 0),
        ("imp.origin", 0),
    ],
)
def test_a_damaged_value_is_named_and_made_again(whole: Finished, tmp_path: Path, name: str, trainings: int) -> None:
    damage(folder := whole.copy(tmp_path / "run"), name)
    made = model(seed=5)
    with pytest.warns(UserWarning, match=rf"{name} is damaged.*recomputed"):
        history = unvalidated(made, loaded := imp(folder), 8)
    assert len(history.epoch) == 2 * trainings
    assert [loaded.masks(level) for level in range(4)] == [whole.run.masks(level) for level in range(4)]
    assert loaded.summary().splitlines()[:3] == whole.run.summary().splitlines()[:3]
    assert all(loaded.trained(level).same_bits(whole.run.trained(level)) for level in range(4))


def test_a_damaged_end_is_named_when_it_is_asked_for(whole: Finished, tmp_path: Path) -> None:
    folder = whole.copy(tmp_path / "run")
    run = imp(folder)
    assert unvalidated(model(), run, 8).epoch == []
    damage(folder, "imp.level_01.trained")
    with (
        pytest.warns(UserWarning, match=r"imp\.level_01\.trained is damaged"),
        pytest.raises(ValueError, match="level 1"),
    ):
        run.trained(1)
    assert unvalidated(model(), imp(folder), 8).epoch == []


@pytest.mark.parametrize("name", ["imp.level_01", "imp.rewind"])
def test_what_only_the_whole_run_would_make_again_is_refused(whole: Finished, tmp_path: Path, name: str) -> None:
    folder = whole.copy(tmp_path / "run")
    before = sorted(path.name for path in folder.rglob("*.value"))
    damage(folder, name)
    with pytest.raises(ValueError, match=rf"{name} is damaged.*from a copy.*resume=False"):
        unvalidated(model(), imp(folder), 8)
    assert sorted(path.name for path in folder.rglob("*.value")) == before
    damage(folder, name)  # put back
    assert unvalidated(model(), imp(folder), 8).epoch == []


def test_the_folder_of_an_earlier_version_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "levels.json").write_text("[]")
    with pytest.raises(ValueError, match=r"earlier keras_lth.*another folder"):
        unvalidated(model(), imp(tmp_path), 8)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["levels.json"]


def test_a_run_is_a_store_and_its_folder_is_free_after_a_failed_fit(tmp_path: Path) -> None:
    """What `lth-store` and `lth-report` read: rows with their labels, also of levels that are missing."""
    run = imp(tmp_path)
    with pytest.raises(StopHere):
        fit(model(), run, 8, beside=[Crash(4)])
    store = Store(tmp_path)
    found = plans.tidy(store.plans()["imp"]["rows"], lambda name: store.get(name) if store.has(name) else None)
    results = [row for row in found.rows if row["table"] == "results"]
    assert [(row["level"], row["remaining"]) for row in results] == [(0, 144), (1, 115)]
    assert {"accuracy", "loss", "running_accuracy", "running_loss", "density", "seconds"} <= results[0].keys()
    curves = [row for row in found.rows if row["table"] == "curves"]
    assert [(row["level"], row["step"]) for row in curves] == [(0, 6), (0, 12), (1, 6), (1, 12)]
    assert curves[-1]["accuracy"] == results[-1]["accuracy"]
    assert {row["path"] for row in found.rows if row["table"] == "layers"} == {"dense/kernel", "dense_1/kernel"}
    assert [row["level"] for row in found.missing if row["table"] == "results"] == [2, 3]
    assert check(store) == {}
    fit(model(seed=3), run, 8)
    assert len(run.history) == 4
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 80_000
