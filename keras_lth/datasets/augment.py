"""Augmentation of images as a function of (seed, epoch, example).

The result for an example does not depend on its batch, on its position in the batch, or on the number of replicas that
share the batch. Shapes are static if the images' are, and nothing calls the host, so it works eagerly, in `tf.data`,
and under XLA.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_lth.arguments import is_whole
from keras_lth.datasets.noise import Noise, below, uniform

Augmentation = Callable[[Any, Noise], Any]
# Szegedy's crop is sampled until it is inside the image, at most ten times.
_ATTEMPTS = 10


@dataclass(frozen=True)
class Flip:
    """Mirrors an image left to right, half of the time."""

    def __call__(self, images: Any, noise: Noise) -> Any:
        """Flip images of shape (n, h, w, c) and any dtype; the result has the same shape."""
        flipped = noise.words()[:, 0, 0] >= 2**31
        return tf.where(flipped[:, tf.newaxis, tf.newaxis, tf.newaxis], tf.reverse(images, [2]), images)


@dataclass(frozen=True)
class Crop:
    """Crops a window of the image's own size from the image with a border of `padding` zeros.

    The window's corner is uniform over 0 … 2·padding in both directions. With padding 4 this and `Flip` are the usual
    augmentation of CIFAR-10 (K. He et al., "Deep residual learning for image recognition", 2015, section 4.2; also
    open_lth's).
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if not is_whole(self.padding, 0) or self.padding >= 2**16:
            raise ValueError(f"Crop: padding must be an integer in [0, 65536), got {self.padding!r}")

    def __call__(self, images: Any, noise: Noise) -> Any:
        """Crop images of shape (n, h, w, c) and any dtype; the result has the same shape."""
        n, height, width, channels = _shape(images)
        offsets = below(2 * self.padding + 1, noise.words()[:, 0, :2]) - self.padding
        rows, inside_rows = _within(tf.cast(offsets[:, :1], tf.int32) + tf.range(height), height)
        columns, inside_columns = _within(tf.cast(offsets[:, 1:], tf.int32) + tf.range(width), width)
        lines = tf.range(n)[:, tf.newaxis] * height + rows
        places = lines[:, :, tf.newaxis] * width + columns[:, tf.newaxis]
        window = tf.gather(tf.reshape(images, [-1, channels]), places)
        inside = inside_rows[:, :, tf.newaxis] & inside_columns[:, tf.newaxis]
        return tf.where(inside[..., tf.newaxis], window, tf.zeros([], images.dtype))


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crops a random window of the image and resizes it to size × size.

    The window's area is uniform over `scale` times the image's, its ratio of width to height log-uniform over `ratio`,
    its position uniform where it fits. The first of ten samples that fits is used, else the largest central window with
    the ratio closest to the image's. Resizing is bilinear between pixel centres, without antialiasing.

    Source: C. Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6, with the bounds and the fallback
    of torchvision's RandomResizedCrop.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _check_size("RandomResizedCrop", self.size)
        for name, (low, high), limit in (("scale", self.scale, 1.0), ("ratio", self.ratio, math.inf)):
            if not 0 < low <= high <= limit or high == math.inf:
                raise ValueError(
                    f"RandomResizedCrop: {name} must be (low, high) with 0 < low <= high <= {limit}, got {(low, high)}"
                )

    def __call__(self, images: Any, noise: Noise) -> Any:
        """Crop floating images of shape (n, h, w, c) to (n, size, size, c)."""
        return resampled(images, self.boxes(images, noise), self.size)

    def boxes(self, images: Any, noise: Noise) -> Any:
        """Return the windows as float32, shape (n, 4): upper edge, left edge, height and width, in whole pixels."""
        _, height, width, _ = _shape(images)
        words = noise.words(_ATTEMPTS)
        tall, wide = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
        area = tall * wide * _between(self.scale, uniform(words[..., 0]))
        low, high = (math.log(bound) for bound in self.ratio)
        ratio = tf.exp(_between((low, high), uniform(words[..., 1])))
        h, w = tf.round(tf.sqrt(area / ratio)), tf.round(tf.sqrt(area * ratio))
        fits = (h >= 1) & (h <= tall) & (w >= 1) & (w <= wide)
        # The position of a window that does not fit is not used, but must be computable.
        free_h, free_w = (tf.cast(tf.maximum(free, 0.0), tf.int64) for free in (tall - h, wide - w))
        y, x = (tf.cast(below(free + 1, words[..., i]), tf.float32) for i, free in ((2, free_h), (3, free_w)))
        first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
        chosen = tf.gather(tf.stack([y, x, h, w], axis=-1), first, batch_dims=1)
        whole_h = tf.minimum(tall, tf.maximum(tf.round(wide / self.ratio[0]), 1.0))
        whole_w = tf.minimum(wide, tf.maximum(tf.round(tall * self.ratio[1]), 1.0))
        middle = tf.stack([tf.floor((tall - whole_h) / 2), tf.floor((wide - whole_w) / 2), whole_h, whole_w])
        return tf.where(tf.reduce_any(fits, axis=1, keepdims=True), chosen, middle)


@dataclass(frozen=True)
class CentreCrop:
    """Resizes the image's shorter side to `resize` and crops the central size × size: ImageNet's evaluation.

    Both are done as one bilinear resampling of the central square whose side is size/resize of the shorter side.
    """

    size: int = 224
    resize: int = 256

    def __post_init__(self) -> None:
        _check_size("CentreCrop", self.size)
        if not isinstance(self.resize, int) or self.resize < self.size:
            raise ValueError(f"CentreCrop: resize must be an integer of at least size={self.size}, got {self.resize!r}")

    def __call__(self, images: Any, noise: Noise | None = None) -> Any:
        """Crop floating images of shape (n, h, w, c) to (n, size, size, c). Draws no random numbers."""
        n, height, width, _ = _shape(images)
        tall, wide = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
        side = tf.minimum(tall, wide) * (self.size / self.resize)
        box = tf.stack([(tall - side) / 2, (wide - side) / 2, side, side])
        return resampled(images, tf.broadcast_to(box, [n, 4]), self.size, confined=False)


def resampled(images: Any, boxes: Any, size: int, *, confined: bool = True) -> Any:
    """Resize the windows `boxes` of the images to size × size.

    Bilinear between pixel centres: output row i of a window of height h at y is at y + (i + ½)·h/size − ½. It is
    computed in float32.

    Args:
        images: floating, of shape (n, h, w, c).
        boxes: float32 of shape (n, 4): upper edge, left edge, height, width.
        size: the size of the result, (n, size, size, c), in the images' dtype.
        confined: ignore pixels outside a window, as if it were cut out first; otherwise only the image has edges.
    """
    if not images.dtype.is_floating:
        raise ValueError(f"only floating images can be resized, got {images.dtype.name}: divide them by 255 first")
    kind = images.dtype
    images = tf.cast(images, tf.float32)
    for axis in (0, 1):
        place = boxes[:, axis, tf.newaxis], boxes[:, axis + 2, tf.newaxis]
        images = _resampled_axis(images, *place, size, axis + 1, confined)
    return tf.cast(images, kind)


def _resampled_axis(images: Any, begin: Any, length: Any, size: int, axis: int, confined: bool) -> Any:
    extent = _shape(images)[axis]
    at = begin - 0.5 + (tf.range(size, dtype=tf.float32) + 0.5) * (length / size)
    at = tf.clip_by_value(at, 0.0, tf.cast(extent - 1, tf.float32))
    if confined:
        at = tf.clip_by_value(at, begin, begin + length - 1)
    lower = tf.floor(at)
    share = tf.expand_dims(tf.expand_dims(at - lower, -1), 3 - axis)
    lower = tf.cast(lower, tf.int32)
    upper = tf.minimum(lower + 1, extent - 1)
    a, b = (tf.gather(images, rows, axis=axis, batch_dims=1) for rows in (lower, upper))
    return a * (1 - share) + b * share


NAMED: dict[str, Callable[[], Augmentation]] = {
    "flip": Flip,
    "crop": Crop,
    # ImageNet's, for ResNets and for Inception-v3.
    "resized_crop_224": functools.partial(RandomResizedCrop, 224),
    "resized_crop_299": functools.partial(RandomResizedCrop, 299),
}


def sequence(augment: Any) -> tuple[Augmentation, ...]:
    """Return one augmentation or a sequence of them as a tuple; an entry may be a name of `NAMED`, such as "flip".

    Raises:
        ValueError: an entry that is neither a known name nor callable; names it.
    """
    if augment is None:
        return ()
    stages = [augment] if isinstance(augment, str) or callable(augment) else list(augment)
    for stage in stages:
        if not callable(stage) and not (isinstance(stage, str) and stage in NAMED):
            raise ValueError(f"augment: {stage!r} is neither one of {', '.join(NAMED)} nor an augmentation")
    return tuple(NAMED[stage]() if isinstance(stage, str) else stage for stage in stages)


def augmented(images: Any, augment: Sequence[Augmentation], *, seed: Any, epoch: Any, index: Any) -> Any:
    """Apply all stages of `augment` to the images, in order.

    Args:
        images: of shape (n, h, w, c).
        augment: the result of `sequence`.
        seed: int64 scalar in [0, 2**63).
        epoch: int64 scalar in [0, 2**63), counted from the start of the training.
        index: int64 of shape (n,), the identities of the examples.

    Each stage draws its own numbers, independent of the other stages'.
    """
    # A scalar read from a table has no known shape.
    seed, epoch = (tf.reshape(tf.cast(number, tf.int64), []) for number in (seed, epoch))
    for stage, one in enumerate(augment):
        images = one(images, Noise(seed, epoch, index, stage))
    return images


def _shape(images: Any) -> tuple[Any, Any, Any, Any]:
    """n, h, w, c: integers where they are known, else tensors."""
    if images.shape.rank != 4:
        raise ValueError(f"augmentation needs images of shape (n, height, width, channels), got {images.shape}")
    dynamic = tf.shape(images)
    n, height, width, channels = (dynamic[i] if size is None else size for i, size in enumerate(images.shape))
    return n, height, width, channels


def _within(places: Any, size: Any) -> tuple[Any, Any]:
    """Positions on an axis, clipped to 0 … size - 1, and whether they were inside."""
    brought = tf.clip_by_value(places, 0, size - 1)
    return brought, brought == places


def _between(bounds: tuple[float, float], share: Any) -> Any:
    return bounds[0] + (bounds[1] - bounds[0]) * share


def _check_size(name: str, size: Any) -> None:
    if not is_whole(size, 1):
        raise ValueError(f"{name}: size must be an integer of at least 1, got {size!r}")
