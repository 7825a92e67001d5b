"""sparse_is_masked: a sparse layer computes and trains as the masked dense layer does, to rounding."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from keras_lth import surgery
from keras_lth.layers import costs, kernels_of
from tests.forms import short_if
from tests.layers.sparse_cases import MODELS, assert_same, case, masks_for, pair, train, whole_weights

WAYS: dict[str, dict[str, Any]] = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "jit_spe": {"jit_compile": True, "steps_per_execution": 2},
}


@pytest.mark.parametrize("name", MODELS)
def test_forward_and_gradients(name: str) -> None:
    dense, sparse, (_, x, _) = pair(name)
    assert any(kernels_of(layer) for _, layer in surgery.paths.layers(sparse))
    np.testing.assert_allclose(sparse(x), dense(x), rtol=1e-5, atol=1e-5)
    with tf.GradientTape() as tape:
        given = tf.constant(x)
        tape.watch(given)
        loss = tf.reduce_sum(sparse(given) ** 2)
    dx = tape.gradient(loss, given)
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = tf.reduce_sum(dense(given) ** 2)
    np.testing.assert_allclose(dx, tape.gradient(loss, given), rtol=1e-4, atol=1e-4)


# In every run one of each family, most of them in one network; dense layers, images, attention and `Masked` below.
TRAINED = ("stacked", "subclassed")


@pytest.mark.parametrize("name", short_if(TRAINED.__contains__, MODELS))
def test_ten_steps(name: str) -> None:
    dense, sparse, (_, x, y) = pair(name)
    train(dense, x, y)
    train(sparse, x, y)
    assert_same(dense, sparse)


# In a graph they run in the other tests.
@pytest.mark.parametrize(
    ("name", "way"),
    short_if(
        lambda name, way: (name, way) in (("dense", "jit_spe"), ("conv2d", "jit"), ("attention", "eager")),
        itertools.product(["dense", "conv2d", "attention"], WAYS),
    ),
)
def test_every_way_of_running_a_step(name: str, way: str) -> None:
    dense, sparse, (_, x, y) = pair(name, optimizer=keras.optimizers.Adam(0.01, global_clipnorm=0.5), **WAYS[way])
    train(dense, x, y, 2)
    train(sparse, x, y, 2)
    assert_same(dense, sparse)


# 3 does not divide the widths.
@pytest.mark.parametrize("block", short_if(lambda block: block == 3, [2, 3]))
def test_blocks(block: int) -> None:
    dense, sparse, (_, x, y) = pair("dense", block)
    stored = [kernel for _, layer in surgery.paths.layers(sparse) for kernel in kernels_of(layer).values()]
    assert {kernel.structure.block for kernel in stored} == {(block, block)}
    train(dense, x, y)
    train(sparse, x, y)
    assert_same(dense, sparse)


@pytest.mark.parametrize(
    "optimizer",
    # In every run one with three slots, averages and accumulators, and one inside another.
    short_if(
        lambda one: isinstance(one, keras.optimizers.LossScaleOptimizer) or (one.use_ema and one.amsgrad),
        [
            keras.optimizers.Adam(
                0.01, amsgrad=True, use_ema=True, ema_overwrite_frequency=3, gradient_accumulation_steps=2
            ),
            keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
            keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3),
            keras.optimizers.Adam(0.01, amsgrad=True, gradient_accumulation_steps=2),
            keras.optimizers.RMSprop(0.01, centered=True, momentum=0.5),
            keras.optimizers.Adagrad(0.05),
            keras.optimizers.Ftrl(0.05),
            keras.optimizers.Nadam(0.01, clipnorm=0.1),
            keras.optimizers.Lion(0.01),
            keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(0.01)),
        ],
    ),
    ids=lambda one: type(one).__name__,
)
def test_slots_of_an_optimizer_in_use_are_carried_over(optimizer: keras.optimizers.Optimizer) -> None:
    made = case("dense")
    models = []
    for kind in ("dense", "sparse"):
        keras.utils.set_random_seed(5)
        model = made.build()
        own = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        model.compile(own, "mse")
        lth.mask(model, masks_for(model))
        train(model, made.x, made.y, 2)
        if kind == "sparse":
            before = lth.snapshot(model)
            lth.sparsify(model, only_if_faster=False)
            after = lth.snapshot(model)
            for part in ("weights", "optimizer"):
                for path, value in getattr(before, part).items():
                    assert np.array_equal(getattr(after, part)[path], value), path
            size = sum(v.numpy().size for v in model.optimizer.variables)
            assert size < sum(value.size for value in before.optimizer.values())
        train(model, made.x, made.y, 3)
        models.append(model)
    assert_same(*models)
    lth.densify(models[1])
    for model in models:
        train(model, made.x, made.y, 2)
    assert_same(*models)


def test_mixed_bfloat16() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        dense, sparse, (_, x, y) = pair("dense")
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(
        np.asarray(sparse(x), np.float32), np.asarray(dense(x), np.float32), rtol=0.05, atol=0.02
    )
    train(sparse, x, y, 2)
    assert all(np.isfinite(value).all() for value in whole_weights(sparse).values())


def test_the_loop_trains_as_fit_does() -> None:
    dense, sparse, (_, x, y) = pair("conv2d")
    for model in (dense, sparse):
        lth.training.fit(model, lth.datasets.ordered(x, y, batch_size=4, seed=1), epochs=5)
    assert_same(dense, sparse)


def test_masks_that_move_are_followed_without_a_new_trace_where_counts_stay() -> None:
    dense, sparse, (_, x, y) = pair("dense")
    train(dense, x, y, 1)
    train(sparse, x, y, 1)
    traces = sparse.train_function
    moved = {path: np.roll(mask, 1, axis=0) for path, mask in lth.masks_of(dense).items()}
    count = _traces(traces)
    for model in (dense, sparse):
        lth.mask(model, moved)
        train(model, x, y, 1)
    assert _traces(traces) == count
    assert_same(dense, sparse)
    fewer = {path: mask & (np.arange(mask.size).reshape(mask.shape) % 5 > 0) for path, mask in moved.items()}
    for model in (dense, sparse):
        lth.mask(model, fewer)
        train(model, x, y, 1)
    assert _traces(traces) == count  # in the room that there is
    assert_same(dense, sparse)
    few = {path: mask & (np.arange(mask.size).reshape(mask.shape) % 7 == 0) for path, mask in fewer.items()}
    for model in (dense, sparse):
        lth.mask(model, few)
        train(model, x, y, 1)
    assert_same(dense, sparse)
    assert max(k.structure.room for _, one in surgery.paths.layers(sparse) for k in kernels_of(one).values()) < 30


def _traces(function: object) -> int:
    """How often the function under Keras' own has been traced."""
    inner = getattr(function, "__closure__", None) or ()
    held = [cell.cell_contents for cell in inner]
    counted = [one.experimental_get_tracing_count() for one in held if hasattr(one, "experimental_get_tracing_count")]
    return sum(counted)


@pytest.mark.parametrize(("optimizer", "slots"), [("adam", 2), (keras.optimizers.SGD(0.1, momentum=0.9), 1)])
def test_memory_of_training(optimizer: Any, slots: int) -> None:
    """A stored weight has 4 bytes, 4 in each slot of the optimizer, and 6 of indices; a dense one has no indices."""
    model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(512, use_bias=False)])
    model.compile(optimizer, "mse")
    lth.sparsify(model, masks_for(model, density=0.05), only_if_faster=False)
    model.fit(np.ones((4, 512)), np.ones((4, 512)), verbose=0)
    (kernel,) = kernels_of(model.layers[0]).values()
    values = sum(v.numpy().nbytes for v in (*model.trainable_variables, *model.optimizer.variables))
    indices = sum(array.nbytes for array in kernel.structure.indices)
    dense, stored, starts = 512 * 512, round(0.05 * 512 * 512), 8 * 2 * 513
    assert values + indices <= stored * (4 * (1 + slots) + 6) + starts + 256
    assert values + indices < 0.1 * dense * 4 * (1 + slots)
    assert all(not array.flags.owndata for array in kernel.structure.indices)


def test_imp_finds_the_same_masks_on_sparse_kernels() -> None:
    """Level 1's masks come of the same dense training; at this size the later ones agree too."""
    made = case("dense")
    masks = []
    for kind in ("dense", "sparse", "auto"):
        keras.utils.set_random_seed(7)
        model = made.build()
        model.compile(keras.optimizers.Adam(0.01), "mse")
        imp = lth.IMPCallback(rounds=3, verbose=0, monitor="loss", kernels=kind)
        model.fit(made.x, made.y, batch_size=4, epochs=8, shuffle=False, verbose=0, callbacks=[imp])
        masks.append([imp.masks(level) for level in range(4)])
        model.fit(made.x, made.y, batch_size=4, epochs=1, verbose=0)
        assert lth.masks_of(model) == masks[-1][-1] and masks[0] == masks[-1]
        # Layers this small are never faster.
        assert any(kernels_of(layer) for layer in model.layers) is (kind == "sparse")


def test_a_run_of_sixteen_levels_traces_at_most_six_times() -> None:
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(50, "relu"), keras.layers.Dense(30)])
    model.compile("adam", "mse")
    traces = [0]
    inner = model.compute_loss

    def counted(*args: Any, **kwargs: Any) -> Any:
        traces[0] += 1
        return inner(*args, **kwargs)

    model.compute_loss = counted
    x, y = np.random.default_rng(0).normal(size=(2, 16, 40)).astype(np.float32)
    imp = lth.IMPCallback(rounds=15, verbose=0, monitor="loss", kernels="sparse")
    model.fit(x, y[:, :30], epochs=16, verbose=0, callbacks=[imp])
    assert imp.masks(15).density < 0.04
    assert traces[0] <= 6


def test_wrong_kernels() -> None:
    with pytest.raises(ValueError, match=r"\"sparse\", not 'spares'"):
        lth.IMPCallback(kernels="spares")


def test_kernel_reads_as_the_whole_kernel() -> None:
    dense, sparse, _ = pair("dense")
    np.testing.assert_array_equal(sparse.layers[0].kernel, dense.layers[0].kernel)
    assert isinstance(sparse.layers[0], keras.layers.Dense)
    dense, sparse, _ = pair("lstm")
    np.testing.assert_array_equal(sparse.layers[0].cell.recurrent_kernel, dense.layers[0].cell.recurrent_kernel)


def test_bad_input() -> None:
    made = case("dense")
    model = made.build()
    with pytest.raises(ValueError, match=r"no masks.*lth\.mask\(model, masks\)"):
        lth.sparsify(model)
    masks = masks_for(model)
    with pytest.raises(ValueError, match=r"only in part.*block=1"):
        lth.sparsify(model, masks, block=4)
    with pytest.raises(ValueError, match="batch_size=0"):
        lth.sparsify(model, masks, batch_size=0)
    model.compile(keras.optimizers.Adafactor(), "mse")
    with pytest.raises(ValueError, match="Adafactor"):
        lth.sparsify(model, masks)
    model.compile("sgd", "mse")
    empty = {path: np.zeros_like(mask) if path == "dense/kernel" else mask for path, mask in masks.items()}
    report = lth.sparsify(model, empty, only_if_faster=False)
    assert report.dense == {"dense/kernel": "has nothing left"}
    with pytest.raises(ValueError, match="dense/kernel has nothing left"):
        lth.sparsify(model, empty, include="dense", only_if_faster=False)
    model.compile(keras.optimizers.Adafactor(), "mse")
    with pytest.raises(ValueError, match="Adafactor"):
        train(model, made.x, made.y)


def test_what_stays_dense_says_why() -> None:
    L = keras.layers
    layers = [
        L.Conv2D(4, 3, dilation_rate=2),
        L.Conv2D(4, 3, groups=2),
        L.DepthwiseConv2D(3),
        L.Flatten(),
        L.Dense(4, kernel_constraint="max_norm"),
        L.Dense(4, kernel_regularizer=keras.regularizers.OrthogonalRegularizer()),
        L.Dense(4, dtype="float64"),
    ]
    model = keras.Sequential([keras.Input((12, 12, 4)), *layers])
    report = lth.sparsify(model, masks_for(model), only_if_faster=False)
    assert not report.sparse
    reasons = list(report.dense.values())
    for reason, word in zip(
        reasons, ["dilation", "groups", "DepthwiseConv2D", "MaxNorm", "Orthogonal", "float64"], strict=True
    ):
        assert word in reason
    assert all(reason in str(report) for reason in reasons)


def test_never_slower_by_default() -> None:
    """A layer that is too small to gain stays dense, and the report says from which density it pays."""
    model = keras.Sequential([keras.Input((2048,)), keras.layers.Dense(2048), keras.layers.Dense(2)])
    report = lth.sparsify(model, masks_for(model, density=0.05), batch_size=128, costs=costs.DEFAULT)
    assert report.sparse == ("dense/kernel",)
    assert report.dense == {"dense_1/kernel": "dense is faster"}
    assert report.rows[0].factor > 2 and 0.05 < report.rows[0].pays_below <= 1


def test_costs_are_measured_once_and_kept_if_they_are_steady(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file, calls = tmp_path / "keras_lth" / "costs.json", []

    def measure(steady: bool) -> Any:
        def made() -> Any:
            calls.append(steady)
            return costs.DEFAULT, steady

        return made

    def again() -> costs.Costs:
        costs.measured.cache_clear()
        return costs.measured()

    monkeypatch.setattr(costs, "_measure", measure(False))
    assert again() == costs.DEFAULT and not file.exists()
    monkeypatch.setattr(costs, "_measure", measure(True))
    assert again() == again() == costs.DEFAULT
    assert calls == [False, True]
    file.write_text("{")
    assert again() == costs.DEFAULT and calls == [False, True, True]

    # A folder that cannot be made, and a user without a home: measured again, nothing fails, nothing is written.
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", str(file / "folder"))
    assert again() == again() == costs.DEFAULT
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert again() == again() == costs.DEFAULT and calls == [False, *[True] * 6]
    costs.measured.cache_clear()


def test_activations_between_layers_are_not_copied_under_xla() -> None:
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((12,)), dense(24), keras.layers.ReLU(), dense(24, "gelu"), dense(8)])
    lth.sparsify(model, masks_for(model), only_if_faster=False)

    @tf.function(jit_compile=True, autograph=False)
    def gradients(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    text = gradients.experimental_get_compiler_ir(tf.zeros([70, 12]))(stage="optimized_hlo")
    # x is packed, the result unpacked, its gradient packed; three products; two gradients of all, one of values alone.
    assert sum("custom-call(" in line for line in text.splitlines()) == 3 + 3 + 3
