"""Costs of networks and trainings against counts by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth import analysis, models


def test_lenet_by_hand() -> None:
    model = models.lenet_300_100((28, 28, 1), seed=0)
    found = analysis.cost(model)
    assert found.flops == 2 * 266_200 == found.masked_flops and found.training_flops == 6 * 266_200
    assert (found.parameters, found.bytes) == (266_610, 4 * 266_610)
    masks = lth.select(lth.criteria.Magnitude()(model), density=0.1)
    masked = found.under(masks)
    assert masked.masked_flops == 2 * 26_620 and masked.flops == found.flops
    assert masked.masked_bytes == 4 * 26_620 + 266_200 // 8 + 4 * 410 and masked.remaining == 26_620 + 410
    lth.mask(model, masks)
    assert analysis.cost(model) == masked and analysis.cost(model, {}) == found
    assert str(masked).splitlines()[-1].split()[:3] == ["total", "266,610", "27,030"]


def test_resnet_20_and_vgg_16_by_hand() -> None:
    def conv(size: int, inputs: int, outputs: int, pixels: int) -> int:
        return 2 * size**2 * inputs * outputs * pixels**2

    stages = 6 * conv(3, 16, 16, 32) + 5 * conv(3, 32, 32, 16) + 5 * conv(3, 64, 64, 8)
    strided = conv(3, 16, 32, 16) + conv(3, 32, 64, 8)
    shortcuts = conv(1, 16, 32, 16) + conv(1, 32, 64, 8)
    resnet = conv(3, 3, 16, 32) + stages + strided + shortcuts + 2 * 640
    found = analysis.cost(models.resnet_20((32, 32, 3), seed=0))
    assert found.flops == resnet == 81_626_368 and found.parameters == 272_474
    vgg, inputs = 2 * 512 * 10, 3
    for pixels, widths in ((32, [64] * 2), (16, [128] * 2), (8, [256] * 3), (4, [512] * 3), (2, [512] * 3)):
        for width in widths:
            vgg, inputs = vgg + conv(3, inputs, width, pixels), width
    found = analysis.cost(models.vgg_16((32, 32, 3), seed=0))
    assert found.flops == vgg == 626_403_328 and found.parameters == 14_728_266


def test_other_kernels_by_hand() -> None:
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(inputs)  # 4×4 of 4
    x = keras.layers.SeparableConv2D(5, 3, padding="same", name="separable")(x)
    x = keras.layers.Conv2DTranspose(3, 2, 2, name="transposed")(x)  # 8×8 of 3
    x = keras.layers.EinsumDense("bhwc,cde->bhwde", (None, None, 2, 4), name="einsum")(x)
    x = keras.layers.Reshape((64, 8))(x)
    x = keras.layers.Dense(2, name="tokens")(x)
    model = keras.Model(inputs, keras.layers.GRU(3, name="gru")(x))
    flops = {row.path: row.flops // 2 for row in analysis.cost(model).rows}
    assert flops == {
        "depthwise/kernel": 9 * 4 * 16,
        "separable/depthwise_kernel": 9 * 4 * 16,
        "separable/pointwise_kernel": 4 * 5 * 16,
        "transposed/kernel": 4 * 5 * 3 * 16,
        "einsum/kernel": 3 * 8 * 64,
        "tokens/kernel": 8 * 2 * 64,
        "gru/cell/kernel": 2 * 9 * 64,
        "gru/cell/recurrent_kernel": 3 * 9 * 64,
    }
    frames = keras.Sequential([keras.Input((4, 5, 5, 2)), keras.layers.ConvLSTM2D(3, 2, name="frames")])
    assert [row.flops // 2 for row in analysis.cost(frames).rows] == [2 * 2 * 2 * 12 * 16 * 4, 2 * 2 * 3 * 12 * 16 * 4]
    shared = keras.layers.Dense(4, name="shared")
    a = keras.Input((4,))
    twice = analysis.cost(keras.Model(a, shared(shared(a))))
    assert twice.flops == 2 * 2 * 16 and twice.parameters == 20


def test_what_a_training_costs() -> None:
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    network = analysis.cost(model)
    half = lth.Masks({"dense/kernel": np.arange(100).reshape(10, 10) < 50})
    found = analysis.training_cost([(100, None), (300, half)], network, batch_size=8, steps_per_epoch=50)
    assert found.steps == 400 and found.area == (100 + 150) / 400 and found.weight_steps == 100 * 100 + 300 * 50
    assert found.parameter_epochs == 2 * 110 + 6 * 60 and found.flops == 8 * 3 * 2 * (100 * 100 + 300 * 50)
    with pytest.raises(ValueError, match="at least one step"):
        analysis.training_cost([], network, batch_size=8, steps_per_epoch=50)
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        network.under({"dense/kernel": np.ones((2, 2))})
