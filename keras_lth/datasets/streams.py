"""Training and test examples that stay in files, with the shape that a network sees."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_lth.datasets.augment import Augmentation, CentreCrop
from keras_lth.datasets.images import FOLDER_VARIABLE
from keras_lth.datasets.sources import Source, tfds_files, tiny_imagenet


@dataclass(frozen=True, eq=False)
class Streams:
    """What `Splits` are in memory: sources for `from_files`.

    Attributes:
        train, test: the sources.
        classes: the number of classes.
        shape: (height, width, channels) of an image as the network sees it, after augmentation or `evaluated`.
        evaluated: what brings an image to that shape when a network is measured; None for images that have it.
    """

    train: Source
    test: Source
    classes: int
    shape: tuple[int, int, int]
    evaluated: Augmentation | None = None

    def part(self, name: str) -> Source:
        """Return the source "train" or "test".

        Raises:
            ValueError: another name.
        """
        if name not in ("train", "test"):
            raise ValueError(f"data in files has the parts train and test, not {name!r}")
        found: Source = getattr(self, name)
        return found


def imagenet(size: int = 224) -> Streams:
    """Stream ImageNet by TFDS (imagenet2012), tested on its validation images at their centre.

    Train it with the augmentations "resized_crop_224" and "flip", or the size given.

    Raises:
        ModuleNotFoundError, FileNotFoundError: as in `tfds_files`.
    """
    train, test = (tfds_files("imagenet2012", split) for split in ("train", "validation"))
    # 299 of 299/0.875, as torchvision and the first paper do: 224 of 256.
    return Streams(train, test, 1000, (size, size, 3), CentreCrop(size, round(size / 0.875)))


def tiny_imagenet_streams(folder: str | os.PathLike[str] | None = None) -> Streams:
    """Stream TinyImageNet: 200 classes of 500 images of 64×64, tested on its validation images.

    Args:
        folder: what tiny-imagenet-200.zip unpacks to; $KERAS_LTH_DATA/tiny-imagenet-200 if omitted.

    Raises:
        FileNotFoundError: if it is not there; says where to put it.
    """
    place = Path(os.environ.get(FOLDER_VARIABLE, ".")) / "tiny-imagenet-200" if folder is None else Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(
            f"tiny_imagenet is not in {place}: unpack tiny-imagenet-200.zip into ${FOLDER_VARIABLE}, or give its folder"
        )
    return Streams(tiny_imagenet(place), tiny_imagenet(place, "val"), 200, (64, 64, 3))


STREAMS: Mapping[str, Callable[[], Streams]] = {
    "imagenet": imagenet,
    "imagenet_299": functools.partial(imagenet, 299),
    "tiny_imagenet": tiny_imagenet_streams,
}
