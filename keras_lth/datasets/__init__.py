"""Data sets as arrays, and batches in an order that can be resumed and forked.

`load(name)` or a function of the name gives `Splits`; `ordered` gives what `model.fit` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_lth.datasets.images import Splits, digits, fashion_mnist, mnist, tfds

if TYPE_CHECKING:
    from keras_lth.datasets.order import Ordered, ordered

__all__ = ["Ordered", "Splits", "digits", "fashion_mnist", "load", "mnist", "ordered", "tfds"]

_NAMED: dict[str, Callable[..., Splits]] = {"digits": digits, "fashion_mnist": fashion_mnist, "mnist": mnist}


def load(name: str, **options: Any) -> Splits:
    """The data set called `name`: "digits", "fashion_mnist", "mnist", or any TFDS name of image classification.

    `options` go to the function of that name, or to `tfds`. Raises ValueError if TFDS knows no such name either.
    """
    if name in _NAMED:
        return _NAMED[name](**options)
    return tfds(name, **options)


def __getattr__(name: str) -> Any:
    # Only `ordered` needs TensorFlow; the arrays load without it.
    if name in {"Ordered", "ordered"}:
        from keras_lth.datasets import order

        return getattr(order, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
