"""A run that is killed at any time ends as one that never was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import pytest

import keras_lth as lth
from keras_lth import surgery, training
from tests.training.networks import X, Y, examples, network

ROOT = Path(__file__).resolve().parents[2]


class Struck(Exception):
    """What a test raises in the middle of a run."""


class Strike(keras.callbacks.Callback):
    """Raises at the n-th batch hook."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.left = at

    def get_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {}

    def set_state(self, state: Any, arrays: Any) -> None:
        """It keeps its own count."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Struck


def imp_run(folder: Path | None, strike: int | None) -> tuple[Any, Any, dict[str, list[float]]]:
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=0.3, factor=0.5)
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, rewind_to="5 steps", verbose=0, callbacks=[plateau])
    model = network(keras.optimizers.SGD(0.05, momentum=0.9), dropout=0.1)
    history = training.fit(
        model, examples(), epochs=6, callbacks=[imp, Strike(strike)], steps_per_call=4, validation_data=(X, Y),
        checkpoints=folder, checkpoint_every=0,
    )  # fmt: skip
    return imp, surgery.snapshot(model), history.history


def test_struck_inside_every_round_and_epoch(tmp_path: Path) -> None:
    whole_imp, whole, history = imp_run(None, None)
    for strike in (2, 5, 3, 1, 4, 0, 3):
        with pytest.raises(Struck):
            imp_run(tmp_path, strike)
    imp, end, resumed = imp_run(tmp_path, None)
    assert end.differences(whole) == []
    assert resumed == history
    for level in range(3):
        assert imp.masks(level) == whole_imp.masks(level)
        assert imp.ticket(level).snapshot.differences(whole_imp.ticket(level).snapshot) == []
    assert [(row.score, row.steps) for row in imp.history] == [(row.score, row.steps) for row in whole_imp.history]
    # The same program on a finished run: nothing is trained, the end is there.
    _, again, _ = imp_run(tmp_path, 0)
    assert again.differences(whole) == []


def test_another_run_is_refused(tmp_path: Path) -> None:
    training.fit(network(), examples(), epochs=1, checkpoints=tmp_path)
    with pytest.raises(ValueError, match=r"holds another run \(batch_size: 16 there, 25 here; steps_per_epoch: 16"):
        training.fit(network(), examples(batch_size=25), epochs=1, checkpoints=tmp_path)


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.killed_program", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def run_to_the_end(folder: Path) -> str:
    process = start(folder)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return out.splitlines()[-1]


def test_sigkill_and_sigterm_at_random_times(tmp_path: Path) -> None:
    wanted = run_to_the_end(tmp_path / "whole")
    folder, chance, killed = tmp_path / "killed", random.Random(7), 0
    commits = folder / "commits"
    for number in range(11):
        process = start(folder)
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        before = sorted(commits.glob("*")) if commits.exists() else []
        # Training has begun for sure once this start has committed something.
        while process.poll() is None and (sorted(commits.glob("*")) if commits.exists() else []) == before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        if process.poll() is not None:
            break
        last = number == 10
        process.send_signal(signal.SIGTERM if last else signal.SIGKILL)
        process.wait(60)
        if process.returncode != 0:
            assert process.returncode == (143 if last else -signal.SIGKILL)
            killed += 1
    assert killed >= 10
    assert run_to_the_end(folder) == wanted
