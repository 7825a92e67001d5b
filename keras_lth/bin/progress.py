"""What a run shows while it works, read from its store: a live table on a terminal, and curves for TensorBoard."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table

from keras_lth import files
from keras_lth.files.stores import AnyPath
from keras_lth.plans.estimate import duration
from keras_lth.store import DamagedError, MissingError, Store, Value

_BRANCHES = ("arm", "network", "criterion")  # labels that name a branch of a plan
_TRAININGS = ("state-", "observed-", "slots-")
_EVERY = 2.0  # seconds between two looks at the store, at least
_SHARE = 50.0  # and at least so many times as long as a look takes
_EVENTS_EVERY = 30.0


class Line(NamedTuple):
    """One line of the table: the rows of a branch that are there, and the last of them."""

    plan: str
    branch: str
    done: int
    rows: int
    level: Any
    density: float | None
    accuracy: float | None


class Progress:
    """The progress of the plans in a store, read without computing anything.

    Args:
        folder: the store's folder; it need not exist yet.
        clock: the time in seconds.
    """

    def __init__(self, folder: AnyPath, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self._clock = folder, clock
        self._values: dict[str, list[dict[str, Any]]] = {}
        self._began: tuple[float, int] | None = None
        self._board: dict[str, int] = {}

    def lines(self) -> tuple[list[Line], str]:
        """Return the table, and a sentence on what is left."""
        store = self._store()
        if store is None:
            return [], "starting"
        there, found, names = store.names(), dict[tuple[str, str], list[tuple[dict[str, Any], list[str]]]](), set[str]()
        for plan, known in store.plans().items():
            names |= {*known["names"]}
            for labels, sources in known["rows"]:
                branch = next((str(labels[key]) for key in _BRANCHES if key in labels), str(labels.get("table", "")))
                found.setdefault((plan.rpartition("-")[0] or plan, branch), []).append((labels, sources))
        lines = []
        for (plan, branch), listed in found.items():
            done = [(labels, sources) for labels, sources in listed if {*sources} <= there]
            last = self._last(store, done)
            lines.append(Line(plan, branch, len(done), len(listed), *last))
        return lines, self._left(names, there, len(store.errors()))

    def _last(
        self, store: Store, done: list[tuple[dict[str, Any], list[str]]]
    ) -> tuple[Any, float | None, float | None]:
        """Level, density and accuracy of the last row with an accuracy."""
        for labels, sources in reversed(done):
            if labels.get("table", "results") == "results":
                numbers: dict[str, Any] = {}
                for name in sources:
                    rows = self._rows(store, name)
                    numbers |= rows[0] if rows else {}
                return labels.get("level"), numbers.get("density"), numbers.get("accuracy")
        return None, None, None

    def _left(self, names: set[str], there: set[str], errors: int) -> str:
        """How much is left, and how long it takes at the pace so far; trainings take the time, where there are some."""
        trained = {name for name in names if name.startswith(_TRAININGS)}
        mine = trained or names
        done = len(mine & there)
        self._began = self._began or (self._clock(), done)
        since, first = self._began
        rest = duration((self._clock() - since) / (done - first) * (len(mine) - done)) if done > first else "?"
        what = "values of trainings" if trained else "values"
        said = f"{done:,} of {len(mine):,} {what} known so far; about {rest} left"
        return said + (f"; {errors} steps failed" if errors else "")

    def write_events(self) -> int:
        """Write the curves that are ready for TensorBoard, to ``tensorboard/`` in the store's folder; return how many.

        Each training is a run, named by its labels. TensorFlow is imported.
        """
        store = self._store()
        if store is None:
            return 0
        there, written = store.names(), 0
        for plan, known in store.plans().items():
            for labels, sources in known["rows"]:
                if not {*sources} <= there:
                    continue
                rows = [row for name in sources for row in self._rows(store, name) if "step" in row]
                text = " ".join(f"{key}={value}" for key, value in sorted(labels.items()) if key != "table")
                name = f"{plan}/{text or labels.get('table', 'rows')}"
                key = f"{name}/{labels.get('table')}"
                if rows and self._board.get(key) != len(rows):
                    self._board[key] = len(rows)
                    place = files.join(store.folder, "tensorboard", name.replace(":", "."))
                    _write_events(place, str(labels.get("table", "rows")), rows)
                    written += 1
        return written

    def _rows(self, store: Store, name: str) -> list[dict[str, Any]]:
        if name not in self._values:
            with contextlib.suppress(MissingError, DamagedError):
                self._values[name] = Value({}, store.get(name).meta).rows
        return self._values.get(name, [])

    def _store(self) -> Store | None:
        with contextlib.suppress(FileNotFoundError):
            return Store(self.folder, create=False)
        return None


def _write_events(folder: str, table: str, rows: list[dict[str, Any]]) -> None:
    """Write one file of events: a scalar for each number of each row, at its step."""
    import tensorflow as tf

    records = [tf.compat.v1.Event(file_version="brain.Event:2", wall_time=0.0).SerializeToString()]
    for row in rows:
        values = [
            tf.compat.v1.Summary.Value(tag=f"{table}/{key}", simple_value=float(value))
            for key, value in row.items()
            if key != "step" and isinstance(value, (int, float)) and not isinstance(value, bool)
        ]
        event = tf.compat.v1.Event(wall_time=0.0, step=int(row["step"]), summary=tf.compat.v1.Summary(value=values))
        records.append(event.SerializeToString())
    tf.io.gfile.makedirs(folder)
    with tf.io.TFRecordWriter(files.join(folder, f"events.out.tfevents.{table}")) as writer:
        for record in records:
            writer.write(record)


def table_of(lines: list[Line], said: str) -> Table:
    """Return the live table."""
    made = Table(title=said, title_justify="left", box=None, pad_edge=False)
    for name in ("plan", "branch", "rows", "level", "density", "accuracy"):
        made.add_column(name, justify="left" if name in ("plan", "branch") else "right")
    for line in lines:
        made.add_row(
            line.plan,
            line.branch,
            f"{line.done} of {line.rows}",
            "" if line.level is None else str(line.level),
            "" if line.density is None else f"{100 * line.density:.3g} %",
            "" if line.accuracy is None else f"{100 * line.accuracy:.2f} %",
        )
    return made


@contextlib.contextmanager
def shown(folder: AnyPath, *, live: bool, events: bool, console: Console | None = None) -> Iterator[None]:
    """Show the live table, and write TensorBoard's events, while the body runs; then both once more."""
    if not live and not events:
        yield
        return
    progress, ended = Progress(folder), threading.Event()
    screen = Live(console=console, auto_refresh=False, transient=False) if live else None

    # What is being written, or damaged, is the run's to report; the next look is better.
    unread = contextlib.suppress(OSError, ValueError, DamagedError)

    def look() -> None:
        with unread:
            if screen is not None:
                screen.update(table_of(*progress.lines()), refresh=True)

    def write() -> None:
        with unread:
            progress.write_events()

    def watch() -> None:
        wrote, took = time.monotonic(), 0.0
        while not ended.wait(max(_EVERY, _SHARE * took)):
            began = time.monotonic()
            look()
            took = time.monotonic() - began
            if events and time.monotonic() - wrote > _EVENTS_EVERY:
                write()
                wrote = time.monotonic()

    with screen or contextlib.nullcontext():
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            look()
            if events:
                write()
