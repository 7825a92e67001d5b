"""The folder of a run: what a person reads, and what a killed run goes on from.

``config.json`` what was asked · ``metrics.jsonl`` a line an epoch · ``levels.json`` a row a finished level, written
last of all that belongs to it · ``tickets/level_NN.ticket`` · ``rewind.state`` the state of step k · ``trained.state``
the last finished training's weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from keras_lth import files
from keras_lth.tickets import Snapshot, Ticket


class Journal:
    """One run's folder, local or in an object store, locked while a ``fit`` writes to it.

    Of several hosts that train together only the chief writes; the others read what it has opened.

    Raises ``RuntimeError`` when another process holds the folder, ``ValueError`` when it holds another run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = files.RunPath(folder)
        self.writes = True
        self._lock: files.DirectoryLock | None = None

    def open(
        self, config: Mapping[str, Any], *, resume: bool, abandoned: Callable[[], bool] | None = None
    ) -> list[dict[str, Any]]:
        """Lock the folder; the finished levels of an earlier run with this config, oldest first."""
        self.close()
        if not self.writes:
            return self._rows() if resume else []
        lock = files.DirectoryLock(self.folder)
        lock.acquire(abandoned)
        self._lock = lock
        try:
            return self._read(json.loads(json.dumps(config)), resume)
        except BaseException:
            self.close()
            raise

    def _read(self, config: dict[str, Any], resume: bool) -> list[dict[str, Any]]:
        known = self.folder / "config.json"
        rows: list[dict[str, Any]] = []
        if resume and known.exists():
            earlier = _parsed(known)
            differs = [k for k in sorted({*earlier, *config}) if earlier.get(k) != config.get(k)]
            if differs:
                pairs = [f"{k}: {_brief(earlier.get(k))} there, {_brief(config.get(k))} here" for k in differs]
                raise ValueError(
                    f"{self.folder} holds another run ({'; '.join(pairs)}). Use another directory, or resume=False "
                    f"to overwrite it."
                )
            rows = self._rows()
        else:
            for name in ("levels.json", "metrics.jsonl", "rewind.state", "origin.state", "trained.state"):
                (self.folder / name).remove()
            for name in (self.folder / "tickets").names("level_*.ticket"):
                (self.folder / "tickets" / name).remove()
        files.write_atomic(known, (json.dumps(config, indent=1) + "\n").encode())
        # Lines of the round that was cut off are written again.
        if (self.folder / "metrics.jsonl").exists():
            self.go_back(len(rows), [])
        return rows

    def _rows(self) -> list[dict[str, Any]]:
        levels = self.folder / "levels.json"
        return _parsed(levels) if levels.exists() else []

    def go_back(self, levels: int, rows: list[dict[str, Any]]) -> None:
        """Make the lines of ``metrics.jsonl`` those of the first ``levels`` trainings, then ``rows``."""
        if not self.writes:
            return
        metrics = self.folder / "metrics.jsonl"
        there = files.read_lines(metrics)
        lines = [line for line in there if json.loads(line)["round"] < levels] + [json.dumps(row) for row in rows]
        files.write_atomic(metrics, "".join(line + "\n" for line in lines).encode())

    def close(self) -> None:
        """Let go of the folder; safe to call twice."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def epoch(self, row: Mapping[str, Any]) -> None:
        """A line of ``metrics.jsonl``."""
        if self.writes:
            files.append_line(self.folder / "metrics.jsonl", json.dumps(row))

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``."""
        path = self.folder / "metrics.jsonl"
        return [json.loads(line) for line in files.read_lines(path)] if path.exists() else []

    def levels(self, rows: list[dict[str, Any]]) -> None:
        """The finished levels; written after all that they lean on."""
        files.write_atomic(self.folder / "levels.json", (json.dumps(rows, indent=1) + "\n").encode())

    def save(self, name: str, snapshot: Snapshot) -> None:
        """A snapshot, as ``<name>.state``."""
        snapshot.save(self.folder / f"{name}.state")

    def load(self, name: str) -> Snapshot:
        """The snapshot ``<name>.state``."""
        return Snapshot.load(self.folder / f"{name}.state")

    def ticket_path(self, level: int) -> files.RunPath:
        """Where the ticket of a level lies."""
        return self.folder / "tickets" / f"level_{level:02d}.ticket"

    def ticket(self, level: int) -> Ticket:
        """The ticket of a level."""
        return Ticket.load(self.ticket_path(level))


def _parsed(path: files.RunPath) -> Any:
    try:
        return json.loads(files.read_bytes(path))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Put it back, or use another directory.") from error


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
