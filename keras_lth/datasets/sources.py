"""Sources of examples that do not fit into memory: record files of TFDS, folders of images, any function.

A source divides its examples among hosts, orders them by a key, and decodes them after that. Each example has an
identity, the same in every epoch, which seeds its augmentation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from keras_lth.datasets.builders import check_split, image_classes, prepare
from keras_lth.datasets.order import permutation

# Of whole files a host's share may be smaller than the mean; beyond this the examples are shared one by one.
_LOSS = 0.02
# Files that are read in turn, and records taken from each at a time.
_CYCLE, _BLOCK = 16, 16


class Source(Protocol):
    """The interface that `from_files` reads. Hosts are counted from 0."""

    def count(self, host: int, hosts: int) -> int:
        """Return the number of examples of the host in an epoch."""

    def records(self, host: int, hosts: int, key: int | None) -> Any:
        """Return a `tf.data.Dataset` of (identity, record): int64 scalars and tensors of equal shapes, not yet decoded.

        `key` in [0, 2**63) determines the order, which is as mixed as is cheap; without a key it is the stored order.
        """

    def decode(self, record: Any) -> Any:
        """Return a record as (x, y) or (x, y, sample_weight)."""


class RecordFiles:
    """TFRecord files with known numbers of examples.

    Each host reads its own files: file i belongs to host i mod hosts. If the smallest share would be more than 2 %
    below the mean, every host reads all files and takes every hosts-th example instead. The order of a host's files is
    shuffled, and 16 of them are read in turn.

    Args:
        files: (path, examples to skip, examples to take) of each file.
        decode: serialised example → (x, y).
    """

    def __init__(self, files: Sequence[tuple[str, int, int]], decode: Callable[[Any], Any]) -> None:
        self.paths = np.array([path for path, _, _ in files])
        self.skips = np.array([skip for _, skip, _ in files], np.int64)
        self.takes = np.array([take for _, _, take in files], np.int64)
        self.begins = np.cumsum(self.takes) - self.takes
        self.decode = decode

    def whole_files(self, hosts: int) -> bool:
        """Return whether each host reads its own files."""
        smallest = min(int(self.takes[host::hosts].sum()) for host in range(hosts))
        return smallest * hosts >= (1 - _LOSS) * int(self.takes.sum())

    def count(self, host: int, hosts: int) -> int:
        """Return the number of examples of the host in an epoch."""
        if self.whole_files(hosts):
            return int(self.takes[host::hosts].sum())
        return len(range(host, int(self.takes.sum()), hosts))

    def records(self, host: int, hosts: int, key: int | None) -> Any:
        """Return the identity, which is the position in the split, and the serialised example."""
        files = np.arange(len(self.paths))
        whole = self.whole_files(hosts)
        if whole:
            files = files[host::hosts]
        if key is not None:
            files = files[permutation(len(files), tf.constant(key, tf.int64), tf.constant(0, tf.int64)).numpy()]
        parts = tuple(part[files] for part in (self.paths, self.skips, self.takes, self.begins))

        def read(path: Any, skip: Any, take: Any, begin: Any) -> Any:
            serialised = tf.data.TFRecordDataset(path).skip(skip).take(take)
            data = tf.data.Dataset.zip(tf.data.Dataset.range(begin, begin + take), serialised)
            return data if whole else data.filter(lambda identity, _: identity % hosts == host)

        cycle = 1 if key is None else min(_CYCLE, len(files))
        return tf.data.Dataset.from_tensor_slices(parts).interleave(
            read, cycle_length=cycle, block_length=_BLOCK, num_parallel_calls=cycle, deterministic=True
        )


class ImageFiles:
    """Image files with three channels, each read when it is needed, in a permutation of all files of a host.

    Host h has the files h, h + hosts, …
    """

    def __init__(self, paths: Sequence[str], labels: Sequence[int], shape: tuple[int | None, int | None, int]) -> None:
        self.paths = np.array(paths)
        self.labels = np.array(labels, np.int32)
        self.shape = shape

    def count(self, host: int, hosts: int) -> int:
        """Return the number of images of the host in an epoch."""
        return len(self.paths[host::hosts])

    def records(self, host: int, hosts: int, key: int | None) -> Any:
        """Return the position in the list, and path and label."""
        mine = np.arange(len(self.paths))[host::hosts]
        if key is not None:
            mine = mine[permutation(len(mine), tf.constant(key, tf.int64), tf.constant(0, tf.int64)).numpy()]
        return tf.data.Dataset.from_tensor_slices((mine, (self.paths[mine], self.labels[mine])))

    def decode(self, record: tuple[Any, Any]) -> Any:
        """Return (float32 image in [0, 1], int32 label)."""
        path, label = record
        image = tf.ensure_shape(tf.io.decode_jpeg(tf.io.read_file(path), channels=3), self.shape)
        return tf.cast(image, tf.float32) / 255, label


class Sharded:
    """Examples of a function `shard(index, count) → tf.data.Dataset` that always returns the same order.

    The identity of example j of shard i of count is j·count + i: its position in the whole, if the shards alternate as
    those of `Dataset.shard` do. The key has no effect here; only windows are shuffled.
    """

    def __init__(
        self,
        shard: Callable[[int, int], Any],
        *,
        examples: int | None = None,
        decode: Callable[..., Any] | None = None,
    ) -> None:
        self.shard = shard
        self.examples = examples
        self._decode = decode

    def count(self, host: int, hosts: int) -> int:
        """Return the shard's cardinality, else its part of `examples`."""
        if self.examples is not None:
            return len(range(host, self.examples, hosts))
        known = int(self.shard(host, hosts).cardinality())
        if known < 0:
            raise ValueError(
                f"from_files: shard({host}, {hosts}) does not report its number of examples: pass examples=, the "
                "number in all shards together"
            )
        return known

    def records(self, host: int, hosts: int, key: int | None) -> Any:
        """Return the identity and the element of the function's dataset."""
        return self.shard(host, hosts).enumerate().map(lambda j, record: (j * hosts + host, record))

    def decode(self, record: Any) -> Any:
        """Decode the record with the given function."""
        if self._decode is None:
            return record
        return self._decode(*record) if isinstance(record, tuple) else self._decode(record)


def tfds_files(name: str, split: str = "train", *, folder: str | os.PathLike[str] | None = None) -> RecordFiles:
    """Read the record files of a TFDS image classification: x float32 in [0, 1] of shape (h, w, c), y int32.

    Args:
        name: the name in TFDS: "imagenet2012", "cifar10", …
        split: "train", "validation", …; TFDS' slices work.
        folder: where TFDS stores its data, also "gs://…"; TFDS' own default if omitted.

    The first use of a name needs a network (ImageNet: the two archives in TFDS' folder for manual downloads).

    Raises:
        ModuleNotFoundError: if tensorflow-datasets is not installed.
        FileNotFoundError: if the data is not in the folder and cannot be downloaded; says what to copy.
        ValueError: if TFDS does not know the name or split, it is not an image classification with 8-bit images, or it
            was prepared in a format other than TFRecord.
    """
    _, builder = image_classes(name, folder)
    features = builder.info.features
    if features["image"].np_dtype != np.uint8:
        raise ValueError(f"TFDS' {name!r} needs images in 8 bits, got {features['image'].np_dtype.__name__}")
    prepare(builder)
    check_split(builder, split)
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            f"TFDS' {name!r} was prepared as {builder.info.file_format.value}: prepare it as tfrecord, "
            "tfds build --file_format=tfrecord"
        )

    def decode(record: Any) -> Any:
        example = features.deserialize_example(record)
        return tf.cast(example["image"], tf.float32) / 255, tf.cast(example["label"], tf.int32)

    files = [(str(one.filename), one.skip, one.take) for one in builder.info.splits[split].file_instructions]
    return RecordFiles([file for file in files if file[2] > 0], decode)


def tiny_imagenet(folder: str | os.PathLike[str], split: str = "train") -> ImageFiles:
    """Read TinyImageNet as unpacked from tiny-imagenet-200.zip: 200 classes, 64×64, 500 training images per class.

    Reads train/CLASS/images/*.JPEG, or for split "val" val/images with the classes of val/val_annotations.txt. Labels
    number the classes of train/ in alphabetical order. TFDS does not have this data set.

    Raises:
        FileNotFoundError: if the folder has another layout.
        ValueError: for another split, or an annotation of an unknown class.
    """
    root = Path(folder)
    if split not in {"train", "val"}:
        raise ValueError(
            f"tiny_imagenet: split must be 'train' or 'val', got {split!r}; the test images have no labels"
        )
    if not (root / "train").is_dir():
        raise FileNotFoundError(f"{root} has no folder train: give the folder that tiny-imagenet-200.zip unpacks to")
    classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    if split == "train":
        found = [(path, label) for label, name in enumerate(classes) for path in _images(root / "train" / name)]
    else:
        annotations = root / "val" / "val_annotations.txt"
        if not annotations.is_file():
            raise FileNotFoundError(f"{annotations} is missing: it lists the classes of the images in val/images")
        rows = [line.split("\t")[:2] for line in annotations.read_text().splitlines() if line.strip()]
        unknown = sorted({row[-1] for row in rows} - set(classes))
        if unknown:
            raise ValueError(f"{annotations} names {unknown[0]!r}, which is not a folder of train")
        found = [(root / "val" / "images" / name, classes.index(label)) for name, label in rows]
    if not found:
        raise FileNotFoundError(f"{root} has no images of split {split!r}")
    return ImageFiles([str(path) for path, _ in found], [label for _, label in found], (64, 64, 3))


def _images(folder: Path) -> list[Path]:
    return sorted((folder / "images").glob("*.JPEG"))
