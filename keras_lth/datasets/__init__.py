"""Data sets as arrays, and batches in an order that can be resumed and forked.

`load(name)`, or the function with that name, returns `Splits`; `ordered` makes a dataset for `model.fit`. Data that
does not fit into memory stays in files: `from_files` with `tfds_files`, `tiny_imagenet` or a function. `derived` and
its parts (`held_out`, `subset`, `noisy_labels`, …) make other `Splits` of some.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_lth.datasets.arrays import from_arrays, npz
from keras_lth.datasets.derived import (
    NORMS,
    OPTIONS,
    check_options,
    corrupted_pixels,
    derived,
    disjoint,
    held_out,
    noisy_labels,
    normalised,
    per_class,
    permuted_labels,
    shrunk,
    subset,
)
from keras_lth.datasets.images import NO_HOLDOUT, PARTS, Splits, digits, fashion_mnist, mnist, tfds

if TYPE_CHECKING:
    from keras_lth.datasets.augment import CentreCrop, Crop, Flip, RandomResizedCrop
    from keras_lth.datasets.files import Streamed, from_files
    from keras_lth.datasets.order import Ordered, ordered
    from keras_lth.datasets.sources import Source, tfds_files, tiny_imagenet
    from keras_lth.datasets.streams import STREAMS, Streams

__all__ = [
    "NORMS", "NO_HOLDOUT", "OPTIONS", "PARTS", "STREAMS", "CentreCrop", "Crop", "Flip", "Ordered",
    "RandomResizedCrop", "Source", "Splits", "Streamed", "Streams", "check_options", "corrupted_pixels", "derived",
    "digits", "disjoint", "fashion_mnist", "from_arrays", "from_files", "held_out", "load", "mnist", "noisy_labels",
    "normalised", "npz", "ordered", "per_class", "permuted_labels", "shrunk", "subset", "tfds", "tfds_files",
    "tiny_imagenet",
]  # fmt: skip

# What needs TensorFlow, by module; the arrays load without it.
_LATE = {
    "augment": ("CentreCrop", "Crop", "Flip", "RandomResizedCrop"),
    "files": ("Streamed", "from_files"),
    "order": ("Ordered", "ordered"),
    "sources": ("Source", "tfds_files", "tiny_imagenet"),
    "streams": ("STREAMS", "Streams"),
}
_NAMED: dict[str, Callable[..., Splits]] = {"digits": digits, "fashion_mnist": fashion_mnist, "mnist": mnist}
# Names of the papers that TFDS spells in another way.
_TFDS = {"svhn": "svhn_cropped"}


def load(name: str, **options: Any) -> Splits:
    """Load the data set `name`.

    Args:
        name: "digits", "fashion_mnist" or "mnist"; the path of an .npz file; or any image classification data set of
            TFDS, such as "cifar10", "cifar100" or "svhn" (TFDS' svhn_cropped).
        options: for the function with that name, for `npz`, or for `tfds`.

    Raises:
        FileNotFoundError, ModuleNotFoundError: data that needs a network, or TFDS; says what to copy or install.
        ValueError: a name that TFDS does not know either.
    """
    if name in _NAMED:
        return _NAMED[name](**options)
    return npz(name, **options) if name.endswith(".npz") else tfds(_TFDS.get(name, name), **options)


def __getattr__(name: str) -> Any:
    for module, names in _LATE.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
