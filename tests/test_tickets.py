from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lth import files
from keras_lth.masks import Masks
from keras_lth.tickets import Snapshot, Ticket


def snapshot(**changes: Any) -> Snapshot:
    parts: dict[str, Any] = {
        "weights": {
            "dense/kernel": np.array([[1.5, -0.0], [np.nan, np.inf]], np.float32),
            "norm/mean": np.array([1, 2], ml_dtypes.bfloat16),
        },
        "optimizer": {"000/iteration": np.int64(7), "002/momentums/dense/kernel": np.zeros((2, 2), np.float32)},
        "step": 7,
        "seeds": {"dropout/state": np.array([3, 4], np.uint32)},
    }
    return Snapshot(**{**parts, **changes})


def ticket(**provenance: Any) -> Ticket:
    return Ticket(Masks({"dense/kernel": [[1, 0], [0, 0]]}), snapshot(), provenance)


def test_arrays_are_private_and_read_only_mappings_fixed() -> None:
    mine = np.zeros(2)
    taken = Snapshot({"a": mine})
    mine[:] = 1
    assert taken.weights["a"].tolist() == [0, 0] and taken.step == 0 and dict(taken.optimizer) == {}
    with pytest.raises(ValueError, match="read-only"):
        taken.weights["a"][0] = 1
    with pytest.raises(TypeError):
        taken.weights["b"] = mine
    with pytest.raises(AttributeError):
        taken.step = 3
    assert repr(snapshot()) == "Snapshot(step 7, 2 variables, 6 values)"


@pytest.mark.parametrize("step", [-1, 0.5])
def test_a_step_is_a_count(step: float) -> None:
    with pytest.raises(ValueError, match="step must be a whole number ≥ 0"):
        Snapshot({}, step=step)


def test_same_bits_compares_bits() -> None:
    assert snapshot() == snapshot() and snapshot().same_bits(snapshot())  # NaN equals the same NaN
    minus = np.array([[1.5, 0.0], [np.nan, np.inf]], np.float32)
    mean = snapshot().weights["norm/mean"]
    other = snapshot(weights={"dense/kernel": minus, "norm/mean": mean})
    assert snapshot().differences(other) == ["weights/dense/kernel: 1 of 4 values differ"]
    payload = minus.view(np.uint32).copy()
    payload[1, 0] ^= 1  # another NaN
    payload[0, 1] ^= 1 << 31
    other = snapshot(weights={"dense/kernel": payload.view(np.float32), "norm/mean": mean})
    assert snapshot().differences(other) == ["weights/dense/kernel: 1 of 4 values differ"]


def test_differences_name_everything() -> None:
    other = snapshot(
        weights={"dense/kernel": np.zeros((2, 2)), "extra": np.zeros(1)},
        optimizer={"000/iteration": np.int64(8), "002/momentums/dense/kernel": np.zeros(4, np.float32)},
        step=8,
    )
    assert snapshot().differences(other) == [
        "step: 7 and 8",
        "weights/norm/mean: only in the first",
        "weights/extra: only in the second",
        "weights/dense/kernel: float32 (2, 2) and float64 (2, 2)",
        "optimizer/000/iteration: 1 of 1 values differ",
        "optimizer/002/momentums/dense/kernel: float32 (2, 2) and float32 (4,)",
    ]
    assert snapshot() != other and snapshot() != 3


@given(
    hnp.arrays(np.float32, st.integers(0, 6), elements=st.floats(width=32)),
    st.integers(0, 2**40),
)
def test_snapshot_round_trip(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, step: int) -> None:
    path = tmp_path_factory.mktemp("snapshots") / "s"
    before = snapshot(weights={"w/with/slashes": values, "": np.float16(1)}, step=step)
    before.save(path)
    after = Snapshot.load(path)
    assert after.differences(before) == [] and list(after.weights) == list(before.weights)


def test_ticket_round_trip(tmp_path: Path) -> None:
    before = ticket(criterion="magnitude", accuracy=np.float32(0.5), config={"layers": (300, 100)}, nan=None)
    before.save(tmp_path / "t")
    after = Ticket.load(tmp_path / "t")
    assert after == before and after.snapshot.same_bits(snapshot().without_slots()) and after.masks == before.masks
    assert after.provenance["config"] == {"layers": [300, 100]} and after.provenance["accuracy"] == 0.5
    assert type(before.provenance["accuracy"]) is float
    after.save(tmp_path / "u")
    assert (tmp_path / "u").read_bytes() == (tmp_path / "t").read_bytes()


def test_slots_only_when_asked(tmp_path: Path) -> None:
    """Counts, rates and loss scales of every optimizer stay; moments, averages and when they began go."""
    clock = {
        "000/iteration": 7, "001/learning_rate": 0.1, "inner_1/003/dynamic_scale": 2.0, "@opt_b/000/iteration": 3,
        "@opt_b/of/dense/kernel": 0, "optimizer_1/inner_2/001/learning_rate": 0.5, "@opt_b/inner_1/correction_start": 5,
    }  # fmt: skip
    moments = {
        "002/momentums/dense/kernel": [[1.0]], "004/u_product": 0.5, "@opt_b/002/momentums/iteration": [1.0],
        "005/variable": [2.0],
    }  # fmt: skip
    whole = snapshot(optimizer=clock | moments)
    assert whole.slots == list(moments) and whole.has_slots
    assert dict(whole.without_slots().optimizer) == clock and not whole.without_slots().has_slots
    masks = Masks({"dense/kernel": [[1, 0], [0, 0]]})
    assert dict(Ticket(masks, whole).snapshot.optimizer) == clock
    kept = Ticket(masks, whole, keep_slots=True)
    assert kept.snapshot.same_bits(whole)
    kept.save(tmp_path / "t")
    assert Ticket.load(tmp_path / "t").snapshot.same_bits(whole)
    assert pickle.loads(pickle.dumps(kept)).snapshot.same_bits(whole)


def test_a_file_of_an_earlier_version_loads(tmp_path: Path) -> None:
    """One without a state, with slots in a ticket that did not ask for them."""
    old = {"masks/a": np.array([True, False]), "weights/a": np.ones(2), "optimizer/002/momentums/a": np.ones(2)}
    files.write_arrays(tmp_path / "t", old, kind="ticket", meta={"step": 3, "provenance": {}})
    loaded = Ticket.load(tmp_path / "t")
    assert loaded.snapshot.slots == ["002/momentums/a"] and dict(loaded.snapshot.state) == {}
    assert loaded.snapshot.step == 3 and loaded.masks["a"].tolist() == [True, False]


def test_names_inside_the_file(tmp_path: Path) -> None:
    ticket().save(tmp_path / "t")
    arrays, meta = files.read_arrays(tmp_path / "t", kind="ticket")
    assert list(arrays) == [
        "masks/dense/kernel",
        "weights/dense/kernel",
        "weights/norm/mean",
        "optimizer/000/iteration",
        "seeds/dropout/state",
    ]
    assert meta["step"] == 7 and meta["provenance"]["density"] == 0.25


def test_provenance_always_has() -> None:
    found = ticket().provenance
    assert found["format"] == "keras_lth ticket 1" and found["criterion"] == "unknown" and found["density"] == 0.25
    assert set(found["versions"]) == {"keras_lth", "keras", "tensorflow", "numpy"}
    assert found["versions"]["numpy"] == np.__version__
    given_ones = ticket(criterion="SNIP", versions={"keras": "3.8"}, density=0.9).provenance
    assert (given_ones["criterion"], given_ones["versions"], given_ones["density"]) == ("SNIP", {"keras": "3.8"}, 0.25)
    assert json.loads(json.dumps(dict(given_ones))) == dict(given_ones)


def test_provenance_is_a_private_copy() -> None:
    config = {"rates": [0.1]}
    made = ticket(config=config)
    config["rates"].append(0.2)
    assert made.provenance["config"] == {"rates": [0.1]}
    with pytest.raises(TypeError):
        made.provenance["config"] = 1


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"a": [1, object()]}, r"provenance\['x'\]\['a'\]\[1\] is a object"),
        (np.zeros(2), r"provenance\['x'\] is a ndarray"),
        ({1: 2}, r"provenance\['x'\] is a dict"),
        (np.complex64(1j), r"provenance\['x'\] is 1j"),
        (Path("x"), r"provenance\['x'\] is a \w*Path"),
    ],
)
def test_provenance_holds_json_only(value: object, name: str) -> None:
    with pytest.raises(TypeError, match=name):
        ticket(x=value)


def test_summary() -> None:
    assert ticket(criterion="magnitude", versions={}).summary().split("\n") == [
        "layer         shape  weights  remain  density",
        "dense/kernel  2 × 2        4       1   25.0 %",
        "total                      4       1   25.0 %",
        "step: 7",
        "format: keras_lth ticket 1",
        "criterion: magnitude",
        "versions: {}",
        "density: 0.25",
    ]
    assert repr(ticket()) == (
        "Ticket(Masks(1 layer, 1 of 4 weights remain, density 25.0 %), Snapshot(step 7, 2 variables, 6 values))"
    )


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"other": [1]}, r"mask 'other' needs a weight of shape \(1,\), but the snapshot has none"),
        ({"dense/kernel": [1]}, r"mask 'dense/kernel' needs .* the snapshot has one of shape \(2, 2\)"),
    ],
)
def test_masks_belong_to_weights(masks: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ticket(Masks(masks), snapshot())


def test_copies_and_pickles() -> None:
    made = ticket(criterion="magnitude")
    assert copy.deepcopy([made])[0] is made and copy.copy(made.snapshot) is made.snapshot
    again = pickle.loads(pickle.dumps(made))
    assert again == made and not again.snapshot.weights["dense/kernel"].flags.writeable


def test_files_of_another_kind(tmp_path: Path) -> None:
    ticket().save(tmp_path / "t")
    snapshot().save(tmp_path / "s")
    with pytest.raises(ValueError, match=r"s is not a keras_lth ticket: it contains another kind of value: 'snapshot'"):
        Ticket.load(tmp_path / "s")
    with pytest.raises(ValueError, match=r"t is not a keras_lth snapshot"):
        Snapshot.load(tmp_path / "t")
    with pytest.raises(FileNotFoundError):
        Ticket.load(tmp_path / "none")
    # Well-formed files with the wrong things in them.
    weight = {"weights/a": np.ones(2)}
    for arrays, meta in [
        (weight, {}),
        (weight, {"step": "3"}),
        (weight, {"step": -1}),
        ({**weight, "other/a": np.ones(2)}, {"step": 3}),
        ({**weight, "masks/a": np.array([0.5, 1])}, {"step": 3}),
        ({**weight, "masks/b": np.array([True])}, {"step": 3}),
        (weight, {"step": 3, "provenance": [1]}),
    ]:
        files.write_arrays(tmp_path / "x", arrays, kind="ticket", meta=meta)
        with pytest.raises(ValueError, match=r"x is not a keras_lth ticket: (?!.*is not a keras_lth)"):
            Ticket.load(tmp_path / "x")
