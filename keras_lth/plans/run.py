"""The run of plans: find what is missing in a store and compute it, alone or together with other processes.

Every process runs the same plans on the same store and takes steps that are ready and unclaimed; no process distributes
work. So resuming, several workers and several machines need only one mechanism.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_lth import files
from keras_lth.files.stores import AnyPath
from keras_lth.plans.agenda import Agenda, Plan, Steps, Task, key_of, ready
from keras_lth.plans.estimate import duration
from keras_lth.plans.notebook import Tidy
from keras_lth.plans.on_ray import on_ray
from keras_lth.plans.step import Step, StepError, resolve
from keras_lth.plans.training import train
from keras_lth.plans.values import Values
from keras_lth.plans.workers import TERMINATED, in_processes, until_terminated
from keras_lth.store.claims import Claim, LostError
from keras_lth.store.upkeep import supersede
from keras_lth.store.values import DamagedError, MissingError, Store, Value

Say = Callable[[str], None]
_DAMAGES = 3  # repairs of one value before the disk is to blame
# Where workers run: each entry calls ``function(*arguments)`` in the given number of processes.
RUNNERS: Mapping[str, Callable[[int, Callable[..., None], tuple[Any, ...]], str]] = {
    "local": in_processes,
    "ray": on_ray,
}
NOT_BOTH = (
    "Use --workers= (several trainings, one device each) or --strategy= (one training, several devices), not both."
)


class StepsFailedError(RuntimeError):
    """Steps raised; everything that does not depend on them was computed. ``errors``: their messages, by name."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("\n".join(dict.fromkeys(errors.values())))
        self.errors = dict(errors)


@dataclass
class Session:
    """One process that works on plans. `work` computes everything that is missing and that no other process
    computes.
    """

    plans: Mapping[str, Plan]
    store: Store
    only: str | None = None
    command: str = ""
    commit_every: float = 60.0
    say: Say = print
    run: str = ""

    def __post_init__(self) -> None:
        self.run = self.run or self.store.token()
        self.values = Values(self.store)
        self.agenda = Agenda(self.plans, self._seen)
        self.failed: dict[str, str] = {}
        self.damaged: dict[str, int] = {}
        self._there: set[str] = set()
        self._labels: dict[str, str] = {}
        self._left = 0
        self._began: tuple[float, int] | None = None
        self._ending = threading.Event()

    def missing(self) -> Steps:
        """Return the steps to compute, given the store's current state; plans whose awaited value exists are read
        again.
        """
        self._there = self.store.names()
        read = self.agenda.read(self._there)
        for name in read:
            self.store.put_plan(self.agenda.record(name), self.agenda.known(name))
        if read:  # the plans name more steps, so estimate the remaining time again
            self._labels, self._began = self.agenda.labels(), None
        missing = self.agenda.missing(self._there, self.only)
        self._left = len(missing)
        self._began = self._began or (time.monotonic(), self._left)
        return missing

    def work(self, poll: float | None = None) -> None:
        """Compute all that is missing. Wait for steps that other processes have claimed, and take over if they die."""
        poll = poll or (0.1 if files.is_local(self.store.folder) else 5.0)
        with until_terminated(self._ending):
            while True:
                missing = self.missing()
                self.failed |= self.failed_elsewhere()
                tasks = ready(missing, self._there, self.failed)
                if not tasks:
                    self._tidy_up(missing)
                    return
                # Unclaimed tasks first, because checking whether a claim is held can take a heartbeat.
                begun = self.store.under_way()
                tasks.sort(key=lambda task: task.key in begun)
                if not any(self._attempt(task) for task in tasks):
                    time.sleep(poll)
                if self.store.agreed(self._ending.is_set()):
                    raise SystemExit(TERMINATED)

    def rows(self) -> Tidy:
        """Return the rows of all plans, from the values that exist."""
        self.missing()
        return self.agenda.rows(self._seen)

    def failed_elsewhere(self) -> dict[str, str]:
        """Record what failed in other processes of this run, so that it is not tried again."""
        return {name: note["said"] for name, note in self.store.errors().items() if note.get("run") == self.run}

    def _attempt(self, task: Task) -> bool:
        """Try the tasks; return whether anything changed: computed, failed, found damaged."""
        try:
            if task.key is None:
                self._make(task.steps)
                return True
            with self.store.claim(task.key) as claim:
                if claim is None:
                    return False
                left = [step for step in task.steps if not self.values.has(step)]
                if left:
                    self._make(left, claim)
                claim.clear()
        except LostError as error:
            self._tell(f"{error}. That process will compute it.")
        except DamagedError as error:
            self._found_damaged(error)
        except MissingError:
            pass  # another process found a damaged input: the next look at the store shows what to compute
        except StepError as error:
            self._fail(task, error)
        return True

    def _tidy_up(self, missing: Steps) -> None:
        """Remove what a crash left of trainings whose values all exist."""
        under_way = self.store.under_way()
        if not under_way:
            return
        unfinished = {key_of(step) for step in missing.values()}
        for key in sorted(under_way & {key for step in self.agenda.steps.values() if (key := key_of(step))}):
            if key not in unfinished:
                with self.store.claim(key) as claim:
                    if claim is not None:
                        claim.clear()

    def _make(self, steps: list[Step], claim: Claim | None = None) -> None:
        began = time.monotonic()
        if claim is not None and steps[0].point is not None:
            train(steps, self.values, claim, commit_every=self.commit_every, ending=self._ending.is_set)
        else:
            for step in steps:
                self.values.put(step, self.values.make(step), seconds=round(time.monotonic() - began, 3))
        self._made(steps, time.monotonic() - began)

    def _made(self, steps: list[Step], seconds: float) -> None:
        """Print what was computed, and how long the rest takes at the pace of all processes so far."""
        since, first = self._began or (time.monotonic(), self._left)
        self._left -= len(steps)
        rest = duration((time.monotonic() - since) / max(1, first - self._left) * self._left)
        what = ", ".join(step.short for step in steps)
        label = self._labels.get(steps[0].name, "")
        self._tell(f"{seconds:7.1f} s  {label or 'shared'}: {what}; {self._left} left, about {rest}")

    def _fail(self, task: Task, error: StepError) -> None:
        step, cause = error.step, error.__cause__
        # A step that is not stored is computed together with the stored one that needs it.
        alone = step.name if step.kind.keep else task.steps[-1].name
        again = f"{self.command} --only={alone}" if self.command else f"run(…, only={alone!r})"
        text = (
            f"The step {step.name} failed: {type(cause).__name__}: {cause}\n  parameters: {dict(step.params)}\n"
            f"  inputs: {', '.join(each.name for each in step.inputs) or 'none'}\n  repeat it alone: {again}"
        )
        trace = "".join(traceback.format_exception(cause)) if cause is not None else ""
        for each in task.steps:
            if not self.values.has(each):
                self.failed[each.name] = text
                self.store.put_error(each.name, {"run": self.run, "said": text, "traceback": trace})
        self._tell(text)

    def _found_damaged(self, error: DamagedError) -> None:
        count = self.damaged[error.name] = self.damaged.get(error.name, 0) + 1
        if count > _DAMAGES:
            raise OSError(f"{error}, {count} times: check the disk that holds {self.store.folder}.")
        self._tell(f"{error}. It was removed and will be recomputed if needed.")
        self.values.drop(error.name)

    def _tell(self, text: str) -> None:
        if self.store.chief:
            self.say(text)

    def _seen(self, step: Step) -> Value | None:
        """The value that a plan or a row looks at."""
        if step.name not in self._there:
            return None
        try:
            return self.values.value(step)
        except MissingError:
            return None
        except DamagedError as error:
            self._found_damaged(error)
            self._there.discard(step.name)
            return None


def run(
    plans: Plan | Mapping[str, Plan],
    store: Store | AnyPath,
    *,
    workers: int = 1,
    runner: str = "local",
    only: str | None = None,
    command: str = "",
    commit_every: float = 60.0,
    prepare: str = "",
    say: Say = print,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Compute what plans need and the store lacks, and return their rows.

    Args:
        plans: a function of a `Notebook`, or several by name; with several workers, functions that can be pickled.
        store: a `Store`, or its folder.
        workers: number of processes that divide the work. Processes that were started separately do so too.
        runner: where they run: "local", on this machine; "ray", on a Ray cluster, which must have access to the store.
        only: the name of a step: compute only this step and what it needs.
        command: how a user starts this run, for messages.
        commit_every: seconds between the commits of a training.
        prepare: "module:function", called in each worker before it begins.
        say: called with a line for each value that this process computes; workers print theirs.
        quiet: leave these lines out; failures are reported at the end.

    Raises:
        StepsFailedError: steps raised; names each, with the command that repeats it alone. The others were computed.
        RuntimeError: worker processes died (the same call resumes), or Ray is not installed or cannot be reached.
        ValueError: an unknown runner, or several workers with the store of several hosts.
        OSError: the store cannot be read or written.
        SystemExit: SIGTERM was received; work in progress has been committed.
    """
    store = store if isinstance(store, Store) else Store(store)
    named = plans if isinstance(plans, Mapping) else {_name_of(plans): plans}
    if runner not in RUNNERS:
        raise ValueError(f"runner must be one of {', '.join(RUNNERS)}, not {runner!r}.")
    apart = workers > 1 or runner != "local"
    if apart and type(store) is not Store:
        raise ValueError(NOT_BOTH)
    session = Session(named, store, only, command, commit_every, _silent if quiet else say)
    while True:
        died = ""
        if not apart:
            session.work()
        elif session.missing():
            # A worker may be started in another folder.
            folder = os.path.abspath(store.folder) if files.is_local(store.folder) else store.folder
            given = (named, folder, only, command, commit_every, session.run, prepare, quiet)
            died = RUNNERS[runner](workers, _worker, given)
            if died:
                say(died)
        before = dict(session.damaged)
        found = session.rows()
        left, failed = session.missing(), {**session.failed, **session.failed_elsewhere()}
        if failed:
            raise StepsFailedError(failed)
        if not left:
            for name in named:
                supersede(store, session.agenda.record(name))
            return found.rows
        if session.damaged == before:
            raise RuntimeError(
                f"{died or 'no worker finished'}: {len(left)} steps are left. Start the same run again to resume."
            )


def _name_of(plan: Any) -> str:
    """The name of a function, also of a partial one."""
    return str(getattr(getattr(plan, "func", plan), "__name__", "plan"))


def _worker(
    plans: Mapping[str, Plan],
    folder: str,
    only: str | None,
    command: str,
    commit_every: float,
    run: str,
    prepare: str,
    quiet: bool,
) -> None:
    if prepare:
        resolve(prepare)()

    def say(text: str) -> None:
        print(text, flush=True)

    Session(plans, Store(folder), only, command, commit_every, _silent if quiet else say, run).work()


def _silent(text: str) -> None:
    """Say nothing."""
