"""Builders of TensorFlow Datasets, with errors that say what to do."""

from __future__ import annotations

import os
from typing import Any

OFFLINE = (
    "without a network there are digits, fashion_mnist (Debian's package dataset-fashion-mnist), and an .npz file or "
    "a function of your own"
)
# Of the text of another library's error.
_WIDTH = 200


def image_classes(name: str, folder: str | os.PathLike[str] | None) -> tuple[Any, Any]:
    """Return TFDS and its builder of `name`, whose features have an "image" and a "label"; nothing is prepared yet.

    Raises:
        ModuleNotFoundError: if tensorflow-datasets is not installed.
        ImportError: if it does not work with the installed TensorFlow.
        ValueError: if TFDS does not know the name, or it is not an image classification data set.
    """
    try:
        import tensorflow_datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name!r} needs TFDS: pip install 'keras_lth[tfds]'; {OFFLINE}") from error
    if not hasattr(tensorflow_datasets, "builder"):
        # It prints why, and is then a module without names: tensorflow-metadata refuses an older protobuf.
        raise ImportError(
            f"{name!r} needs TFDS, whose import failed (its traceback is above): TensorFlow 2.19 needs pip install "
            f"'tensorflow-metadata<1.18'; {OFFLINE}"
        )
    try:
        builder = tensorflow_datasets.builder(name, data_dir=None if folder is None else os.fspath(folder))
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        known = "neither here (digits, fashion_mnist, mnist) nor in TFDS"
        raise ValueError(f"no data set is called {name!r}, {known}") from error
    features, kinds = builder.info.features, tensorflow_datasets.features
    named = dict(features.items()) if isinstance(features, kinds.FeaturesDict) else {}
    if not isinstance(named.get("image"), kinds.Image) or not isinstance(named.get("label"), kinds.ClassLabel):
        raise ValueError(
            f"TFDS' {name!r} is not an image classification data set: its features are {features}, not image and label"
        )
    return tensorflow_datasets, builder


def prepare(builder: Any) -> None:
    """Download and prepare a data set, unless its folder has it.

    Raises:
        FileNotFoundError: if that fails; one line that says what to copy, and which data needs no network.
    """
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS re-raises any exception of its downloader
        raise FileNotFoundError(
            f"{builder.name} is not in {builder.data_dir}, and TFDS could not prepare it ({brief(error)}): run once "
            f"with a network, or copy that folder from a machine that has it; {OFFLINE}"
        ) from error


def brief(error: BaseException) -> str:
    """Return the kind and the words of another library's error as one line, cut at 200 characters."""
    about = " ".join(f"{type(error).__name__}: {error}".split())
    return about if len(about) <= _WIDTH else about[: _WIDTH - 1] + "…"


def check_split(builder: Any, split: str) -> None:
    """Raise ValueError if a prepared builder has no such split; TFDS' slices, such as "train[:90%]", are splits."""
    splits = builder.info.splits
    if splits and split.split("[")[0] not in splits:
        raise ValueError(f"TFDS' {builder.name!r} has no split {split!r}; it has {', '.join(splits)}")
