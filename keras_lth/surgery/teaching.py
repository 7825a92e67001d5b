"""Methods of Keras' classes that masks need to act in, wrapped once in a process.

A masked variable may be trained by any optimizer and read by any model, those made after the mask too. So the classes
are wrapped, not instances; for variables without a mask a wrapped method does what it did.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["Wrap", "family", "teach"]

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
