"""IMP in a run's folder: what it finds there counts before what the model holds, and what was trained is kept."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from keras_lth import surgery
from keras_lth.callbacks.fit_call import in_other_fit
from keras_lth.callbacks.imp_plan import IMPPlan
from keras_lth.callbacks.imp_tickets import Tickets
from keras_lth.callbacks.journal import ORIGIN, REWIND, Journal, trained
from keras_lth.callbacks.levels import Level
from keras_lth.callbacks.settings import moved_rates, settings_of
from keras_lth.masks import Masks
from keras_lth.rounds import Position, noise_seed
from keras_lth.tickets import Ticket

_MANY_ROUNDS = 1000


class InFolder(Tickets):
    """The keeping half of ``IMPCallback``: without a ``directory`` it keeps nothing."""

    plan: IMPPlan
    directory: str | os.PathLike[str] | None
    resume: bool
    _counts: list[dict[str, int]]

    def _forget(self) -> None:
        super()._forget()
        # Not closed here: a copy forgets what the original still holds.
        self._journal: Journal | None = None if self.directory is None else Journal(self.directory)
        self._origin: Ticket | None = None
        self._kept_round = -1

    def _prune(self, round: int) -> Masks:
        """The masks of the level after ``round``."""
        raise TypeError(f"{type(self).__name__} does not prune.")

    def _first_of_folder(self, worn: Masks) -> Masks:
        """The masks that the run in the folder began with; ``worn`` without one."""
        if self._journal is None or not self.resume:
            return worn
        self._origin, seed = self._journal.origin(), self._journal.order_seed()
        rounds = range(1, _MANY_ROUNDS)
        if seed is not None and self._order is not None and self._order_seed in [noise_seed(seed, r) for r in rounds]:
            self._order_seed = seed  # a round of this run left the data set at its own seed
        if self._origin is None or list(self._origin.masks) != list(worn):
            return worn  # its settings differ, which is an error when it is opened
        first = self._origin.masks
        if worn.remaining < worn.size and worn not in [first, *self._journal.masks()]:
            raise ValueError(
                f"The model wears masks of density {worn.density:.1%} that are none of the run in {self.directory}: "
                f"lth.unmask(model) to continue that run, or another directory, or resume=False to overwrite it."
            )
        return first

    def _opened(self, journal: Journal) -> list[dict[str, Any]]:
        """The finished levels in the folder, the same on all hosts."""
        hosts = surgery.hosts_of(self.model)
        journal.writes = hosts.chief
        config, free = self._config(), moved_rates(self.model)
        rows = hosts.first(
            lambda: journal.open(config, resume=self.resume, free=free, abandoned=lambda: not in_other_fit(self))
        )
        hosts.check_same(json.dumps(rows).encode(), f"finished levels in {self.directory}")
        return rows

    def _started(self) -> None:
        if self._journal is not None and self._journal.writes and self._origin is None and self.origin is not None:
            self._journal.save(ORIGIN, Ticket(self._masks[0], self.origin, keep_slots=True))

    def _keep_trained(self, round: int) -> None:
        if self._journal is not None and self._journal.writes:
            self._journal.save(trained(round), surgery.snapshot(self.model))
        self._kept_round = round

    def _failed(self) -> None:
        # Whatever raised, hours of training may be in the model and nowhere else.
        if self._running and self._step > 0 and self.position.round > self._kept_round:
            with suppress(Exception):
                self._keep_trained(self.position.round)

    def _write(self) -> None:
        if self._journal is None or not self._journal.writes:
            return
        level = self.history[-1].round
        if level == 0:
            if self.captured is None:
                raise RuntimeError("IMP has kept no state to rewind to.")
            self._journal.save(REWIND, self.captured)
        for round in (level, level + 1):
            if round < len(self._masks):
                self.ticket(round).save(self._journal.ticket_path(round))
        rows = [{**row.as_dict(), "spent": self._spent} for row in self.history]
        rows[0]["rates"] = self._rates.seen
        self._journal.levels(rows)
        self._journal.keep_trained(level)

    def _resume(self, rows: list[dict[str, Any]]) -> None:
        if not rows or self._journal is None:
            return
        machine = self._machine()
        rows = rows[: machine.rounds + 1]
        self._rates.seen, self._spent = rows[0]["rates"], rows[-1]["spent"]
        self.history = [Level.from_dict(row) for row in rows]
        self._kept_round = len(rows) - 1
        self.monitor.follow(self.history[0].monitor, self.directory)
        self.captured = self._journal.load(REWIND)
        self.origin = None if self._origin is None else self._origin.snapshot
        done = len(rows) - 1
        last = done == machine.rounds
        self._masks = [self._journal.ticket(r).masks for r in range(done + 1)]
        if last or not self._journal.ticket_path(done + 1).exists():
            # The end of this run, or of a shorter one that this one continues: the model gets its trained weights.
            surgery.mask(self.model, self._masks[-1])
            surgery.rewind(self.model, self._journal.load(trained(done)), self._masks[-1], restore_optimizer=True)
        if not last:
            known = self._journal.ticket_path(done + 1).exists()
            self._masks.append(self._journal.ticket(done + 1).masks if known else self._prune(done))
        for level, (masks, count) in enumerate(zip(self._masks, self._counts, strict=False)):
            if masks.remaining != sum(count.values()):
                raise ValueError(
                    f"{self.directory} holds another run: its level {level} has {masks.remaining} weights, this one "
                    f"would have {sum(count.values())}. Use another directory, or resume=False to overwrite it."
                )
        if self.keep == "trained" and not last:
            self._kept = {r: self._journal.ticket(r).snapshot for r in range(1, done + 1)}
            self._kept[done + 1] = self._journal.load(trained(done))
        self.position = Position(done, machine.total_steps, captured=True, ended=True, pruned=not last)
        self._first_epoch = self.params["epochs"] if last else self._spent
        self.model._initial_epoch = self._first_epoch
        if not last:
            self._say(f"{self.name}: continuing with round {done + 1} from {self.directory}.")

    def _config(self) -> dict[str, Any]:
        """What must agree for a run to be continued."""
        return {
            **self.plan.config(self._machine()),
            "keep": self.keep,
            "restore_optimizer": self.restore_optimizer,
            "weights": {path: list(mask.shape) for path, mask in self._masks[0].items()},
            **settings_of(self.model),
            "order_seed": self._order_seed if self._order is not None else None,
        }
