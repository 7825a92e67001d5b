"""IMP with a directory: its contents take precedence over the model, and trained weights are kept."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from keras_lth import surgery
from keras_lth.callbacks.fit_call import in_other_fit
from keras_lth.callbacks.imp_plan import IMPPlan
from keras_lth.callbacks.imp_tickets import Tickets
from keras_lth.callbacks.levels import Level, result_row
from keras_lth.callbacks.run_store import ORIGIN, REWIND, RunStore, level_name
from keras_lth.callbacks.settings import moved_rates, settings_of
from keras_lth.criteria import described
from keras_lth.imp import IMP
from keras_lth.masks import Masks
from keras_lth.rounds import UNKNOWN, Position, noise_seed
from keras_lth.tickets import Snapshot

_MANY_ROUNDS = 1000


class InDirectory(Tickets):
    """The storage half of ``IMPCallback``; without a ``directory`` it writes nothing."""

    plan: IMPPlan
    directory: str | os.PathLike[str] | None
    resume: bool
    _counts: list[dict[str, int]]

    def _forget(self) -> None:
        super()._forget()
        # Not closed here: a copy forgets what the original still holds.
        self._store: RunStore | None = None if self.directory is None else RunStore(self.directory)
        self._kept_round = -1

    def _prune(self, round: int) -> Masks:
        """The masks of the level after ``round``."""
        raise TypeError(f"{type(self).__name__} does not prune.")

    def _imp(self) -> IMP:
        """The algorithm of this fit."""
        raise TypeError(f"{type(self).__name__} has no algorithm.")

    def _first_of_directory(self, worn: Masks) -> Masks:
        """The masks that the run in the folder began with; ``worn`` if there is none."""
        there, config = self._store, None if self._store is None else self._store.config()
        if there is None or config is None or not self.resume:
            return worn
        seed, rounds = config["order_seed"], range(1, _MANY_ROUNDS)
        if seed is not None and self._order is not None and self._order_seed in [noise_seed(seed, r) for r in rounds]:
            self._order_seed = seed  # a round of this run left the data set at its own seed
        levels = there.all_masks()
        if not levels or list(levels[0]) != list(worn):
            return worn  # its settings differ, which is an error when it is opened
        if worn.remaining < worn.size and worn not in levels:
            raise ValueError(
                f"The model has masks of density {worn.density:.1%} that do not belong to the run in {self.directory}: "
                f"use lth.unmask(model) to continue that run, another directory, or resume=False to overwrite it."
            )
        return levels[0]

    def _opened(self, there: RunStore) -> list[dict[str, Any]]:
        """The finished levels in the folder, the same on all hosts."""
        hosts = surgery.hosts_of(self.model)
        there.writes = hosts.chief
        config, free = self._config(), moved_rates(self.model)
        rows = hosts.first(
            lambda: there.open(config, resume=self.resume, free=free, abandoned=lambda: not in_other_fit(self))
        )
        hosts.check_same(json.dumps(rows).encode(), f"finished levels in {self.directory}")
        if there.writes:
            labels = {"arm": "imp", "replicate": 0}
            there.expect(max(self._machine().rounds + 1, len(rows)), config, labels)
            there.put_masks(0, self._masks[0])
        return rows

    @property
    def _writes(self) -> RunStore | None:
        return self._store if self._store is not None and self._store.writes else None

    def _started(self) -> None:
        if (there := self._writes) is not None and self.origin is not None:
            there.put_state(ORIGIN, self.origin)

    def _keep_trained(self, round: int) -> None:
        if (there := self._writes) is not None:
            there.put_state(level_name(round, "trained"), surgery.snapshot(self.model, optimizer=False))
        self._kept_round = round

    def _failed(self) -> None:
        # Whatever raised, hours of training may be in the model and nowhere else.
        if self._running and self._step > 0 and self.position.round > self._kept_round:
            with suppress(Exception):
                self._keep_trained(self.position.round)

    def _write(self, level: Level) -> None:
        there = self._writes
        if there is None:
            return
        if level.round == 0:
            if self.captured is None:
                raise RuntimeError("IMP has kept no state to rewind to.")
            there.put_state(REWIND, self.captured if self.restore_optimizer else self.captured.without_slots())
        self._started()  # again, in case it was damaged and a commit has it
        if level.round + 1 < len(self._masks):
            there.put_masks(level.round + 1, self._masks[level.round + 1])
        about = {"level": level.as_dict(), "spent": self._spent, "rates": self._rates.seen if level.round == 0 else {}}
        there.put_masks(level.round, self._masks[level.round])
        there.put_level(level.round, result_row(level), self._curves[level.round], about)

    def _resume(self, rows: list[dict[str, Any]], there: RunStore) -> None:
        machine = self._machine()
        rows = rows[: machine.rounds + 1]
        self._rates.seen, self._spent = rows[0]["rates"], rows[-1]["spent"]
        self.history = [Level.from_dict(row["level"]) for row in rows]
        done = len(rows) - 1
        last = done == machine.rounds
        self._curves = {level: there.curve(level) for level in range(done + 1)}
        self._kept_round = done
        self.monitor.follow(self.history[0].monitor, self.directory)
        self.captured, self.origin = there.rewind(), there.origin()
        for level in range(1, done + 2 - last):
            found = there.masks(level)
            if found is None:  # of the next level, or damaged: chosen again
                surgery.rewind(self.model, self._trained_in(there, level - 1), self._masks[level - 1])
                found = self._prune(level - 1)
                if there.writes:
                    there.put_masks(level, found)
            self._masks.append(found)
        if last:  # the model gets its trained weights
            surgery.rewind(self.model, self._trained_in(there, done), self._masks[done])
        for level, (masks, count) in enumerate(zip(self._masks, self._counts, strict=False)):
            if (left := self._imp().remaining(masks)) != sum(count.values()):
                raise ValueError(
                    f"{self.directory} contains another run: its level {level} has {left} weights, this one would have "
                    f"{sum(count.values())}. Use another directory, or resume=False to overwrite it."
                )
        if self.keep == "trained":
            self._kept = {level + 1: self._trained_in(there, level) for level in range(done + 1 - last)}
        self.position = Position(done, machine.total_steps, captured=True, ended=True, pruned=not last)
        self._first_epoch = self.params["epochs"] if last else self._spent
        self.model._initial_epoch = self._first_epoch
        if not last:
            self._say(f"{self.name}: resuming at round {done + 1} from {self.directory}.")

    def _end_of(self, round: int) -> Snapshot | None:
        return super()._end_of(round) if self._store is None else self._store.trained(round)

    def _trained_in(self, there: RunStore, level: int) -> Snapshot:
        found = there.trained(level)
        if found is None:
            raise ValueError(
                f"{self.directory} has no trained weights of level {level}, from which the next masks are chosen. "
                "Restore "
                f"{level_name(level, 'trained')} from a copy, or start the run over with resume=False."
            )
        return found

    def _config(self) -> dict[str, Any]:
        """Settings that must match to resume a run."""
        machine, imp = self._machine(), self._imp()
        given = {"structure": imp.structure, "min_per_layer": imp.min_per_layer}
        return {
            "method": "IMP",
            "criterion": described(imp.criterion),
            "epochs_per_round": machine.epochs,
            "steps_per_epoch": None if machine.steps_per_epoch >= UNKNOWN else machine.steps_per_epoch,
            "rewind_step": imp.k,
            "fraction": imp.fraction,
            "span": machine.span,
            "scope": imp.scope,
            "one_shot": self.plan.one_shot,
            **{name: value for name, value in given.items() if value is not None},
            "keep": self.keep,
            "restore_optimizer": self.restore_optimizer,
            "weights": {path: list(mask.shape) for path, mask in self._masks[0].items()},
            **settings_of(self.model),
            "order_seed": self._order_seed if self._order is not None else None,
        }
