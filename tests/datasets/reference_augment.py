"""Augmentation as loops over the examples, in NumPy and Python integers."""

from __future__ import annotations

import math

import numpy as np

from tests.datasets.reference_order import WORD, philox


def words(seed, epoch, example, stage=0, draw=0):
    """The four words of an example: Philox of (example, draw) under a key that is Philox of (epoch, stage)."""
    key = philox([epoch & WORD, epoch >> 32, stage, 0], [seed & WORD, seed >> 32])[:2]
    return philox([example & WORD, example >> 32, draw, 0], key)


def flip(image, seed, epoch, example, stage=0):
    return image[:, ::-1] if words(seed, epoch, example, stage)[0] >= 2**31 else image


def crop(image, padding, seed, epoch, example, stage=0):
    height, width, _ = image.shape
    y, x = (word * (2 * padding + 1) >> 32 for word in words(seed, epoch, example, stage)[:2])
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return padded[y : y + height, x : x + width]


def box(shape, scale, ratio, seed, epoch, example, stage=0):
    """The window of a random resized crop: y, x, height, width."""
    height, width = shape
    for attempt in range(10):
        a, r, y, x = words(seed, epoch, example, stage, attempt)
        area = height * width * (scale[0] + (scale[1] - scale[0]) * (a >> 8) / 2**24)
        low, high = map(math.log, ratio)
        quotient = math.exp(low + (high - low) * (r >> 8) / 2**24)
        h, w = round(math.sqrt(area / quotient)), round(math.sqrt(area * quotient))
        if 1 <= h <= height and 1 <= w <= width:
            return (y * (height - h + 1) >> 32, x * (width - w + 1) >> 32, h, w)
    if width / height < ratio[0]:
        h, w = round(width / ratio[0]), width
    elif width / height > ratio[1]:
        h, w = height, round(height * ratio[1])
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


def resized(image, size):
    """Bilinear between pixel centres, the edge repeated."""
    height, width, channels = image.shape
    out = np.zeros((size, size, channels))
    for i in range(size):
        for j in range(size):
            y = min(max((i + 0.5) * height / size - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / size - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            out[i, j] = (1 - dy) * ((1 - dx) * image[top, left] + dx * image[top, right]) + dy * (
                (1 - dx) * image[bottom, left] + dx * image[bottom, right]
            )
    return out


def random_resized_crop(image, size, scale, ratio, seed, epoch, example, stage=0):
    y, x, h, w = box(image.shape[:2], scale, ratio, seed, epoch, example, stage)
    return resized(image[y : y + h, x : x + w], size)
