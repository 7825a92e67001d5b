"""What a run shows: the rows of a store that is only half there, and TensorBoard's events of its curves."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from rich.console import Console

from keras_lth.bin.progress import Progress, shown, table_of
from tests.report import rows


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def text_of(progress: Progress) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(table_of(*progress.lines()))
    return out.getvalue()


def test_rows_that_are_there(tmp_path: Path) -> None:
    """Two replicates of four arms at two levels; the last five values are missing: of globally random networks."""
    clock = Clock()
    progress = Progress(tmp_path / "run", clock)
    assert progress.lines() == ([], "starting")
    results = [row for row in rows.lottery(replicates=2, levels=2) if row["table"] == "results"]
    made = rows.store(tmp_path / "run", results, missing=2)
    lines, said = progress.lines()
    # Level 0 of IMP is the dense network.
    assert [(line.branch, line.done, line.rows) for line in lines] == [
        ("imp", 6, 6), ("reinit", 4, 4), ("random_layerwise", 4, 4), ("random_global", 2, 4),
    ]  # fmt: skip
    last = lines[0]
    assert (last.plan, last.level, last.density) == ("lottery", 2, 0.8**2)
    assert last.accuracy == pytest.approx(rows.accuracy("imp", 2, 1))
    assert "16 of 18 values" in said and "about ? left" in said
    # One value more after 30 seconds: the last one takes as long.
    clock.now = 30.0
    rows.store(made, results, missing=1)
    assert "17 of 18" in progress.lines()[1] and "30.0 s left" in progress.lines()[1]
    assert "90.0" not in text_of(progress) and f"{100 * rows.accuracy('imp', 2, 1):.2f} %" in text_of(progress)


def test_events_are_those_of_the_curves(tmp_path: Path) -> None:
    made = rows.store(tmp_path / "run", rows.lottery(replicates=1, levels=1))
    progress = Progress(made)
    assert progress.write_events() == 5 and progress.write_events() == 0  # IMP at two levels, three other arms
    files = sorted((made / "tensorboard").rglob("events.out.tfevents.*"))
    assert len(files) == 5
    events = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(files[0]))]
    assert events[0].file_version == "brain.Event:2" and [each.step for each in events[1:]] == list(
        range(100, 900, 100)
    )
    assert {value.tag for each in events[1:] for value in each.summary.value} >= {"curves/accuracy"}


def test_nothing_is_shown_unless_asked(tmp_path: Path) -> None:
    with shown(tmp_path / "run", live=False, events=False):
        pass
    out = io.StringIO()
    rows.store(tmp_path / "run", rows.lottery(replicates=1, levels=1))
    with shown(tmp_path / "run", live=True, events=True, console=Console(file=out, width=120, force_terminal=True)):
        pass
    assert "random_layerwise" in out.getvalue() and (tmp_path / "run" / "tensorboard").is_dir()


def test_a_run_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal the lines of values give way to the table."""
    command = [
        sys.executable, "-m", "keras_lth.bin.run", "--config=demo", f"--workdir={tmp_path / 'run'}",
        "--config.steps=24", "--config.levels=0", "--config.replicates=1", "--config.rewind_to=0 steps",
        "--config.jit_compile=False",
    ]  # fmt: skip
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(command, stdout=terminal, stderr=subprocess.DEVNULL, env=environment)
    os.close(terminal)
    said = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        said += part
    assert process.wait() == 0
    assert b"3 of 3" in said and b"left, about" not in said
