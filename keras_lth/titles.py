"""The names of networks and data sets as the papers print them, for figures and tables. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping

# By the names of `keras_lth.models` and `keras_lth.datasets`.
TITLES: Mapping[str, str] = {
    "lenet_300_100": "LeNet-300-100", "mlp": "MLP", "lenet_5": "LeNet-5",
    "conv_2": "Conv-2", "conv_4": "Conv-4", "conv_6": "Conv-6", "conv_8": "Conv-8", "conv_n": "Conv-n",
    "resnet_20": "ResNet-20", "resnet_32": "ResNet-32", "resnet_56": "ResNet-56", "resnet_110": "ResNet-110",
    "resnet_cifar": "ResNet", "wrn_14_8": "WRN-14-8", "wrn_14_10": "WRN-14-10", "wrn_20_8": "WRN-20-8",
    "wrn_32_2": "WRN-32-2",
    "vgg_11": "VGG-11", "vgg_13": "VGG-13", "vgg_16": "VGG-16", "vgg_19": "VGG-19",
    "resnet_18_modified": "ResNet-18 (modified)", "resnet_34_modified": "ResNet-34 (modified)",
    "resnet_18": "ResNet-18", "resnet_34": "ResNet-34", "resnet_50": "ResNet-50", "resnet_101": "ResNet-101",
    "resnet_152": "ResNet-152", "wrn_50_2": "WRN-50-2", "resnet_imagenet": "ResNet",
    "inception_v3": "Inception-v3", "alexnet": "AlexNet",
    "digits": "digits", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100", "svhn": "SVHN", "svhn_cropped": "SVHN", "tiny_imagenet": "TinyImageNet",
    "imagenet": "ImageNet", "imagenet2012": "ImageNet", "emoji.npz": "emoji",
}  # fmt: skip


def title(name: str, options: Mapping[str, object] | None = None) -> str:
    """Return the name of a network or a data set as papers print it; another name as it is.

    Args:
        name: of a config's key model or data.
        options: of the network: its depth, pairs and width are added where the name leaves them open, as in "ResNet-8
            of width 8".
    """
    found, given = TITLES.get(name, name), dict(options or {})
    if name in ("resnet_cifar", "resnet_imagenet") and "depth" in given:
        found = f"{found}-{given['depth']}"
    if name == "conv_n" and isinstance(given.get("pairs"), int):
        found = f"Conv-{2 * int(str(given['pairs']))}"
    return f"{found} of width {given['width']}" if "width" in given else found
