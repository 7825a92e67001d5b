"""Wrap the methods of Keras' classes in which masks must act, once per process.

Any optimizer may train a masked variable and any model may read it, including those created after the mask. So classes
are wrapped, not instances. For variables without a mask a wrapped method behaves as before.
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
    """Replace each named method by ``wrap(method)``, in ``base`` and in every existing subclass that overrides it."""
    for cls in family(base):
        for name, wrap in wraps.items():
            own = getattr(base, name, None) if cls is base else vars(cls).get(name)
            if own is not None and not hasattr(own, _TAUGHT):
                taught = functools.wraps(own)(wrap(own))
                setattr(taught, _TAUGHT, True)
                setattr(cls, name, taught)


def family(cls: Any) -> Iterator[Any]:
    """Return a class and all its existing subclasses."""
    yield cls
    for derived in cls.__subclasses__():
        yield from family(derived)


class Living:
    """The live objects of a class: existing ones are searched for once, later ones register themselves.

    A search of all objects of a process takes up to a second, so it runs once.

    Args:
        base: the class; its subclasses are included.
        method: a method of it that registers the object; None if `announce` is called by hand.
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
            # By type, not isinstance, which would run code of proxies and trigger lazy imports.
            kinds = set(family(self._base))
            self._known.update({id(thing): thing for thing in gc.get_objects() if type(thing) in kinds})
        return iter(list(self._known.values()))

    def announce(self, thing: Any) -> None:
        """Register ``thing``."""
        self._known[id(thing)] = thing

    def _announcing(self, before: Callable[..., Any]) -> Callable[..., Any]:
        def announce(this: Any, *args: Any, **kwargs: Any) -> Any:
            self.announce(this)
            return before(this, *args, **kwargs)

        return announce
