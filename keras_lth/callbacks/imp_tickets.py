"""The results of an IMP run: its levels, their masks and their tickets."""

from __future__ import annotations

import os
from typing import Any

from keras_lth import files
from keras_lth.callbacks.imp_plan import IMPPlan
from keras_lth.callbacks.levels import NONE_YET, Level, Monitor, nearest, result_row, sparsest_matching, summary, table
from keras_lth.callbacks.rounds import RoundsCallback
from keras_lth.criteria import described
from keras_lth.masks import Masks
from keras_lth.tables import html_table
from keras_lth.tickets import Snapshot, Ticket


class Tickets(RoundsCallback):
    """The result half of ``IMPCallback``, over levels that the pruning half records."""

    plan: IMPPlan
    directory: str | os.PathLike[str] | None
    history: list[Level]
    _curves: dict[int, list[dict[str, Any]]]
    keep: str
    restore_optimizer: bool
    monitor: Monitor
    _masks: list[Masks]
    _ends: dict[int, Snapshot]
    _kept: dict[int, Snapshot]

    def summary(self) -> str:
        """Return a table with one row per round: density, the monitored metric, matching or not, steps, seconds."""
        return summary(self.history)

    def _repr_html_(self) -> str:
        return html_table(table(self.history), self.name if self.history else f"{self.name}: {NONE_YET}")

    def rows(self) -> list[dict[str, Any]]:
        """Return the finished levels as tidy rows, with a label ``table``: "results", "curves" (one per epoch) or
        "layers".
        """
        found: list[dict[str, Any]] = []
        for level in self.history:
            labels = {"arm": "imp", "replicate": 0, "level": level.round}
            found.append({"table": "results", **labels, **result_row(level)})
            found += [{"table": "curves", **labels, **row} for row in self._curves[level.round]]
            columns = ("path", "size", "remaining", "density")
            for row in self._masks[level.round].table():
                found.append({"table": "layers", **labels, **{name: getattr(row, name) for name in columns}})
        return found

    def figure(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the monitored metric against density as a Matplotlib ``Figure``, and write it to ``path`` if given."""
        from keras_lth.report import figures

        results = self._results()
        drawn = figures.accuracy(results) or figures.metric(results, "score")
        if drawn is None:
            raise RuntimeError("IMP has not finished a training yet, so there is nothing to draw.")
        if path is not None:
            files.write_atomic(path, drawn.png())
        return drawn.figure

    def report(self, folder: str | os.PathLike[str] | None = None) -> str:
        """Write figures, tables and one HTML page of the finished levels, and return the path of the page.

        ``folder`` is by default ``report`` in the run's directory. Raises ``ValueError`` if there is neither.
        """
        from keras_lth.report.page import write_results

        folder = folder if folder is not None else self.directory and files.join(self.directory, "report")
        if not folder:
            raise ValueError('this run has no directory: pass a folder, such as imp.report("report").')
        return str(write_results(self._results(), folder))

    def _results(self) -> Any:
        from keras_lth.report.read import of_rows

        return of_rows(self.rows(), self.model.name)

    def masks(self, round: int) -> Masks:
        """Return the masks of level ``round``; level 0 is the network that IMP started from."""
        if not 0 <= round < len(self._masks):
            raise ValueError(f"There is no level {round}: this run has levels 0 … {len(self._masks) - 1}.")
        return self._masks[round]

    def trained(self, round: int | None = None, *, density: float | None = None) -> Snapshot:
        """Return the final weights of a level, pruned ones 0; by default those of the sparsest matching level.

        ``lth.rewind(model, imp.trained(r), imp.masks(r))`` sets a model to them. With a ``directory`` every level is
        kept; without one, only the most accurate, the sparsest matching and the last level.

        Raises ``ValueError`` that lists the kept levels if this one is not kept, and ``RuntimeError`` before the first
        level is finished.
        """
        if not self.history and (round is None or density is not None):
            raise RuntimeError("IMP has not finished a training yet, so there are no trained weights.")
        if density is not None:
            if round is not None:
                raise ValueError("Ask for trained weights by round or by density, not both.")
            round = nearest([level.density for level in self.history], density)
        round = sparsest_matching(self.history).round if round is None else round
        found = self._end_of(round)
        if found is None:
            where = "Pass IMPCallback a directory to keep those of every level."
            if self.directory is not None:
                where = f"{self.directory} does not contain them."
            kept = f" Kept levels: {', '.join(map(str, sorted(self._ends)))}." if self._ends else ""
            raise ValueError(f"The trained weights of level {round} are not kept.{kept} {where}")
        return found

    def _end_of(self, round: int) -> Snapshot | None:
        return self._ends.get(round)

    def _remember(self, round: int, end: Snapshot) -> None:
        """Keep the final weights of a level in memory, and drop those of earlier levels that are no longer needed."""
        best = max(self.history, key=lambda level: level.score if not self.monitor.less else -level.score)
        wanted = {round, best.round, sparsest_matching(self.history).round}
        self._ends = {at: state for at, state in {**self._ends, round: end}.items() if at in wanted}

    def ticket(self, round: int | None = None, *, density: float | None = None) -> Ticket:
        """Return the ticket of a level, by its round or its density; of the last trained level by default.

        A density selects the nearest level within half a cut. Raises ``ValueError`` that lists the levels if there is
        none, and ``RuntimeError`` before the first pruning.
        """
        if not self.history:
            raise RuntimeError("IMP has not finished a training yet, so there is no ticket.")
        if density is not None:
            if round is not None:
                raise ValueError("Ask for a ticket by round or by density, not both.")
            round = nearest([masks.density for masks in self._masks], density)
        round = len(self.history) - 1 if round is None else round
        masks = self.masks(round)
        if self.captured is None:
            raise RuntimeError("IMP has not reached its rewinding step yet, so there is no ticket.")
        start = self._start(self._kept.get(round))
        return Ticket(masks, start, self._provenance(round), keep_slots=self.restore_optimizer)

    def _provenance(self, round: int) -> dict[str, Any]:
        machine = self._machine()
        level = self.history[round] if round < len(self.history) else None
        return {
            "criterion": described(self.plan.criterion),
            **({} if self.plan.structure is None else {"structure": self.plan.structure}),
            "method": "IMP" if self.keep == "rewind" else "LRR",
            "round": round,
            "rewind_step": machine.rewind_step,
            "total_steps": machine.total_steps,
            "span": machine.span,
            "monitor": self.monitor.name,
            "score": level.score if level else None,
            "dense_score": self.history[0].score,
        }
