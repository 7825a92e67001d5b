"""Numbers of parameters, kinds of weights and shapes, of networks that are built without values."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import models, titles
from tests.forms import short_if

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
ROW = re.compile(r"^\| `(\w+)[^`]*` \| .* \| (\d+)×(\d+)×(\d)[^|]*\| ([\d ]+) \| ([\d ]+) \| ([KNPD ]+) \|$", re.M)
# Name: input, trained parameters, prunable weights, options.
TABLE: dict[str, tuple[tuple[int, ...], int, int, str]] = {
    name: (tuple(map(int, shape)), *(int(n.replace(" ", "")) for n in counts), options)
    for name, *shape, counts, options in (
        (name, h, w, c, (trained, prunable), options)
        for name, h, w, c, trained, prunable, options in ROW.findall(PAGE.read_text())
    )
}
MORE: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (300, 100)}, "conv_n": {"pairs": 2, "width": 16}, "resnet_cifar": {"depth": 20},
    "resnet_imagenet": {"depth": 18},
}  # fmt: skip
# Parameters of the papers' own code, all of which are trained: open_lth, SNIP, torchvision.
PUBLISHED = {
    "lenet_300_100": 266_610, "lenet_5": 431_080,
    "conv_2": 4_301_642, "conv_4": 2_425_930, "conv_6": 2_262_602,
    "resnet_20": 272_474, "resnet_110": 1_730_714,
    "vgg_11": 9_231_114, "vgg_16": 14_728_266, "vgg_19": 20_040_522,
    "resnet_18": 11_689_512, "resnet_34": 21_797_672, "resnet_50": 25_557_032, "resnet_101": 44_549_160,
    "resnet_152": 60_192_808, "wrn_50_2": 68_883_240, "inception_v3": 27_161_264, "alexnet": 61_100_840,
}  # fmt: skip


# In every run; the other networks are in the long form.
SMALL = (
    "lenet_300_100",
    "lenet_5",
    "mlp",
    "conv_2",
    "conv_8",
    "resnet_20",
    "wrn_14_8",
    "vgg_11",
    "resnet_18",
    "alexnet",
)
WIDE = ("conv_4", "conv_6", "vgg_16", "resnet_50", "inception_v3")


@functools.cache
def built(name: str, **options: Any) -> keras.Model:
    """A network whose variables have shapes but no values: no memory, no time for random numbers."""
    shape = TABLE[name][0]
    with keras.StatelessScope(initialize_variables=False):
        model = getattr(models, name)(shape, 1000 if shape[0] > 200 else 10, seed=0, **MORE.get(name, {}), **options)
    keras.backend.clear_session()  # else the end of another scope would make the values
    return model


def size(variables: Any) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def test_the_page_lists_every_network():
    assert list(TABLE) == models.__all__


@pytest.mark.parametrize("name", short_if(SMALL.__contains__, models.__all__))
def test_parameters_are_those_of_the_page(name):
    model, (_, trained, prunable, _) = built(name), TABLE[name]
    assert (size(model.trainable_variables), size(lth.prunable(model).values())) == (trained, prunable)
    if name not in MORE:
        assert model.name == name
        assert f"{trained:,}".replace(",", " ") in getattr(models, name).__doc__


@pytest.mark.parametrize("name", short_if(lambda name: name in (*SMALL, *WIDE), PUBLISHED))
def test_parameters_are_those_of_the_papers_code(name):
    assert size(built(name).trainable_variables) == PUBLISHED[name]


def test_a_network_of_a_family_is_that_of_its_name():
    wide = built("conv_4").count_params(), size(built("conv_4").trainable_variables)
    with keras.StatelessScope(initialize_variables=False):
        made = models.conv_n(TABLE["conv_4"][0], 10, seed=0, pairs=2)
    keras.backend.clear_session()
    assert (made.count_params(), size(made.trainable_variables)) == wide


def test_every_network_and_every_set_has_a_title():
    assert {*models.__all__} < {*titles.TITLES}
    assert titles.title("cifar10") == "CIFAR-10" and titles.title("mine.npz") == "mine.npz"
    assert titles.title("resnet_cifar", {"depth": 8, "width": 8, "mean": (0,)}) == "ResNet-8 of width 8"
    assert titles.title("conv_n", {"pairs": 2, "width": 16}) == "Conv-4 of width 16"


def test_parameters_by_hand():
    # ResNet-110: 18 blocks of two in each of three stages, two shortcuts, all normalised, and a dense layer.
    convolutions = 27 * 16 + 9 * (36 * 16**2 + 16 * 32 + 35 * 32**2 + 32 * 64 + 35 * 64**2) + 16 * 32 + 32 * 64
    norms = 2 * (37 * 16 + 37 * 32 + 37 * 64)
    assert convolutions + norms + 650 == 1_730_714
    # Twice the channels are four times the weights of all layers but the first and the last.
    narrow, wide = built("resnet_32"), built("wrn_32_2")
    assert size(lth.prunable(wide).values()) == 4 * (464_432 - 432 - 640) + 2 * (432 + 640)
    assert len(narrow.layers) == len(wide.layers)
    # 512 channels in Conv-8's last pair, and 2×2 pixels of them instead of 4×4 of 256.
    pair, dense = 9 * 512 * (256 + 512) + 2 * 512, (2 * 2 * 512 - 4 * 4 * 256) * 256
    assert size(built("conv_8").trainable_variables) == 2_262_602 + pair + dense
    assert size(built("inception_v3", auxiliary=False).trainable_variables) == 23_834_568


@pytest.mark.parametrize("name", short_if(SMALL.__contains__, models.__all__))
def test_kernels_are_prunable_and_nothing_else(name):
    model = built(name)
    kernels = {f"{layer.name}/kernel" for layer in model.layers if hasattr(layer, "kernel")}
    assert set(lth.prunable(model)) == kernels
    assert all(layer.name for layer in model.layers)
    automatic = re.compile(r"^(input_layer|flatten|dense|conv2d|batch_normalization|re_lu|add|dropout)_\d+$")
    assert not [layer.name for layer in model.layers if automatic.match(layer.name)]


def test_images_shrink_as_in_the_papers():
    def shapes(name: str, *layers: str, **options: Any) -> list[tuple[int, int]]:
        model = built(name, **options)
        return [(model.get_layer(layer).output.shape[1], model.get_layer(layer).output.shape[-1]) for layer in layers]

    stages = ("conv", "pool", "stage1_block1_add", "stage2_block1_add", "stage3_block1_add", "stage4_block1_add")
    assert shapes("resnet_50", *stages) == [(112, 64), (56, 64), (56, 256), (28, 512), (14, 1024), (7, 2048)]
    assert shapes("resnet_34", *stages) == [(112, 64), (56, 64), (56, 64), (28, 128), (14, 256), (7, 512)]
    assert shapes("resnet_18_modified", "conv", *stages[2:]) == [(32, 64), (32, 64), (16, 128), (8, 256), (4, 512)]
    assert shapes("resnet_50", *stages, padding="same") == shapes("resnet_50", *stages)
    strides = [built("resnet_50").get_layer(f"stage2_block1_{c}").strides for c in ("conv1", "conv2", "conv3")]
    assert strides == [(1, 1), (2, 2), (1, 1)]
    assert shapes("resnet_20", "stage1_block1_add", "stage3_block3_add") == [(32, 16), (8, 64)]
    assert shapes("vgg_16", *(f"stage{n}_conv2" for n in range(1, 6))) == [
        (32, 64), (16, 128), (8, 256), (4, 512), (2, 512)
    ]  # fmt: skip
    mixed = [("mixed_5b", 35, 256), ("mixed_5c", 35, 288), ("mixed_5d", 35, 288), ("mixed_6a", 17, 768)]
    mixed += [("mixed_6e", 17, 768), ("mixed_7a", 8, 1280), ("mixed_7b", 8, 2048), ("mixed_7c", 8, 2048)]
    layers = ("conv1", "conv2", "conv3", "pool1", "conv4", "conv5", "pool2")
    assert shapes("inception_v3", *layers) == [
        (149, 32), (147, 32), (147, 64), (73, 64), (73, 80), (71, 192), (35, 192)
    ]  # fmt: skip
    assert shapes("inception_v3", *(name for name, *_ in mixed)) == [tuple(shape) for _, *shape in mixed]
    assert shapes("inception_v3", "auxiliary_pool", "auxiliary_conv2") == [(5, 768), (1, 768)]
    assert [output.shape for output in built("inception_v3").outputs] == [(None, 1000)] * 2
    assert shapes("alexnet", "conv1", "pool1", "pool2", "pool5") == [(55, 64), (27, 64), (13, 192), (6, 256)]


NETWORKS = ["lenet_300_100", "conv_2", "vgg_11", "resnet_20", "resnet_18", "inception_v3", "alexnet"]


@pytest.mark.parametrize("name", short_if(SMALL.__contains__, NETWORKS))
def test_options_are_those_of_the_page(name):
    groups = {
        "K": {"initializer": "he_uniform", "bias": "uniform", "weight_decay": 1e-4},
        "N": {"gamma": "ones", "momentum": 0.99, "epsilon": 1e-3},
        "P": {"padding": "same"},
        "D": {"dropout": 0.2},
    }
    taken = TABLE[name][-1].split()
    built(name, **{option: value for group in taken for option, value in groups[group].items()})
    for group in groups.keys() - set(taken):
        for option, value in groups[group].items():
            with pytest.raises(TypeError, match=f"{name}: {option} would have no effect"):
                built(name, **{option: value})
