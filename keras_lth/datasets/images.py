"""Image classification data sets as arrays in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_lth.datasets.builders import brief, check_split, image_classes, prepare
from keras_lth.datasets.idx import read_idx

FOLDER_VARIABLE = "KERAS_LTH_DATA"
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_DIGITS_TRAINED_PER_CLASS = 144

Pair = tuple[np.ndarray, np.ndarray]
PARTS = ("train", "test", "holdout")
NO_HOLDOUT = (
    "nothing is held out of the training examples: set data_options={'holdout': 0.1} in the config, or use "
    "keras_lth.datasets.held_out(splits, 0.1)"
)


@dataclass(frozen=True, eq=False)
class Splits:
    """Training and test examples: x float32 in [0, 1] of shape (n, height, width, channels), y int32 of shape (n,).

    ``(x, y), (x_test, y_test), classes = splits`` unpacks them. `holdout` has examples that were taken out of the
    training part (`keras_lth.datasets.held_out`); None without.
    """

    train: Pair
    test: Pair
    classes: int
    holdout: Pair | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.train, self.test, self.classes))

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of an example."""
        return tuple(self.train[0].shape[1:])

    def part(self, name: str) -> Pair:
        """Return the examples of "train", "test" or "holdout".

        Raises:
            ValueError: another name, or "holdout" if nothing is held out; says how to hold out examples.
        """
        if name not in PARTS:
            raise ValueError(f"data has the parts {', '.join(PARTS)}, not {name!r}")
        if name == "holdout" and self.holdout is None:
            raise ValueError(NO_HOLDOUT)
        found: Pair = getattr(self, name)
        return found


def digits() -> Splits:
    """Load the UCI digits that scikit-learn ships: 1 797 images of 8×8 with 17 grey levels, 10 classes, no download.

    The split is fixed: 144 examples of each class train (1 440, which batches of 60 divide) and the other 357 test. The
    test examples of a class are spread evenly over the file, which runs from writer to writer: of c examples in file
    order and t = c − 144, example i is one if ⌊(i + 1)t/c⌋ > ⌊it/c⌋.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
    (its test part).
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = np.asarray(bunch.target)
    held_out = np.zeros(len(labels), bool)
    for label in range(10):
        (places,) = np.nonzero(labels == label)
        count = len(places)
        reached = np.arange(count + 1) * (count - _DIGITS_TRAINED_PER_CLASS) // count
        held_out[places] = np.diff(reached) > 0
    x = (np.asarray(bunch.images) / 16).astype(np.float32)[..., np.newaxis]
    y = labels.astype(np.int32)
    return Splits((x[~held_out], y[~held_out]), (x[held_out], y[held_out]), 10)


def fashion_mnist(folder: str | os.PathLike[str] | None = None) -> Splits:
    """Load Fashion-MNIST: 60 000 training and 10 000 test images of 28×28, 10 classes.

    The four IDX files (.gz or not) are searched for in `folder`; without it in $KERAS_LTH_DATA/fashion_mnist (or
    …/fashion-mnist), then in the folder of Debian's package dataset-fashion-mnist. TFDS is tried last.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms", 2017.

    Raises:
        FileNotFoundError: if the data is in none of these places; the message says how to get it.
        ValueError: a file has wrong contents; names it.
    """
    return _mnist_like(
        "fashion_mnist", folder, [DEBIAN_FASHION_MNIST], "install Debian's package dataset-fashion-mnist, or "
    )


def mnist(folder: str | os.PathLike[str] | None = None) -> Splits:
    """Load MNIST: 60 000 training and 10 000 test images of 28×28, 10 classes.

    The four IDX files (.gz or not) are searched for in `folder`; without it in $KERAS_LTH_DATA/mnist. TFDS is tried
    last.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998.

    Raises:
        FileNotFoundError: if the data is in none of these places; the message says how to get it.
        ValueError: a file has wrong contents; names it.
    """
    return _mnist_like("mnist", folder, [], "")


def tfds(
    name: str,
    *,
    train: str = "train",
    test: str | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Splits:
    """Load an image classification data set of TensorFlow Datasets, whole, in the order of its files.

    Args:
        name: the name in TFDS: "mnist", "cifar10", "fashion_mnist:3.0.1", …
        train: the split to train on; TFDS' slices work: "train[:90%]" trains on 90 %.
        test: the split to test on; by default "test", or "validation" if there is no "test".
        folder: where TFDS stores its data; TFDS' own default if omitted.

    The first use of a name needs a network, later ones do not.

    Raises:
        ModuleNotFoundError: if tensorflow-datasets is not installed.
        FileNotFoundError: if the data is not in the folder and cannot be downloaded; says what to copy.
        ValueError: if TFDS does not know the name or split, or it is not an image classification with one image size.
    """
    tensorflow_datasets, builder = image_classes(name, folder)
    image, label = builder.info.features["image"], builder.info.features["label"]
    if None in image.shape or image.np_dtype != np.uint8:
        raise ValueError(
            f"TFDS' {name!r} needs images of one size in 8 bits, got {image.shape} {image.np_dtype.__name__}: images "
            f"of several sizes are read by from_files(tfds_files({name!r}), augment=RandomResizedCrop(224), …)"
        )
    prepare(builder)
    splits = builder.info.splits
    if test is None:
        test = "validation" if "validation" in splits and "test" not in splits else "test"
    for split in (train, test):
        check_split(builder, split)
    pairs = [_tfds_arrays(tensorflow_datasets, builder, split) for split in (train, test)]
    return Splits(pairs[0], pairs[1], int(label.num_classes))


def _tfds_arrays(tensorflow_datasets: Any, builder: Any, split: str) -> Pair:
    options = tensorflow_datasets.ReadConfig(interleave_cycle_length=1, add_tfds_id=False)
    data = builder.as_dataset(split=split, batch_size=1024, shuffle_files=False, read_config=options)
    batches = [(batch["image"], batch["label"]) for batch in tensorflow_datasets.as_numpy(data)]
    if not batches:
        raise ValueError(f"TFDS' {builder.name!r} has no example in split {split!r}")
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    return _scaled(images), labels.astype(np.int32)


def _scaled(image: np.ndarray) -> np.ndarray:
    return np.divide(image, 255, dtype=np.float32)


def _mnist_like(name: str, folder: str | os.PathLike[str] | None, places: Sequence[Path], package: str) -> Splits:
    if folder is not None:
        return _read_folder(Path(folder))
    base = os.environ.get(FOLDER_VARIABLE)
    named = [Path(base, name), Path(base, name.replace("_", "-"))] if base else []
    for place in [*named, *places]:
        if _file(place, "train-images-idx3-ubyte") is not None:
            return _read_folder(place)
    try:
        return tfds(name)
    except Exception as error:  # TFDS re-raises any exception of its downloader
        looked = ", ".join(str(place) for place in [*named, *places]) or f"${FOLDER_VARIABLE} (not set)"
        tried, install = f", and TFDS could not prepare it ({brief(error.__cause__ or error)})", ""
        if isinstance(error, ModuleNotFoundError):
            tried, install = "", "pip install 'keras_lth[tfds]' and "
        raise FileNotFoundError(
            f"{name} is not in {looked}{tried}: {package}put its four IDX files into ${FOLDER_VARIABLE}/{name} or a "
            f"folder given as folder=…, or {install}run once with a network"
        ) from error


def _read_folder(folder: Path) -> Splits:
    train, test = (_read_pair(folder, prefix) for prefix in ("train", "t10k"))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(f"{folder}: training images are {train[0].shape[1:]}, test images {test[0].shape[1:]}")
    return Splits(train, test, 10)


def _read_pair(folder: Path, prefix: str) -> Pair:
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    files = [_file(folder, name) for name in names]
    for name, file in zip(names, files, strict=True):
        if file is None:
            raise FileNotFoundError(f"{folder} has no {name}.gz or {name}")
    images, labels = (read_idx(file, axes=axes) for file, axes in zip(files, (3, 1), strict=True) if file is not None)
    if len(images) != len(labels):
        raise ValueError(f"{folder}: {names[0]} has {len(images)} images, {names[1]} {len(labels)} labels")
    if labels.size and labels.max() > 9:
        raise ValueError(f"{folder}: {names[1]} holds the label {labels.max()}; the classes are 0 to 9")
    return _scaled(images)[..., np.newaxis], labels.astype(np.int32)


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
