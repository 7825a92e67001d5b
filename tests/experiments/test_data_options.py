"""A hold-out in plans: what trains, what is measured, what the names are, and what is refused before a step trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keras_lth.experiments import config as configs
from keras_lth.experiments.lab import Lab, network
from keras_lth.plans import Notebook, run
from keras_lth.store import Store
from tests.plans import nets


def naming() -> Lab:
    return Lab(
        Notebook(lambda step: None),
        network("digits", "lenet_300_100", std=(2.0,)),
        {"name": "adam"},
        rates=1.2e-3,
        batch_size=60,
    )


def test_pinned_names() -> None:
    """Without data options names are as they were before there were any; options at their default are left out."""
    lab = naming()
    before = [
        "init-df58a66defa9a8ce75e3018dc8bc69f18788d23221e13a8c4f2c53a51ddfe946",
        "state-c371895c513eacf3-24-9f77f01e10f23b909ed48ea00217c79a49f1e890f9334c8731f6b288861cdd9d",
        "evaluate-73d2f64226839ccd86d7896429420c5cb135ed3a05f5da67513d0f97f1641f6e",
    ]

    def names(lab: Lab) -> list[str]:
        init = lab.init(1)
        return [init.name, lab.train(init).at(24).name, lab.evaluate(init).name]

    neutral: Any = {"holdout": None, "balanced": False, "seed": 0}
    assert names(lab) == before
    assert names(lab.on(network=network("digits", "lenet_300_100", data_options=neutral, std=(2.0,)))) == before
    other = network("digits", "lenet_300_100", data_options={"holdout": 0.1}, std=(2.0,))
    assert not {*names(lab.on(network=other))} & {*before}


def test_a_hold_out_is_measured_and_not_trained_on(tmp_path: Path) -> None:
    """22 examples: 4 are held out, so an epoch of batches of 4 has 5 steps."""
    held: Any = {"holdout": 0.2, "seed": 1}
    found: dict[str, Any] = {}

    def plan(book: Notebook) -> None:
        lab = nets.lab(book).on(network=network(nets.blobs, nets.net, data_options=held))
        training = lab.train(lab.init(1))
        found.update(
            sizes=lab.examples(), curve=training.observed("holdout", every=5, to=10),
            end=lab.evaluate(training.at(10), what="holdout"),
        )  # fmt: skip
        book.want(*found.values())

    run(plan, tmp_path / "s", say=lambda text: None)
    rows = {name: Store(tmp_path / "s").get(step.name).rows for name, step in found.items()}
    assert rows["sizes"] == [{"examples": 18, "test_examples": 22, "classes": 3, "holdout_examples": 4}]
    assert [row["step"] for row in rows["curve"]] == [5, 10]
    assert rows["curve"][1]["holdout_loss"] == pytest.approx(rows["end"][0]["holdout_loss"], rel=1e-5)
    # Of four examples an accuracy is a multiple of a quarter.
    assert rows["end"][0]["holdout_accuracy"] * 4 % 1 == 0


def test_a_hold_out_that_there_is_not() -> None:
    lab = naming()
    line = lab.train(lab.init(1))
    for asked in (
        lambda: lab.evaluate(line.at(3), what="holdout"),
        lambda: line.observed("holdout", every=1, to=3),
        lambda: lab.compare(line.at(3), line.at(4), what="holdout"),
    ):
        with pytest.raises(ValueError, match=r"data_options=\{'holdout': 0.1\}"):
            asked()
    with pytest.raises(ValueError, match="train, test, holdout, not on 'val'"):
        line.observed("val", every=1, to=3)


@pytest.mark.parametrize(
    ("options", "said"), [({"holdout": 2}, "holdout.*2"), ({"holdot": 0.1}, "holdot.*holdout"), (0.1, "mapping.*0.1")]
)
def test_a_config_refuses_them(options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        configs.check(configs.completed({"data_options": options}))


def test_a_config_sets_them() -> None:
    config = configs.completed({"data_options": {"holdout": 0.1}})
    configs.check(config)
    given = configs.lab_of(config, Notebook(lambda step: None)).network
    assert given["data_options"] == {"holdout": 0.1} and configs.DEFAULTS["data_options"] == {}
