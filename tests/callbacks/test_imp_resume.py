from __future__ import annotations

import copy
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import files
from tests.callbacks.small import fit, model, weights


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


def same(a: keras.Model, b: keras.Model) -> None:
    for x, y in zip(weights(a), weights(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "options", [{"rewind_to": "1 epoch"}, {"keep": "trained"}, {"rewind_to": 3, "restore_optimizer": True}]
)
@pytest.mark.parametrize("epoch", [1, 3, 4])
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
    lines = [[json.loads(line) for line in files.read_lines(tmp_path / f / "metrics.jsonl")] for f in ("whole", "cut")]
    assert lines[0] == lines[1]
    for level in range(4):
        name = f"level_{level:02d}.ticket"
        first, second = (lth.Ticket.load(tmp_path / run / "tickets" / name) for run in ("whole", "cut"))
        assert first.snapshot.same_bits(second.snapshot) and first.masks == second.masks


def test_a_finished_run_loads_and_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = model()
    run = imp(tmp_path)
    fit(first, run, 8)
    other = model(seed=9)
    loaded = imp(tmp_path, verbose=1)
    history = fit(other, loaded, 8)
    assert history.epoch == []
    same(other, first)
    assert lth.masks_of(other) == run.masks(3)
    assert loaded.summary() == run.summary()
    assert "is finished; loaded from" in capsys.readouterr().out
    # The next fit on this model trains: nothing is left behind.
    assert len(other.fit(np.zeros((4, 8), "float32"), np.zeros(4), epochs=2, verbose=0).epoch) == 2


def test_more_rounds_go_on_from_a_finished_run(tmp_path: Path) -> None:
    fit(model(), imp(tmp_path, rounds=1), 4)
    longer = imp(tmp_path)
    history = fit(model(seed=4), longer, 8)
    assert len(history.epoch) == 4
    whole = imp(tmp_path / "whole")
    fit(model(), whole, 8)
    assert longer.masks(3) == whole.masks(3)


def test_another_run_is_not_overwritten(tmp_path: Path) -> None:
    fit(model(), imp(tmp_path), 8)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.ticket")}
    with pytest.raises(ValueError, match=r"another run \(fraction: 0.2 there, 0.5 here\).*resume=False"):
        fit(model(), imp(tmp_path, fraction=0.5), 8)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*.ticket")}
    again = imp(tmp_path, fraction=0.5, resume=False)
    fit(model(), again, 8)
    assert [level.remaining for level in again.history] == [144, 72, 36, 18]
    assert len(list((tmp_path / "tickets").iterdir())) == 4


KILLED = """
import sys
sys.path.insert(0, {root!r})
import keras, os, signal
from tests.callbacks.small import fit, model
from tests.callbacks.test_imp_resume import imp
from pathlib import Path
class Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if len(list(Path({folder!r}).glob("tickets/*"))) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
fit(model(), imp({folder!r}), 8, beside=[Die()])
"""


def test_killed_for_real_and_started_again(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    code = KILLED.format(root=root, folder=str(tmp_path / "cut"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Level 2's ticket is there, its training was cut off.
    assert len(json.loads((tmp_path / "cut" / "levels.json").read_text())) == 2
    whole, again = model(), model(seed=5)
    fit(whole, imp(tmp_path / "whole"), 8)
    fit(again, imp(tmp_path / "cut"), 8)
    same(again, whole)


HOLDER = """
import sys
from keras_lth import files
with files.DirectoryLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(RuntimeError, match=f"in use by process {holder.pid}"):
            fit(model(), imp(tmp_path), 8)
    finally:
        holder.communicate("")
    fit(model(), imp(tmp_path), 8)


def test_the_folder_is_free_after_a_failed_fit(tmp_path: Path) -> None:
    run = imp(tmp_path)
    with pytest.raises(StopHere):
        fit(model(), run, 8, beside=[Crash(3)])
    fit(model(), run, 8)
    assert len(run.history) == 4


def test_a_copy_does_not_free_the_folder(tmp_path: Path) -> None:
    run = imp(tmp_path)

    class Copy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            copy.deepcopy(run)
            with pytest.raises(RuntimeError, match="in use"):
                files.DirectoryLock(tmp_path).acquire()

    fit(model(), run, 8, beside=[Copy()])
    assert len(run.history) == 4


def test_an_unwritable_folder_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        fit(model(), imp(tmp_path / "file" / "run"), 8)


def test_a_full_disk_loses_nothing_that_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, full = os.write, []

    def write(descriptor: int, data: bytes) -> int:
        if len(list((tmp_path / "tickets").glob("*.ticket"))) >= 3:
            full.append(descriptor)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space left"):
            fit(model(), imp(tmp_path), 8)
    assert full
    assert not list(tmp_path.rglob("*.tmp"))
    again, whole = model(seed=5), model()
    fit(again, imp(tmp_path), 8)
    fit(whole, imp(tmp_path / "whole"), 8)
    same(again, whole)


def test_a_ruined_ticket_is_refused(tmp_path: Path) -> None:
    fit(model(), imp(tmp_path), 8)
    path = tmp_path / "tickets" / "level_01.ticket"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"level_01\.ticket"):
        fit(model(), imp(tmp_path), 8)
