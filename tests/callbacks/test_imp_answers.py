"""What a user gives IMP and asks of it: any criterion, any structure, trained weights, names of files, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_lth as lth
from tests.callbacks.small import N, X, Y, fit, model, unvalidated


def imp(**options: Any) -> lth.IMPCallback:
    return lth.IMPCallback(**{"rounds": 2, "epochs_per_round": 1, "verbose": 0, **options})


def lowest_index(model: keras.Model) -> dict[str, np.ndarray]:
    """The later a weight stands in its layer, the higher its score."""
    found = {}
    for path, variable in lth.prunable(model).items():
        count = int(np.prod(variable.shape))
        found[path] = np.arange(count).reshape(tuple(variable.shape)) / count
    return found


class Gradient:
    """|w · dL/dw| on the examples it is given (Lee et al. 2019)."""

    def __init__(self, power: int = 1) -> None:
        self.power = power
        self._seen: list[tuple[Any, Any]] = []

    def __call__(self, model: keras.Model, x: Any, y: Any) -> dict[str, Any]:
        self._seen.append((np.array(x), np.array(y)))
        weights = lth.prunable(model)
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(y, model(x), from_logits=True)
        gradients = tape.gradient(loss, [variable.value for variable in weights.values()])
        return {p: np.abs(v.numpy() * g) ** self.power for (p, v), g in zip(weights.items(), gradients, strict=True)}


def test_a_function_of_the_model() -> None:
    unvalidated(built := model(), run := imp(criterion=lowest_index, fraction=0.5), 3)
    # 144 = 96 + 48, ties to the lowest index: of both layers the first half goes.
    assert not run.masks(1)["dense/kernel"].ravel()[:48].any() and run.masks(1).remaining == 72
    assert run.masks(2).remaining == 36 == lth.masks_of(built).remaining
    assert run.ticket().provenance["criterion"] == f"{__name__}:lowest_index"


def test_a_criterion_of_data_sees_training_examples() -> None:
    unvalidated(model(), run := imp(criterion=Gradient(2)), 3)
    assert run.masks(2).remaining == 92  # 144, 115, 92
    assert run.ticket().provenance["criterion"].endswith(":Gradient(power=2)")
    seen = run.plan.criterion._seen
    assert len(seen) == 3  # once before the first step, then a round
    for x, y in seen:
        assert len(x) == N == len(y)
        assert np.array_equal(x, X) and np.array_equal(y, Y)


@pytest.mark.parametrize(
    ("criterion", "error", "said"),
    [
        ("magnitudes", ValueError, r"did you mean 'magnitude'\?"),
        (3, TypeError, r"\(model, x, y\).*not 3"),
        (Gradient, TypeError, "Gradient"),
    ],
)
def test_what_is_not_a_criterion(criterion: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        imp(criterion=criterion)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda m: {"dense/kernel": np.ones((8, 12))}, r"'dense_1/kernel' \(12, 4\) is missing"),
        (lambda m: {p: np.ones(3) for p in lth.prunable(m)}, r"shape \(3,\), expected \(8, 12\)"),
        (lambda m: [1, 2], "returned list"),
    ],
)
def test_scores_that_do_not_fit_are_refused_before_the_first_step(made: Any, said: str) -> None:
    built = model()
    before = [np.array(w) for w in built.get_weights()]
    with pytest.raises((ValueError, TypeError), match=said):
        unvalidated(built, imp(criterion=made), 3)
    assert all(np.array_equal(a, b) for a, b in zip(before, built.get_weights(), strict=True))


def test_neurons_and_blocks() -> None:
    unvalidated(model(), run := imp(structure="output", fraction=0.25, scope="layer"), 3)
    # 12 and 4 neurons: 9 and 3, then 6.75 → 7 and 2.25 → 2.
    for round, left in ((1, (9, 3)), (2, (7, 2))):
        masks = run.masks(round)
        assert tuple(int(mask.any(axis=0).sum()) for mask in masks.values()) == left
        assert all(np.array_equal(mask, np.broadcast_to(mask.any(axis=0), mask.shape)) for mask in masks.values())
    unvalidated(model(), run := imp(rounds=None, structure="2:4"), 2)
    assert run.masks(1).density == 0.5 and len(run.history) == 2


@pytest.mark.parametrize("kept", [False, True])
def test_trained_weights_give_the_accuracy_of_their_level(tmp_path: Path, kept: bool) -> None:
    run = imp(rounds=4, directory=tmp_path / "run" if kept else None)
    fit(built := model(), run, 5)
    levels = run.history
    best = max(levels, key=lambda level: level.score)
    matching = max((level for level in levels if level.matching), key=lambda level: level.round)
    there = range(5) if kept else {best.round, matching.round, 4}
    for round in there:
        lth.rewind(built, run.trained(round), run.masks(round))
        found = built.evaluate(X, Y, verbose=0, return_dict=True)
        assert found["accuracy"] == pytest.approx(levels[round].score, abs=1e-6)
        assert run.trained(density=levels[round].density).same_bits(run.trained(round))
    assert run.trained().same_bits(run.trained(matching.round))
    for round in set(range(5)) - set(there):
        with pytest.raises(ValueError, match=rf"level {round} .*directory"):
            run.trained(round)


def test_names_of_files_of_the_callbacks_inside(tmp_path: Path) -> None:
    names = str(tmp_path / "w_{round:02d}_{density:.3f}_{epoch}.weights.h5")
    inside = [
        keras.callbacks.CSVLogger(str(tmp_path / "log_{round}.csv")),
        keras.callbacks.ModelCheckpoint(names, save_weights_only=True),
    ]
    built = model()
    for _ in range(2):  # fit_twice
        unvalidated(built, imp(callbacks=inside), 3)
        lth.unmask(built)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "log_0.csv", "log_1.csv", "log_2.csv",
        "w_00_1.000_1.weights.h5", "w_01_0.799_1.weights.h5", "w_02_0.639_1.weights.h5",
    ]  # fmt: skip


def test_the_closing_line_says_how_to_get_the_ticket(capsys: pytest.CaptureFixture[str]) -> None:
    fit(built := model(), run := imp(verbose=1), 3)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    matching = max(level.round for level in run.history if level.matching)
    if matching:
        assert f"imp.ticket({matching})" in last and f"imp.trained({matching})" in last
        imp_ = run
        exec(last[last.index("lth.rewind") : last.index(" for its")], {"lth": lth, "model": built, "imp": imp_})
        assert lth.masks_of(built) == run.masks(matching)
    else:
        assert "no level matches" in last


def test_pictures_and_a_page(tmp_path: Path) -> None:
    run = imp()
    with pytest.raises(RuntimeError, match="not finished a training"):
        run.trained()
    unvalidated(model(), run, 3)
    assert run.figure(tmp_path / "one.png").axes and (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r'imp\.report\("report"\)'):
        run.report()
    page = Path(run.report(tmp_path / "page"))
    assert page.exists() and "63.9 %" in page.read_text()
    # In a directory it is the store's own report.
    unvalidated(model(), kept := imp(rounds=1, directory=tmp_path / "run"), 2)
    assert Path(kept.report()) == tmp_path / "run" / "report" / "index.html"
    unvalidated(model(), again := imp(rounds=1, directory=tmp_path / "run"), 2)
    assert again.rows() == kept.rows()


def test_pictures_without_an_accuracy(tmp_path: Path) -> None:
    built = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6), keras.layers.Dense(1)])
    built.compile("sgd", "mse", metrics=["mae"])
    run = imp()
    built.fit(X, Y, epochs=3, callbacks=[run], verbose=0)
    run.figure(tmp_path / "mae.png")
    assert (tmp_path / "mae.png").exists()
    assert "mae" in Path(run.report(tmp_path / "page")).read_text()
