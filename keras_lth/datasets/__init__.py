"""Data sets as arrays, and batches in an order that can be resumed and forked.

`load(name)`, or the function with that name, returns `Splits`; `ordered` makes a dataset for `model.fit`. Data that
does not fit into memory stays in files: `from_files` with `tfds_files`, `tiny_imagenet` or a function.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_lth.datasets.images import Splits, digits, fashion_mnist, mnist, tfds

if TYPE_CHECKING:
    from keras_lth.datasets.augment import CentreCrop, Crop, Flip, RandomResizedCrop
    from keras_lth.datasets.files import Streamed, from_files
    from keras_lth.datasets.order import Ordered, ordered
    from keras_lth.datasets.sources import Source, tfds_files, tiny_imagenet

__all__ = [
    "CentreCrop", "Crop", "Flip", "Ordered", "RandomResizedCrop", "Source", "Splits", "Streamed", "digits",
    "fashion_mnist", "from_files", "load", "mnist", "ordered", "tfds", "tfds_files", "tiny_imagenet",
]  # fmt: skip

# What needs TensorFlow, by module; the arrays load without it.
_LATE = {
    "augment": ("CentreCrop", "Crop", "Flip", "RandomResizedCrop"),
    "files": ("Streamed", "from_files"),
    "order": ("Ordered", "ordered"),
    "sources": ("Source", "tfds_files", "tiny_imagenet"),
}
_NAMED: dict[str, Callable[..., Splits]] = {"digits": digits, "fashion_mnist": fashion_mnist, "mnist": mnist}


def load(name: str, **options: Any) -> Splits:
    """Load the data set `name`: "digits", "fashion_mnist", "mnist", or any image classification data set of TFDS.

    `options` are passed to the function with that name, or to `tfds`. Raises ValueError if TFDS does not know the name
    either.
    """
    if name in _NAMED:
        return _NAMED[name](**options)
    return tfds(name, **options)


def __getattr__(name: str) -> Any:
    for module, names in _LATE.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
