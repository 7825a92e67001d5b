"""The folder of a run: what a person reads, and what a killed run goes on from.

``config.json`` what was asked · ``metrics.jsonl`` a line an epoch · ``levels.json`` a row a finished level, written
last of all that belongs to it · ``tickets/level_NN.ticket`` · ``origin.ticket`` masks and state at step 0 ·
``rewind.state`` the state of step k · ``trained/level_NN.state`` what the first and the last training ended with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from keras_lth import files
from keras_lth.masks import Masks
from keras_lth.tickets import Snapshot, Ticket

ORIGIN, REWIND = "origin.ticket", "rewind.state"
# A message names at most this many differences.
_LISTED = 4


def trained(level: int) -> str:
    """The file of the state that the training of a level ended with."""
    return f"trained/level_{level:02d}.state"


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
        self,
        config: Mapping[str, Any],
        *,
        resume: bool,
        free: Collection[str] = (),
        abandoned: Callable[[], bool] | None = None,
    ) -> list[dict[str, Any]]:
        """Lock the folder; the finished levels of an earlier run with this config, oldest first.

        ``free`` are dotted names of settings that need not agree.
        """
        self.close()
        if not self.writes:
            return self._rows() if resume else []
        lock = files.DirectoryLock(self.folder)
        lock.acquire(abandoned)
        self._lock = lock
        try:
            return self._read(json.loads(json.dumps(config)), resume, free)
        except BaseException:
            self.close()
            raise

    def _read(self, config: dict[str, Any], resume: bool, free: Collection[str]) -> list[dict[str, Any]]:
        known = self.folder / "config.json"
        rows: list[dict[str, Any]] = []
        if resume and known.exists():
            earlier = _parsed(known)
            there, here = _flat(earlier), _flat(config)
            names = sorted({*there, *here}, key=lambda name: (not name.endswith(".class"), name))
            differs = [k for k in names if there.get(k) != here.get(k) and k not in free]
            if differs:
                pairs = [f"{k}: {_brief(there.get(k))} there, {_brief(here.get(k))} here" for k in differs[:_LISTED]]
                pairs += [f"and {len(differs) - _LISTED} more"] if len(differs) > _LISTED else []
                raise ValueError(
                    f"{self.folder} holds another run ({'; '.join(pairs)}). Use another directory, or resume=False "
                    f"to overwrite it."
                )
            rows = self._rows()
        else:
            # The levels first: what they lean on is then gone together with them.
            for name in ("levels.json", "metrics.jsonl", REWIND, ORIGIN):
                (self.folder / name).remove()
            for folder in (self.folder / "tickets", self.folder / "trained"):
                for name in folder.names("level_*"):
                    (folder / name).remove()
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

    def save(self, name: str, value: Snapshot | Ticket) -> None:
        """A snapshot or ticket, as the file of that name."""
        value.save(self.folder / name)

    def load(self, name: str) -> Snapshot:
        """The snapshot in the file of that name."""
        return Snapshot.load(self.folder / name)

    def order_seed(self) -> int | None:
        """The seed of the data order of the run in the folder, if it has one."""
        known = self.folder / "config.json"
        return _parsed(known).get("order_seed") if known.exists() else None

    def origin(self) -> Ticket | None:
        """Masks and state at step 0 of the run that the folder holds; None without one."""
        path = self.folder / ORIGIN
        return Ticket.load(path) if path.exists() else None

    def keep_trained(self, level: int) -> None:
        """Drop what trainings before ``level`` ended with, but for the first one."""
        for before in range(1, level):
            (self.folder / trained(before)).remove()

    def masks(self) -> list[Masks]:
        """The masks of the levels in the folder."""
        folder = self.folder / "tickets"
        return [Ticket.load(folder / name).masks for name in folder.names("level_*.ticket")]

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


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, so that a difference names the one setting."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
