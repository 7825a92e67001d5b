"""A run that is killed at any time ends as one that never was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest

import keras_lth as lth
from keras_lth import surgery, training
from keras_lth.callbacks.state import get_state, set_state
from keras_lth.store import Store
from tests.forms import short_if
from tests.training.networks import Strike, Struck, X, Y, examples, network


def imp_run(
    folder: Path | None, strike: int | None, *, own: Path | None = None, every: float = 0
) -> tuple[Any, Any, dict[str, list[float]]]:
    """A run in ``folder``; ``own``: the folder of IMP itself."""
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=0.3, factor=0.5)
    imp = lth.IMPCallback(
        rounds=2, epochs_per_round=2, rewind_to="5 steps", verbose=0, directory=own, callbacks=[plateau]
    )
    model = network(keras.optimizers.SGD(0.05, momentum=0.9), dropout=0.1)
    history = training.fit(
        model, examples(), epochs=6, callbacks=[imp, Strike(strike)], steps_per_call=4, validation_data=(X, Y),
        checkpoints=folder, checkpoint_every=every, jit_compile=False,
    )  # fmt: skip
    return imp, surgery.snapshot(model), history.history


@pytest.fixture(scope="module")
def unstruck(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, dict[str, list[float]], Path]:
    """A run without a strike, and the folder of IMP itself."""
    own = tmp_path_factory.mktemp("whole")
    return *imp_run(None, None, own=own), own


# Inside each round; and inside each epoch of each.
@pytest.mark.parametrize("strikes", short_if(lambda strikes: len(strikes) == 3, [[5, 8, 6], [3, 6, 4, 2, 5, 1, 4]]))
def test_struck_inside_every_round(unstruck: Any, tmp_path: Path, strikes: list[int]) -> None:
    whole_imp, whole, history, _ = unstruck
    for strike in strikes:
        with pytest.raises(Struck):
            imp_run(tmp_path, strike)
    imp, end, resumed = imp_run(tmp_path, None)
    assert end.differences(whole) == []
    assert resumed == history
    for level in range(3):
        assert imp.masks(level) == whole_imp.masks(level)
        assert imp.ticket(level).snapshot.differences(whole_imp.ticket(level).snapshot) == []
    assert [(row.score, row.steps) for row in imp.history] == [(row.score, row.steps) for row in whole_imp.history]
    # The same program on a finished run: nothing is trained, the end is there.
    _, again, _ = imp_run(tmp_path, 1)
    assert again.differences(whole) == []


def test_commits_behind_the_folder_of_imp_or_lost(unstruck: Any, tmp_path: Path) -> None:
    """Struck in round 0, then in round 1 with no commit since: IMP's folder knows of round 1, the commit does not."""
    own = tmp_path / "own"
    _, whole, history, whole_own = unstruck
    with pytest.raises(Struck):
        imp_run(tmp_path / "commits", 5, own=own)
    with pytest.raises(Struck):
        imp_run(tmp_path / "commits", 10, own=own, every=3600)
    assert [name for name in sorted(Store(own).names()) if name.count(".") == 1 and "level" in name] == ["imp.level_00"]
    _, end, resumed = imp_run(tmp_path / "commits", None, own=own)
    assert end.differences(whole) == [] and resumed == history
    first, second = Store(own), Store(whole_own)
    assert first.names() == second.names()
    for name in first.names():
        a, b = first.get(name), second.get(name)
        assert all(a.arrays[key].tobytes() == b.arrays[key].tobytes() for key in {**a.arrays, **b.arrays}), name
    # Without any commit the finished store of IMP is enough; it keeps no slots of the end, which is committed.
    _, loaded, none = imp_run(tmp_path / "others", 1, own=own)
    assert loaded.without_slots().differences(whole.without_slots()) == [] and none == {}
    _, again, _ = imp_run(tmp_path / "others", 1, own=own)
    assert again.differences(loaded) == []


def test_settings_of_a_callback_are_not_its_state() -> None:
    """Keras turns the sign of ``min_delta`` when it first compares: restored as well, it would be turned twice."""
    first = keras.callbacks.EarlyStopping(monitor="loss", min_delta=0.3, patience=9)
    first.set_model(network())
    first.on_train_begin()
    first.on_epoch_end(0, {"loss": 1.0})
    other = keras.callbacks.EarlyStopping(monitor="loss", min_delta=0.3, patience=9)
    other.set_model(network())
    other.on_train_begin()
    set_state(other, *get_state(first))
    for one in (first, other):
        one.on_epoch_end(1, {"loss": 0.9})  # less than min_delta better
    assert (other.wait, other.best) == (first.wait, first.best) == (1, 1.0)


def test_another_run_is_refused(tmp_path: Path) -> None:
    training.fit(network(), examples(), epochs=1, checkpoints=tmp_path, jit_compile=False)
    with pytest.raises(ValueError, match=r"contains another run \(batch_size: 16 there, 25 here; steps_per_epoch: 16"):
        training.fit(network(), examples(batch_size=25), epochs=1, checkpoints=tmp_path)
