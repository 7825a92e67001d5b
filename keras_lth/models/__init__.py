"""The networks of the papers, returned built: functions of (input_shape, classes, *, seed, **options)."""

from __future__ import annotations

from keras_lth.models.alexnet import alexnet
from keras_lth.models.conv import conv_2, conv_4, conv_6, conv_8, conv_n
from keras_lth.models.inception import inception_v3
from keras_lth.models.lenet import lenet_5, lenet_300_100, mlp
from keras_lth.models.resnet import (
    resnet_18,
    resnet_18_modified,
    resnet_20,
    resnet_32,
    resnet_34,
    resnet_34_modified,
    resnet_50,
    resnet_56,
    resnet_101,
    resnet_110,
    resnet_152,
    resnet_cifar,
    resnet_imagenet,
    wrn_14_8,
    wrn_14_10,
    wrn_20_8,
    wrn_32_2,
    wrn_50_2,
)
from keras_lth.models.vgg import vgg_11, vgg_13, vgg_16, vgg_19

__all__ = [  # noqa: RUF022  # by family, as docs/models.md lists them
    "lenet_300_100", "mlp", "lenet_5",
    "conv_2", "conv_4", "conv_6", "conv_8", "conv_n",
    "resnet_20", "resnet_32", "resnet_56", "resnet_110", "resnet_cifar",
    "wrn_14_8", "wrn_14_10", "wrn_20_8", "wrn_32_2",
    "vgg_11", "vgg_13", "vgg_16", "vgg_19",
    "resnet_18_modified", "resnet_34_modified",
    "resnet_18", "resnet_34", "resnet_50", "resnet_101", "resnet_152", "wrn_50_2", "resnet_imagenet",
    "inception_v3", "alexnet",
]  # fmt: skip
