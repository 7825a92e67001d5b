"""A store that several hosts use as one: they compute the same steps together, and one of them reads and writes.

Under a strategy all hosts run the same plans. Only the chief needs access to the store. It sends what it reads, and
also its errors, to the others, so that all hosts take the same path.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np

from keras_lth.files.checkpoints import Checkpoint
from keras_lth.files.stores import AnyPath
from keras_lth.store.claims import Claim
from keras_lth.store.values import Store, Value


class Hosts(Protocol):
    """The hosts of a strategy; all of them make each call."""

    @property
    def chief(self) -> bool:
        """Return whether this host reads and writes."""

    def tell(self, data: bytes) -> bytes:
        """Return the bytes that the chief passed."""

    def any(self, flag: bool) -> bool:
        """Return whether any host says yes."""

    def check_same(self, digest: bytes, what: str) -> None:
        """Raise ``RuntimeError`` if the hosts have different ``what``."""


T = TypeVar("T")


def told(hosts: Hosts | None, act: Callable[[], T]) -> T:
    """Return what ``act`` returns on the chief, or raise its exception; without hosts, call it here."""
    if hosts is None:
        return act()
    answer: tuple[bool, Any] = (True, None)
    if hosts.chief:
        try:
            answer = (True, act())
        except Exception as error:
            answer = (False, error)
    # The bytes come from a process of this very run, as the gradients do.
    heard = hosts.tell(pickle.dumps(answer))
    well, what = answer if hosts.chief else pickle.loads(heard)
    if not well:
        raise what
    return what


class SharedStore(Store):
    """As `Store`, with the files on the chief. All hosts must make each call."""

    def __init__(self, folder: AnyPath, hosts: Hosts, *, create: bool = True) -> None:
        self._hosts = hosts
        self.folder, self.chief = os.fspath(folder), hosts.chief
        self._own: Store

        def open_it() -> None:
            self._own = Store(folder, create=create)

        self.told(open_it)

    def told(self, act: Callable[[], Any]) -> Any:
        """Return what ``act`` returns on the chief, or raise its exception."""
        return told(self._hosts, act)

    def agreed(self, flag: bool) -> bool:
        """Return whether any host says yes."""
        return self._hosts.any(flag)

    def token(self) -> str:
        """Return the token of the chief."""
        return self.told(lambda: self._own.token())

    def names(self) -> set[str]:
        """Return the names that the chief sees."""
        return self.told(lambda: self._own.names())

    def has(self, name: str) -> bool:
        """Return whether the chief has the value."""
        return self.told(lambda: self._own.has(name))

    def get(self, name: str) -> Value:
        """Return the value that the chief reads."""
        return self.told(lambda: self._own.get(name))

    def record(self, name: str) -> dict[str, Any]:
        """Return the record that the chief reads."""
        return self.told(lambda: self._own.record(name))

    def put(self, name: str, value: Value, record: Mapping[str, Any]) -> None:
        """Let the chief store a value."""
        self.told(lambda: self._own.put(name, value, record))

    def drop(self, name: str) -> None:
        """Let the chief remove a value."""
        self.told(lambda: self._own.drop(name))

    def settle(self) -> None:
        """Let the chief make removals durable."""
        self.told(lambda: self._own.settle())

    def plans(self) -> dict[str, dict[str, Any]]:
        """Return the plans that the chief reads."""
        return self.told(lambda: self._own.plans())

    def put_plan(self, name: str, known: Mapping[str, Any]) -> None:
        """Let the chief write the record of a plan."""
        self.told(lambda: self._own.put_plan(name, known))

    def drop_plan(self, name: str) -> None:
        """Let the chief remove the record of a plan."""
        self.told(lambda: self._own.drop_plan(name))

    def errors(self) -> dict[str, dict[str, Any]]:
        """Return the errors that the chief reads."""
        return self.told(lambda: self._own.errors())

    def put_error(self, name: str, said: Mapping[str, Any] | None) -> None:
        """Let the chief write the error."""
        self.told(lambda: self._own.put_error(name, said))

    def under_way(self) -> set[str]:
        """Return the trainings that the chief sees."""
        return self.told(lambda: self._own.under_way())

    @contextmanager
    def claim(self, key: str) -> Iterator[Claim | None]:
        """Claim work for all hosts."""
        with ExitStack() as held:
            mine: list[Claim | None] = [None]

            def take() -> bool:
                mine[0] = held.enter_context(self._own.claim(key))
                return mine[0] is not None

            yield _SharedClaim(self, mine[0]) if self.told(take) else None


class _SharedClaim(Claim):
    """A claim of all hosts, and its commits; the chief holds both."""

    def __init__(self, store: SharedStore, mine: Claim | None) -> None:
        self._store, self._mine = store, mine

    def latest(self) -> Checkpoint | None:
        """The last commit."""
        return self._act(lambda mine: mine.latest())

    def commit(self, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
        """Commit."""
        self._act(lambda mine: mine.commit(step, arrays, state))

    def check(self) -> None:
        """As `Claim.check`."""
        self._act(lambda mine: mine.check())

    def clear(self) -> None:
        """As `Claim.clear`."""
        self._act(lambda mine: mine.clear())

    def _act(self, act: Callable[[Claim], Any]) -> Any:
        return self._store.told(lambda: None if self._mine is None else act(self._mine))
