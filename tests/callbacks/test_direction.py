"""Whether more or less of a log is better, and which log judges a fit."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from keras_lth.analysis import error_barrier, linear_path
from keras_lth.surgery.metrics import direction
from tests.forms import short_if

RNG = np.random.default_rng(0)
X = RNG.random((48, 6)).astype("float32")
Y = (X.sum(1, keepdims=True) > 3).astype("float32")


def unheard_of(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(y_pred)


class Climbs(keras.metrics.MeanMetricWrapper):
    """Named as a loss, and more is better."""

    _direction = "up"

    def __init__(self) -> None:
        super().__init__(unheard_of, name="my_loss")


class OwnLoss(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


def net(metrics: Any = None, loss: str = "mse", **options: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1, "sigmoid")])
    model.compile("sgd", loss, metrics=metrics, **options)
    return model


LESS = [
    "mse", "mae", "mape", "msle", "binary_crossentropy", "hinge", "squared_hinge", "kl_divergence", "poisson",
    "root_mean_squared_error", keras.losses.Huber(), keras.losses.mean_absolute_percentage_error, OwnLoss(),
]  # fmt: skip
MORE = ["accuracy", "AUC", "r2_score", "cosine_similarity", keras.metrics.binary_accuracy, Climbs()]


def test_every_metric_has_the_direction_it_says_in_all_places() -> None:
    model = net([*LESS, *MORE], weighted_metrics=["mae", "AUC"])
    names = list(model.evaluate(X, Y, sample_weight=np.ones(48), verbose=0, return_dict=True))
    expected = dict.fromkeys(names, "min")
    more = {"accuracy", "AUC", "r2_score", "cosine_similarity", "binary_accuracy", "my_loss", "weighted_AUC"}
    expected |= dict.fromkeys(more, "max")
    assert set(names) == set(expected) and len(names) == 22
    for name, better in expected.items():
        assert direction(model, name) == direction(model, f"val_{name}") == better, name
        assert direction(model, name, "min") == "min"


def test_outputs_have_their_own_metrics() -> None:
    inputs = keras.Input((6,))
    out = [keras.layers.Dense(1, name=name)(inputs) for name in ("a", "b")]
    model = keras.Model(inputs, out)
    model.compile("sgd", ["mse", "mae"], metrics={"a": ["hinge", unheard_of], "b": ["r2_score"]})
    names = model.evaluate(X, [Y, Y], verbose=0, return_dict=True)
    less = {name for name in names if name not in ("a_unheard_of", "b_r2_score")}
    assert less == {"loss", "a_loss", "b_loss", "a_hinge"}
    assert {direction(model, name) for name in less} == {"min"}
    assert direction(model, "val_b_r2_score") == "max"
    with pytest.raises(ValueError, match=r'a_unheard_of.*mode="max" or mode="min"'):
        direction(model, "a_unheard_of")


# The direction of every metric is in the first test.
@pytest.mark.parametrize(
    "metric",
    short_if(("hinge", "AUC").__contains__, ["mape", "binary_crossentropy", "hinge", "accuracy", "AUC"]),
)
def test_imp_judges_by_the_direction(metric: str) -> None:
    imp = lth.IMPCallback(rounds=1, verbose=0)
    net([metric]).fit(X, Y, epochs=2, verbose=0, callbacks=[imp])
    assert imp.history[0].monitor == metric
    up = metric in ("accuracy", "AUC")
    assert (imp.monitor.at_least(2, 1), imp.monitor.at_least(1, 2)) == (up, not up)
    first, second = imp.history
    assert second.matching == (second.score >= first.score if up else second.score <= first.score)


@pytest.mark.parametrize("metric", short_if(lambda metric: metric == "hinge", ["binary_crossentropy", "hinge"]))
def test_one_number_under_two_names_has_one_barrier(metric: str) -> None:
    model, ends = net([metric], metric), []
    for seed in (1, 2):
        for layer in model.layers:
            layer.kernel.assign(3 * keras.initializers.GlorotUniform(seed)(layer.kernel.shape))
        ends.append(lth.snapshot(model))
    paths = [linear_path(*ends, model=model, data=(X, Y), metric=name, points=5) for name in ("loss", metric)]
    np.testing.assert_allclose(paths[0].errors, paths[1].errors, rtol=1e-5)
    assert error_barrier(paths[0]) == pytest.approx(error_barrier(paths[1]), rel=1e-4, abs=1e-7)
    assert [path.measure for path in paths] == ["loss", metric]


def steps_of(model: keras.Model) -> int:
    return int(model.optimizer.iterations.numpy())


def test_an_unknown_direction_is_asked_for_before_training() -> None:
    for callback in (
        lth.IMPCallback(rounds=1, monitor="unheard_of", verbose=0),
        lth.InstabilityCallback(runs=2, data={"test": (X, Y)}, metric="unheard_of", verbose=0),
    ):
        model = net([unheard_of])
        with pytest.raises(ValueError, match=r'unheard_of.*mode="max" or mode="min"'):
            model.fit(X, Y, epochs=2, verbose=0, callbacks=[callback])
        assert steps_of(model) == 0
    imp = lth.IMPCallback(rounds=1, monitor="unheard_of", mode="min", verbose=0)
    net([unheard_of]).fit(X, Y, epochs=2, verbose=0, callbacks=[imp])
    assert imp.monitor.at_least(1, 2) and not imp.monitor.at_least(2, 1)
    ends = [lth.snapshot(net(loss=loss)) for loss in ("mse", "mae")]
    for mode, measure in (("min", "unheard_of"), ("max", "1 − unheard_of")):
        path = linear_path(*ends, model=net([unheard_of]), data=(X, Y), metric="unheard_of", mode=mode, points=2)
        assert path.measure == measure
    with pytest.raises(ValueError, match="mode must be"):
        linear_path(*ends, model=net(), data=(X, Y), metric="loss", mode="up")
    # Nobody asked for it: a log whose direction is known judges.
    imp = lth.IMPCallback(rounds=1, verbose=0)
    net([unheard_of]).fit(X, Y, epochs=2, verbose=0, callbacks=[imp])
    assert imp.history[0].monitor == "loss"


@pytest.mark.parametrize(
    ("every", "judge"),
    short_if(
        lambda every, _: every in (3, [1, 4, 5]),
        [(1, "val_accuracy"), (2, "val_accuracy"), (3, "accuracy"), ([1, 4, 5], "val_accuracy")],
    ),
)
def test_one_log_judges_all_levels(every: Any, judge: str) -> None:
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, verbose=0)
    options: dict[str, Any] = {"validation_data": (X, Y), "validation_freq": every}
    history = net(["accuracy"]).fit(X, Y, epochs=6, verbose=0, callbacks=[imp], **options).history
    assert [level.monitor for level in imp.history] == [judge] * 3
    if every == [1, 4, 5]:  # the last value that a level has
        assert [level.score for level in imp.history] == history["val_accuracy"]
    if every == 3:
        model = net(["accuracy"])
        with pytest.raises(ValueError, match=r"val_loss.*validation_freq=3 leaves training 0.*validation_freq=1"):
            late = lth.IMPCallback(rounds=2, epochs_per_round=2, monitor="val_loss", verbose=0)
            model.fit(X, Y, epochs=6, verbose=0, callbacks=[late], **options)
        assert steps_of(model) == 0


def test_a_level_that_ends_before_its_validation_matches_nothing() -> None:
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = True

    imp = lth.IMPCallback(rounds=1, epochs_per_round=2, callbacks=[Stop()], verbose=0)
    net().fit(X, Y, epochs=4, validation_data=(X, Y), validation_freq=2, verbose=0, callbacks=[imp])
    assert [level.monitor for level in imp.history] == ["val_loss"] * 2
    assert np.isnan(imp.history[0].score) and not imp.history[1].matching


class OwnStep(keras.Model):
    """Returns logs of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        return {**super().train_step(data), "gap_error": keras.ops.convert_to_tensor(0.5)}


@pytest.mark.parametrize("monitor", ["gap_error", "gap", "val_gap", None])
def test_a_train_step_of_its_own_tells_its_logs_at_the_first_step(monitor: str | None) -> None:
    model = OwnStep()
    model(X)
    model.compile("sgd", "mse")
    imp = lth.IMPCallback(rounds=1, monitor=monitor, verbose=0)
    if monitor in ("gap", "val_gap"):
        with pytest.raises(ValueError, match=monitor):
            model.fit(X, Y, epochs=2, verbose=0, callbacks=[imp])
        assert steps_of(model) == (1 if monitor == "gap" else 0)
    else:
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[imp])
        assert {level.monitor for level in imp.history} == {monitor or "gap_error"}
