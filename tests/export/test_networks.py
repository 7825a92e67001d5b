"""Whole networks, masked: the same results as Keras, whatever is folded, fused and stored sparse."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import keras_lth as lth
from tests.export.networks import check, prune, shake, vgg

layers = keras.layers


def stored_as(compiled: lth.export.Compiled) -> list[str]:
    return [line[3] for line in compiled._cells()[1:] if line[3]]


def test_lenet() -> None:
    model = prune(shake(lth.models.lenet_300_100((28, 28, 1), seed=1)), 0.05)
    for batch in (1, 60):
        compiled = check(model, batch)
    assert stored_as(compiled) == ["single weights"] * 3
    # input, flatten and three products; the ReLUs are in them.
    assert len(compiled._steps) == 5


def test_vgg_folds_its_normalisations() -> None:
    model = prune(shake(vgg()), 0.1)
    for batch in (1, 5, 40):
        compiled = check(model, batch)
    kinds = [step.node.kind for step in compiled._steps]
    assert kinds == [
        "input", "conv", "pool", "conv", "conv", "pool", "conv", "pool", "reshape", "dense", "activation"
    ]  # fmt: skip
    assert stored_as(compiled) == ["single weights"] * 5


def test_resnet() -> None:
    model = lth.models.resnet_20((32, 32, 3), seed=1, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    shake(model)
    compiled = check(model)
    assert all("blocks" in how for how in stored_as(compiled)[:-1])
    prune(model, 0.05)
    for batch in (1, 17):
        compiled = check(model, batch)
    kinds = [step.node.kind for step in compiled._steps]
    # Of 9 blocks each has an addition with its ReLU; what the first convolution pads is not folded into it.
    assert kinds.count("merge") == 9
    assert kinds.count("scale") == 1
    assert kinds.count("activation") == 0
    assert set(stored_as(compiled)) == {"single weights"}


@pytest.mark.parametrize("block", [(4, 4), (8, 8), (16, 16), (1, 16)])
def test_masks_of_blocks_are_multiplied_as_blocks(block: tuple[int, int]) -> None:
    model = shake(keras.Sequential([keras.Input((96,)), layers.Dense(64, "relu"), layers.Dense(48)]))
    prune(model, 0.25, structure=block)
    assert stored_as(check(model, 20)) == [f"{block[0]}×{block[1]} blocks"] * 2
    check(model, 1)


def test_a_dense_model_stays_dense() -> None:
    assert stored_as(check(shake(keras.Sequential([keras.Input((24,)), layers.Dense(9, "relu")])))) == ["dense"]


def test_a_scale_goes_into_the_kernel_behind_it_unless_that_pads() -> None:
    def kinds(*stack: keras.Layer) -> list[str]:
        model = shake(keras.Sequential([keras.Input((8, 8, 4)), *stack]))
        return [step.node.kind for step in check(model)._steps[1:]]

    norm = layers.BatchNormalization
    assert kinds(norm(), layers.Conv2D(3, 3)) == ["conv"]
    assert kinds(norm(), layers.Dense(3)) == ["dense"]
    assert kinds(norm(), layers.Conv2D(3, 3, padding="same")) == ["scale", "conv"]
    assert kinds(norm(), layers.ReLU(), layers.Conv2D(3, 3)) == ["scale", "activation", "conv"]
    assert kinds(layers.Conv2D(3, 3, activation="relu"), norm(), layers.Conv2D(3, 3)) == ["conv", "conv"]
    assert kinds(layers.Rescaling(2.0, 1.0), norm(), layers.Conv2D(3, 3, padding="same")) == ["scale", "conv"]


def test_what_is_read_twice_is_not_written_over() -> None:
    x = inputs = keras.Input((8, 8, 4))
    y = layers.Conv2D(4, 3, padding="same")(x)
    z = layers.BatchNormalization()(y)
    t = layers.Activation("tanh")(z)
    u = layers.Add()([z, t])
    v = layers.Flatten()(layers.ReLU()(u))
    w = layers.Concatenate()([v, layers.Flatten()(layers.Multiply()([u, y])), layers.Flatten()(x)])
    check(shake(keras.Model(inputs, layers.Softmax()(w))))


def test_models_in_models_and_layers_called_twice() -> None:
    inner = keras.Sequential([layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()])
    shared = layers.Dense(4, "relu")
    x = inputs = keras.Input((8, 8, 4))
    y = inner(shared(inner(x)))
    twice = keras.Sequential([keras.Input((8, 8, 4)), layers.MaxPooling2D(), layers.Flatten()])
    model = shake(keras.Model(inputs, twice(shared(y))))
    check(model)
    check(prune(model, 0.2))
    check(shake(keras.Sequential([keras.Input((8, 8, 4)), model, layers.Dense(2)])))


def test_masked_layers_and_values_that_came_past_keras() -> None:
    mask = np.random.default_rng(0).random((24, 30)) < 0.1
    model = shake(keras.Sequential([keras.Input((24,)), lth.layers.Masked(layers.Dense(30, "relu"), mask)]))
    assert stored_as(check(model)) == ["single weights"]
    dense = shake(keras.Sequential([keras.Input((24,)), layers.Dense(30)]))
    lth.mask(dense, {"dense/kernel": mask})
    dense.layers[0].kernel.value.assign(np.ones((24, 30), np.float32))
    compiled = lth.export.compile(dense)
    assert compiled._steps[1].kernel.density == pytest.approx(mask.mean())


def test_a_subclassed_model_is_refused() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x: object) -> object:
            return self.dense(x)

    model = Own()
    model(np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match=r"Own 'own.*keras\.Model\(inputs, outputs\)"):
        lth.export.compile(model)


def test_a_sparse_model_with_fused_normalisation_is_compiled_as_the_masked_one() -> None:
    keras.utils.set_random_seed(0)
    body = [layers.Conv2D(8, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *body, layers.Flatten(), layers.Dense(4)])
    random = np.random.default_rng(0)
    masks = {path: random.random(tuple(v.shape)) < 0.3 for path, v in lth.prunable(model).items()}
    lth.sparsify(model, masks, only_if_faster=False)
    x = random.normal(size=(5, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(lth.export.compile(model)(x), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
    assert lth.sparsify(model, only_if_faster=False).sparse
