"""What stands beside the rounds: callbacks inside and outside, rates, several optimizers, notebooks."""

from __future__ import annotations

import csv
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keras_lth as lth
from tests.callbacks.ledger import mask_of_each, no_pruned_weight
from tests.callbacks.small import STEPS, X, Y, data, fit, model, unvalidated
from tests.forms import short_if, spread

C = keras.callbacks


class Writer(C.Callback):
    """Opens what it writes to when it gets a model, and closes it at the end, as TensorBoard does."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[list[str]] = []
        self.open = False

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        assert not self.open
        self.open = True
        self.opened.append([])

    def write(self, text: str) -> None:
        assert self.open
        self.opened[-1].append(text)

    def on_train_begin(self, logs: Any = None) -> None:
        self.write("begin")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.write(f"{epoch} of {self.params['epochs']}, {self.params['steps']}")

    def on_test_end(self, logs: Any = None) -> None:
        self.write("test")

    def on_train_end(self, logs: Any = None) -> None:
        self.write("end")
        self.open = False


@pytest.fixture(scope="module")
def plain() -> Writer:
    """What two plain fits of two epochs write."""
    writer, built = Writer(), model()
    for _ in range(2):
        built.fit(data(), epochs=2, validation_data=(X, Y), callbacks=[writer], verbose=0, shuffle=False)
    return writer


@pytest.mark.parametrize("kind", ["imp", "instability"])
def test_what_is_inside_lives_as_in_plain_fits(kind: str, plain: Writer) -> None:
    inside = Writer()
    outer: Any = lth.IMPCallback(rounds=1, epochs_per_round=2, callbacks=[inside, C.History()], verbose=0)
    if kind == "instability":
        outer = lth.InstabilityCallback(data={"t": (X, Y)}, points=2, callbacks=[inside, C.History()], verbose=0)
    history = fit(model(), outer, 4)
    assert history.epoch == [0, 1, 2, 3]
    assert inside.opened == plain.opened


def test_kerass_own_inside(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    own = [
        C.CSVLogger(str(log), append=True),
        C.TerminateOnNaN(),
        C.SwapEMAWeights(),
        C.LambdaCallback(),
        C.ModelCheckpoint(tmp_path / "{epoch:02d}.keras"),
        C.LearningRateScheduler(lambda epoch, rate: 0.01 / (1 + epoch)),
        C.ReduceLROnPlateau(monitor="val_loss"),
        C.EarlyStopping(monitor="val_loss", patience=9, restore_best_weights=True),
    ]
    imp = lth.IMPCallback(rounds=2, epochs_per_round=2, callbacks=own, verbose=0)
    built = model(lambda: keras.optimizers.Adam(use_ema=True))
    fit(built, imp, 6)
    assert [int(row["epoch"]) for row in csv.DictReader(log.read_text().splitlines())] == [0, 1] * 3
    assert [level.remaining for level in imp.history] == [144, 115, 92]
    no_pruned_weight(built.get_weights(), mask_of_each(built, imp.masks(2)))
    assert sorted(path.name for path in tmp_path.glob("*.keras")) == ["01.keras", "02.keras"]


class Cycle(C.Callback):
    """Sets the rate by a count of its own."""

    def __init__(self, where: str, after: int = 0) -> None:
        super().__init__()
        self.where, self.after, self.count = where, after, 0

    def step(self) -> None:
        self.count += 1
        if self.count > self.after:
            self.model.optimizer.learning_rate = 0.1 / (1 + self.count)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.where == "batch begin":
            self.step()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.where == "batch end":
            self.step()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.where == "epoch begin":
            self.step()


class Restarted(Cycle):
    def on_train_begin(self, logs: Any = None) -> None:
        self.count = 0


@pytest.mark.parametrize(
    ("where", "k", "first"), spread(3, ["batch begin", "batch end", "epoch begin"], [0, 3], [True, False])
)
def test_a_rate_that_counts_over_all_rounds_is_refused_in_either_order(where: str, k: int, first: bool) -> None:
    imp = lth.IMPCallback(rounds=1, epochs_per_round=2, rewind_to=k, verbose=0)
    cycle = Cycle(where)
    built = model(lambda: keras.optimizers.SGD(0.1))
    with pytest.raises(RuntimeError, match=r"Round 1 .*Cycle.*IMPCallback\(callbacks="):
        built.fit(data(), epochs=4, callbacks=[cycle, imp] if first else [imp, cycle], verbose=0, shuffle=False)
    assert len(imp.history) == 1
    inside = lth.IMPCallback(rounds=1, epochs_per_round=2, rewind_to=k, callbacks=[Restarted(where)], verbose=0)
    if k == 0:
        unvalidated(model(lambda: keras.optimizers.SGD(0.1)), inside, 4)
        assert len(inside.history) == 2


def test_a_late_drop_is_seen_where_it_comes() -> None:
    """The rates of the first steps agree, those of a later epoch do not."""
    imp = lth.IMPCallback(rounds=1, epochs_per_round=3, verbose=0)
    with pytest.raises(RuntimeError, match=f"Round 1 .* at step {STEPS},"):
        unvalidated(model(lambda: keras.optimizers.SGD(0.1)), imp, 6, beside=[Cycle("epoch begin", after=4)])


def test_schedules_go_back_by_themselves() -> None:
    falls = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    imp = lth.IMPCallback(rounds=1, epochs_per_round=2, rewind_to=3, verbose=0)
    unvalidated(model(lambda: keras.optimizers.SGD(falls)), imp, 4)
    assert len(imp.history) == 2


def several() -> Any:
    by_name = keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.01))
    by_name[".*dense_?[0-9]*/kernel"] = keras.optimizers.SGD(0.1, momentum=0.9)
    return keras.optimizers.MultiOptimizer(by_name)


MAKE = {
    "several": several,
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
}


@pytest.mark.parametrize("kind", MAKE)
def test_an_optimizer_of_optimizers(kind: str, tmp_path: Path) -> None:
    make = MAKE[kind]
    imp = lth.IMPCallback(rounds=2, rewind_to=2, epochs_per_round=1, directory=tmp_path, verbose=0)
    built = model(make)
    unvalidated(built, imp, 3)
    assert [level.remaining for level in imp.history] == [144, 115, 92]
    no_pruned_weight(built.get_weights(), mask_of_each(built, imp.masks(2)))
    unvalidated(model(make, seed=3), again := lth.IMPCallback(rounds=2, rewind_to=2, directory=tmp_path, verbose=0), 3)
    assert again.masks(2) == imp.masks(2)
    with pytest.raises(RuntimeError, match=r"Round 1 .*Sets"):
        unvalidated(model(make), lth.IMPCallback(rounds=1, verbose=0), 2, beside=[Sets()])


@pytest.mark.parametrize("kind", short_if(lambda kind: kind == "several", MAKE))
def test_instability_of_an_optimizer_of_optimizers(kind: str) -> None:
    stability = lth.InstabilityCallback("2 steps", data={"t": (X, Y)}, points=2, verbose=0)
    unvalidated(model(MAKE[kind]), stability, 2)
    assert len(stability.results) == 1


class Sets(C.Callback):
    """Sets the rate of an optimizer inside another."""

    steps = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        outer = self.model.optimizer
        inner = outer.optimizers[0] if hasattr(outer, "optimizers") else outer.inner_optimizer
        self.steps += 1
        inner.learning_rate = 0.1 / self.steps


class Pair(keras.Model):
    """Two networks with an optimizer each, as a GAN has them; none is given to ``compile``."""

    def __init__(self) -> None:
        super().__init__()
        self.one = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        self.two = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        self.one_loss = keras.metrics.Mean(name="one_loss")

    def compile(self, one: Any = None, two: Any = None) -> None:
        super().compile()
        self.one_optimizer, self.two_optimizer = one, two

    def call(self, x: Any) -> Any:
        return self.one(x) + self.two(x)

    def train_step(self, batch: Any) -> Any:
        import tensorflow as tf

        x, _ = batch
        for net, optimizer in ((self.one, self.one_optimizer), (self.two, self.two_optimizer)):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self(x) - 1))
            optimizer.apply(tape.gradient(loss, net.trainable_variables), net.trainable_variables)
        self.one_loss.update_state(loss)
        return {"one_loss": self.one_loss.result()}


def test_two_optimizers_that_compile_is_not_given() -> None:
    pair = Pair()
    pair(X)
    pair.compile(keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1, momentum=0.9))
    imp = lth.IMPCallback(rounds=2, rewind_to=2, verbose=0)
    pair.fit(X, Y, batch_size=16, epochs=3, callbacks=[imp], verbose=0)
    assert [level.monitor for level in imp.history] == ["one_loss"] * 3
    assert [level.remaining for level in imp.history] == [64, 51, 41]
    no_pruned_weight(pair.get_weights(), mask_of_each(pair, imp.masks(2)))


@pytest.mark.parametrize("kind", ["imp", "instability"])
def test_lines_stand_on_lines_of_their_own(kind: str) -> None:
    made: Any = lth.IMPCallback(rounds=2, epochs_per_round=1)
    if kind == "instability":
        made = lth.InstabilityCallback(data={"t": (X, Y)}, points=2)
    out = io.StringIO()
    with redirect_stdout(out):
        fit(model(), made, 3, verbose=1)
    lines = [line for line in out.getvalue().split("\n") if made.name in line]
    assert len(lines) >= 4
    assert all(line.startswith(made.name) and "━" not in line for line in lines)


def test_a_notebook_shows_tables() -> None:
    imp = lth.IMPCallback(rounds=1, verbose=0)
    assert "no training" in imp._repr_html_().lower()
    fit(model(), imp, 2)
    html = imp._repr_html_()
    assert html.count("<tr>") == 3 and "115" in html and "val_accuracy" in html
    stability = lth.InstabilityCallback(data={"<t>": (X, Y)}, points=2, verbose=0)
    unvalidated(model(), stability, 2)
    html = stability._repr_html_()
    assert html.count("<tr>") == 2 and "&lt;t&gt;" in html and f"{stability.barrier['<t>']:.4f}" in html


class Cut(lth.IMPCallback):
    """Empties the last layer in the round."""

    def _prune(self, round: int) -> Any:
        masks = super()._prune(round)
        last = list(masks)[-1]
        return lth.Masks({path: np.zeros_like(mask) if path == last else mask for path, mask in masks.items()})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("integers", [False, True])
def test_a_network_without_a_path_matches_nothing(integers: bool, capsys: pytest.CaptureFixture[str]) -> None:
    keras.utils.set_random_seed(0)
    first = [keras.layers.Embedding(9, 4), keras.layers.Flatten()] if integers else [keras.layers.Dense(4, "relu")]
    built = keras.Sequential([keras.Input((3,)), *first, keras.layers.Dense(2)])
    built.compile("sgd", "mse")
    x = np.random.default_rng(0).integers(0, 9, (32, 3)) if integers else np.random.default_rng(0).random((32, 3))
    imp = Cut(rounds=1, monitor="val_loss")
    built.fit(x, np.zeros((32, 2)), epochs=2, validation_data=(x, np.zeros((32, 2))), callbacks=[imp], verbose=0)
    assert [level.connected for level in imp.history] == [True, False]
    assert not imp.history[1].matching
    assert "disconnected" in imp.summary() and "disconnected" in capsys.readouterr().out
