"""Inception-v3, with its auxiliary head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_lth.models.parts import Parts

# A convolution: channels, size, stride; by default 1×1 and without stride. With a stride it does not pad.
_Convolution = tuple[Any, ...]
# Convolutions in a row, perhaps after a pool; a list of convolutions at the end is side by side.
_Branch = list[Any]
_ACROSS, _DOWN = (1, 7), (7, 1)


def _fives(pooled: int) -> list[_Branch]:
    return [[(64,)], [(48,), (64, 5)], [(64,), (96, 3), (96, 3)], ["average", (pooled,)]]


def _sevens(n: int) -> list[_Branch]:
    double = [(n,), (n, _DOWN), (n, _ACROSS), (n, _DOWN), (192, _ACROSS)]
    return [[(192,)], [(n,), (n, _ACROSS), (192, _DOWN)], double, ["average", (192,)]]


def _last() -> list[_Branch]:
    sides = [(384, (1, 3)), (384, (3, 1))]
    return [[(320,)], [(384,), sides], [(448,), (384, 3), sides], ["average", (192,)]]


# torchvision's names of the blocks, and their branches.
_BLOCKS: dict[str, list[_Branch]] = {
    "5b": _fives(32),
    "5c": _fives(64),
    "5d": _fives(64),
    "6a": [[(384, 3, 2)], [(64,), (96, 3), (96, 3, 2)], ["max"]],
    "6b": _sevens(128),
    "6c": _sevens(160),
    "6d": _sevens(160),
    "6e": _sevens(192),
    "7a": [[(192,), (320, 3, 2)], [(192,), (192, _ACROSS), (192, _DOWN), (192, 3, 2)], ["max"]],
    "7b": _last(),
    "7c": _last(),
}


def inception_v3(
    input_shape: Sequence[int], classes: int = 1000, *, seed: int, auxiliary: bool = True, **options: Any
) -> keras.Model:
    """Build Inception-v3: five convolutions, eleven blocks of parallel branches, mean pooling, dropout, a dense layer.

    It returns a list of logits and of the auxiliary head's logits, each with a loss of its own; the head is for
    training only. With 1000 classes 27 161 264 parameters are trained (thesis, table 4.1: 27.1 M), of which 3 326 696
    are in the auxiliary head. Layers are named "conv1", …, "mixed_5b_1_conv1", "mixed_5b", …, "auxiliary", "output".

    C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, as torchvision has it:
    ε is 0.001. Initial values are those of the thesis (5.5.4): He normal by fan-in, scales γ uniform in [0, 1).

    Args:
        input_shape: shape of one image: (height, width, channels), at least 299×299, or 75×75 without the head.
        classes: width of the output layers, at least 1.
        seed: ≥ 0. Each layer's seed is a SHA-256 of (seed, layer name).
        auxiliary: whether the model has the auxiliary head; without it, it returns the logits, not a list.
        options: of `keras_lth.models.parts`.

    Raises:
        ValueError: an argument is out of range; names it.
    """
    least = 299 if auxiliary else 75
    parts = Parts("inception_v3", input_shape, classes, seed, options, least=least, epsilon=1e-3)
    x = parts.conv_norm(parts.inputs(), "", 32, 3, 2, number="1", pad=0)
    x = parts.conv_norm(x, "", 32, 3, number="2", pad=0)
    x = parts.max_pool(parts.conv_norm(x, "", 64, 3, number="3"), "pool1", 3)
    x = parts.conv_norm(x, "", 80, 1, number="4")
    x = parts.max_pool(parts.conv_norm(x, "", 192, 3, number="5", pad=0), "pool2", 3)
    heads = []
    for name, branches in _BLOCKS.items():
        ends = [end for number, b in enumerate(branches, 1) for end in _branch(parts, x, f"mixed_{name}_{number}_", b)]
        x = keras.layers.Concatenate(name=f"mixed_{name}")(ends)
        if name == "6e" and auxiliary:
            heads.append(_head(parts, x))
    x = parts.dropped(keras.layers.GlobalAveragePooling2D(name="mean")(x), "dropout")
    output = parts.dense(x, "output", parts.classes)
    return parts.model([output, *heads] if heads else output)


def _branch(parts: Parts, x: Any, name: str, branch: _Branch) -> Iterator[Any]:
    """Yield the ends of a branch, from left to right."""
    number = 0

    def convolved(x: Any, convolution: _Convolution) -> Any:
        nonlocal number
        number += 1
        channels, size, stride = (*convolution, 1, 1)[:3]
        return parts.conv_norm(x, name, channels, size, stride, number=str(number), pad=0 if stride > 1 else None)

    for part in branch:
        if part == "average":
            x = parts.average_pool(x, f"{name}pool", 3, pad=1)
        elif part == "max":
            x = parts.max_pool(x, f"{name}pool", 3)
        elif isinstance(part, list):
            yield from [convolved(x, convolution) for convolution in part]
            return
        else:
            x = convolved(x, part)
    yield x


def _head(parts: Parts, x: Any) -> Any:
    x = parts.average_pool(x, "auxiliary_pool", 5, 3)
    x = parts.conv_norm(x, "auxiliary_", 128, 1, number="1")
    x = parts.conv_norm(x, "auxiliary_", 768, 5, number="2", pad=0)
    x = keras.layers.GlobalAveragePooling2D(name="auxiliary_mean")(x)
    return parts.dense(x, "auxiliary", parts.classes)
