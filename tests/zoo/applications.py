"""The families of keras.applications, each at the smallest pictures that it takes, without downloaded weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from tests.zoo.kinds import Kind, classes, classifier, values

A = keras.applications
CLASSES = 4
# Family → how a small member is called, and the side of its pictures.
FAMILIES = {
    "ResNet": (A.ResNet50, 32),
    "ResNetV2": (A.ResNet50V2, 32),
    "Inception": (A.InceptionV3, 75),
    "InceptionResNet": (A.InceptionResNetV2, 75),
    "Xception": (A.Xception, 71),
    "MobileNet": (functools.partial(A.MobileNet, alpha=0.25), 32),
    "MobileNetV2": (A.MobileNetV2, 32),
    "MobileNetV3": (A.MobileNetV3Small, 32),
    "DenseNet": (A.DenseNet121, 32),
    "NASNet": (A.NASNetMobile, 32),
    "EfficientNet": (A.EfficientNetB0, 32),
    "EfficientNetV2": (A.EfficientNetV2B0, 32),
    "ConvNeXt": (A.ConvNeXtTiny, 32),
}


def vgg(**options: Any) -> keras.Model:
    """VGG16 with a small head instead of its two layers of 4096 units, which are most of its weights."""
    classes = options.pop("classes")
    base = A.VGG16(include_top=False, pooling="avg", **options)
    return keras.Sequential([base, keras.layers.Dense(classes, activation="softmax")])


def _kind(make: Callable[..., keras.Model], side: int) -> Kind:
    return Kind(
        lambda: make(weights=None, input_shape=(side, side, 3), classes=CLASSES),
        values(side, side, 3),
        classes(CLASSES),
        # A step of hundreds of weights is traced in a quarter of Adam's time; normalised over two examples, the
        # deep ones diverge at a higher rate.
        classifier(optimizer="SGD", rate=1e-4),
    )


KINDS = {"VGG": _kind(vgg, 32)} | {name: _kind(make, side) for name, (make, side) in FAMILIES.items()}
