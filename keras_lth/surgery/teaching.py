"""Methods of Keras' classes that masks need to act in, wrapped once in a process.

A masked variable may be trained by any optimizer and read by any model, those made after the mask too. So the classes
are wrapped, not instances; for variables without a mask a wrapped method does what it did.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["Living", "Wrap", "family", "teach"]

Wrap = Callable[[Any], Any]
_TAUGHT = "_keras_lth_taught"


def teach(base: type, wraps: Mapping[str, Wrap]) -> None:
    """Replace each named method by ``wrap(method)``: in ``base``, and in every subclass so far that has its own."""
    for cls in family(base):
        for name, wrap in wraps.items():
            own = getattr(base, name, None) if cls is base else vars(cls).get(name)
            if own is not None and not hasattr(own, _TAUGHT):
                taught = functools.wraps(own)(wrap(own))
                setattr(taught, _TAUGHT, True)
                setattr(cls, name, taught)


def family(cls: Any) -> Iterator[Any]:
    """A class and, so far, everything derived from it."""
    yield cls
    for derived in cls.__subclasses__():
        yield from family(derived)


class Living:
    """The live objects of a class: those so far are looked for once, later ones are announced.

    To look among all objects of a process takes up to a second, so it is done once.

    Args:
        base: the class; its subclasses count.
        method: a method of it that announces; None where `announce` is called by hand.
    """

    def __init__(self, base: type, method: str | None = None) -> None:
        self._base, self._method = base, method
        self._looked = False
        self._known: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def __iter__(self) -> Iterator[Any]:
        if not self._looked:
            self._looked = True
            if self._method is not None:
                teach(self._base, {self._method: self._announcing})
            # By type and not by isinstance, which runs code of proxies and lets lazy modules import.
            kinds = set(family(self._base))
            self._known.update({id(thing): thing for thing in gc.get_objects() if type(thing) in kinds})
        return iter(list(self._known.values()))

    def announce(self, thing: Any) -> None:
        """Count ``thing`` among them."""
        self._known[id(thing)] = thing

    def _announcing(self, before: Callable[..., Any]) -> Callable[..., Any]:
        def announce(this: Any, *args: Any, **kwargs: Any) -> Any:
            self.announce(this)
            return before(this, *args, **kwargs)

        return announce
