"""A store that several hosts use as one: they make the same steps together, one of them reads and writes.

Under a strategy all hosts run the same plans. Only the chief needs to see the store; what it finds there, also what it
fails with, the others hear, so that all of them take the same way.
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
    """The hosts of a strategy; each call is made by all of them."""

    @property
    def chief(self) -> bool:
        """Whether this is the one that reads and writes."""

    def tell(self, data: bytes) -> bytes:
        """The bytes that the chief has given."""

    def any(self, flag: bool) -> bool:
        """Whether any of them says so."""

    def check_same(self, digest: bytes, what: str) -> None:
        """Raise ``RuntimeError`` where they hold different ``what``."""


T = TypeVar("T")


def told(hosts: Hosts | None, act: Callable[[], T]) -> T:
    """What ``act`` returns, or raises, on the chief; without hosts, here."""
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
    """As `Store`, of which the chief holds the files. Each call must be made by all hosts."""

    def __init__(self, folder: AnyPath, hosts: Hosts, *, create: bool = True) -> None:
        self._hosts = hosts
        self.folder, self.chief = os.fspath(folder), hosts.chief
        self._own: Store

        def open_it() -> None:
            self._own = Store(folder, create=create)

        self.told(open_it)

    def told(self, act: Callable[[], Any]) -> Any:
        """What ``act`` returns, or raises, on the chief."""
        return told(self._hosts, act)

    def agreed(self, flag: bool) -> bool:
        """Whether any host says so."""
        return self._hosts.any(flag)

    def token(self) -> str:
        """Of the chief."""
        return self.told(lambda: self._own.token())

    def names(self) -> set[str]:
        """As the chief sees them."""
        return self.told(lambda: self._own.names())

    def has(self, name: str) -> bool:
        """Whether the chief has it."""
        return self.told(lambda: self._own.has(name))

    def get(self, name: str) -> Value:
        """The value that the chief reads."""
        return self.told(lambda: self._own.get(name))

    def record(self, name: str) -> dict[str, Any]:
        """The record that the chief reads."""
        return self.told(lambda: self._own.record(name))

    def put(self, name: str, value: Value, record: Mapping[str, Any]) -> None:
        """Let the chief keep a value."""
        self.told(lambda: self._own.put(name, value, record))

    def drop(self, name: str) -> None:
        """Let the chief remove a value."""
        self.told(lambda: self._own.drop(name))

    def settle(self) -> None:
        """Let the chief keep what was removed removed."""
        self.told(lambda: self._own.settle())

    def plans(self) -> dict[str, dict[str, Any]]:
        """What the chief knows of plans."""
        return self.told(lambda: self._own.plans())

    def put_plan(self, name: str, known: Mapping[str, Any]) -> None:
        """Let the chief write it."""
        self.told(lambda: self._own.put_plan(name, known))

    def drop_plan(self, name: str) -> None:
        """Let the chief remove it."""
        self.told(lambda: self._own.drop_plan(name))

    def errors(self) -> dict[str, dict[str, Any]]:
        """What the chief reads."""
        return self.told(lambda: self._own.errors())

    def put_error(self, name: str, said: Mapping[str, Any] | None) -> None:
        """Let the chief note it."""
        self.told(lambda: self._own.put_error(name, said))

    def under_way(self) -> set[str]:
        """As the chief sees it."""
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
