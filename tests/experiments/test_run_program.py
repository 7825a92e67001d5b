"""The program that runs the plans of a config: what it makes, what it does not make again, what it refuses."""

from __future__ import annotations

import csv
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from keras_lth.configs.lenet_300_100_digits import get_config
from keras_lth.experiments import config as configs
from keras_lth.experiments.tables import write_tables
from keras_lth.imp import IMP
from keras_lth.masks import Masks
from keras_lth.plans import Notebook, run
from keras_lth.plans import rows as rows_of
from keras_lth.store import Value
from tests.forms import short_if

TINY = (
    "--config=lenet_300_100_digits", "--config.steps=24", "--config.levels=1", "--config.arms=('imp','reinit')",
    "--config.jit_compile=False", "--config.validation_freq=1",
)  # fmt: skip


class Ended(NamedTuple):
    """``seconds`` of the process, its own and the system's."""

    out: str
    err: str
    loaded_tensorflow: bool
    seconds: float


def program(folder: Path, *flags: str, done: bool = True) -> Ended:
    """Run the program in a folder that is not the project's."""
    code = (
        "import atexit, runpy, sys, time\n"
        "atexit.register(lambda: print('TensorFlow', 'tensorflow' in sys.modules, time.process_time()))\n"
        "sys.argv[0] = 'run'\nrunpy.run_module('keras_lth.bin.run', run_name='__main__')\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, f"--workdir={folder / 'run'}", *flags], cwd=folder, text=True,
        capture_output=True, timeout=180, check=False,
    )  # fmt: skip
    assert (process.returncode == 0) == done, process.stdout[-1000:] + process.stderr[-3000:]
    out, _, about = process.stdout.rpartition("TensorFlow ")
    loaded, seconds = about.split()
    return Ended(out, process.stderr, loaded == "True", float(seconds))


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "run" / "rows" / f"{name}.csv") as file:
        return list(csv.DictReader(file))


def states(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "run" / "values").glob("state-*")}


def test_a_run_and_more_of_it(tmp_path: Path) -> None:
    program(tmp_path, *TINY)
    first, rows = states(tmp_path), table(tmp_path, "results")
    # The dense network, and a level of each arm.
    assert len(first) == 3 and [(row["arm"], row["level"]) for row in rows] == [
        ("imp", "0"), ("imp", "1"), ("reinit", "1"),
    ]  # fmt: skip
    assert [row["remaining"] for row in rows] == ["50200", "40160", "40160"]
    # Digits: 1 440 examples in batches of 60 are 24 steps; a curve has a point after each epoch, with all its digits.
    curves = table(tmp_path, "curves")
    assert [row["step"] for row in curves] == ["24"] * 3 and float(curves[0]["accuracy"]) == float(rows[0]["accuracy"])
    assert len(table(tmp_path, "layers")) == 2 * 3
    # Again: nothing is trained, and TensorFlow not imported. The rows are written from the values of the store.
    (tmp_path / "run" / "rows" / "results.csv").unlink()
    again = program(tmp_path, *TINY)
    assert "Nothing is missing" in again.out and not again.loaded_tensorflow and again.seconds < 3
    dry = program(tmp_path, *TINY, "--dry_run")
    assert not dry.loaded_tensorflow and "missing" in dry.out
    assert states(tmp_path) == first and table(tmp_path, "results") == rows
    # Another plan on this store leaves the rows of this one beside its own.
    kept = rows_of({"other": lambda book: book.row(note=1)}, tmp_path / "run").rows
    assert kept[0] == {"plan": "other", "note": 1}
    assert [row["remaining"] for row in kept[1:] if row["table"] == "results"] == [50200, 40160, 40160]
    # What cannot work is refused on this store too, before anything is loaded.
    refused = program(tmp_path, *TINY, "--config.levels=60", done=False)
    # 50 200 · 0.8^43 = 3.4, 0.8^44 = 2.7, where each level is rounded: 44 is the last that leaves three weights.
    assert "levels=60" in refused.err and "levels=44" in refused.err and not refused.loaded_tensorflow
    assert "Traceback" not in refused.err
    # Another level, of the plans that the program makes: only it is trained.
    config = {**get_config().to_dict(), "steps": 24, "levels": 2, "arms": ("imp", "reinit")}
    more = configs.plans_of(configs.completed({**config, "jit_compile": False, "validation_freq": 1}), 1440)
    run(more, tmp_path / "run", say=lambda text: None)
    assert len(states(tmp_path)) == 5 and first.items() <= states(tmp_path).items()
    results = [row for row in rows_of(more, tmp_path / "run").rows if row["table"] == "results"]
    assert [row["remaining"] for row in results][-2:] == [32128, 32128]


@pytest.mark.proof
def test_another_level_by_the_program(tmp_path: Path) -> None:
    program(tmp_path, *TINY)
    first = states(tmp_path)
    program(tmp_path, *TINY, "--config.levels=2")
    assert len(states(tmp_path)) == 5 and first.items() <= states(tmp_path).items()
    assert [row["remaining"] for row in table(tmp_path, "results")][-2:] == ["32128", "32128"]


def test_a_dry_run(tmp_path: Path) -> None:
    out = program(tmp_path, *TINY, "--dry_run").out
    lines = {line.split()[0]: line.split()[1:3] for line in out.splitlines()[1:]}
    # States are those after training; each has its loss and metrics on two sets.
    assert lines["state"] == ["0", "3"] and lines["evaluate"] == ["0", "6"] and lines["cut"] == ["0", "1"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config=lenet_300_digits"], ["lenet_300_digits", "lenet_300_100_digits"]),
        (["--config=nothing/there.py"], ["nothing/there.py"]),
        ([*TINY, "--config.stepz=3"], ["stepz", "steps"]),
        ([*TINY, "--config.roundz=3"], ["roundz", "is not a config key", "DEFAULTS"]),
        ([*TINY, "--config.steps=many"], ["steps", "many"]),
        ([*TINY, "more"], ["more"]),
        ([*TINY, "--config.model=nowhere:model"], ["nowhere:model"]),
        ([*TINY, "--workers=2", "--strategy=mirrored"], ["--workers=", "--strategy=", "not both"]),
        ([*TINY, "--runner=ray", "--strategy=tpu"], ["--workers=", "--strategy=", "not both"]),
        ([*TINY, "--config.rewind_to=24 steps"], ["rewind_to='24 steps'", "steps=24"]),
        (["--config.steps=3"], ["--config"]),
    ],
)
def test_what_a_command_cannot_say(flags: list[str], said: list[str], tmp_path: Path) -> None:
    ended = program(tmp_path, *flags, done=False)
    assert all(word in ended.err for word in said) and "Traceback" not in ended.err
    # What is not a flag of ours absl says, and where the help is.
    assert len([line for line in ended.err.strip().splitlines() if "--helpshort" not in line]) == 1
    assert not ended.loaded_tensorflow and not (tmp_path / "run").exists()


def test_a_run_of_the_old_layout_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    err = program(tmp_path, *TINY, done=False).err
    assert "choose another folder" in err and [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


MINE = """
import keras, numpy as np
import keras_lth as lth
from keras_lth.configs.lenet_300_100 import get_config as thesis

@lth.versioned(version=1)
def network(shape, classes, seed, outputs=None, fixed=None, widths=()):
    kernel = keras.initializers.GlorotNormal(seed)
    return keras.Sequential([
        keras.Input(fixed or shape), *map(keras.layers.Dense, widths),
        keras.layers.Dense(outputs or classes, kernel_initializer=kernel, name="only"),
    ])

def plan(lab, imp, *, name):
    lab.row(lab.evaluate(lab.train(lab.init(0)).at(imp.T)), table=name)
    lab.row(lab.layers(lab.full()), table="layers")

def get_config():
    config = thesis("mine.npz")
    config.model, config.plan, config.plan_options = "mine:network", "mine:plan", {"name": "own"}
    config.steps, config.levels, config.jit_compile = 6, 0, False
    return config
"""


def ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(90, 4)), np.arange(90) % 3
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)


def test_ones_own_data_model_plan_and_config(tmp_path: Path) -> None:
    """All in a folder of one's own. Options that the config does not name are keys of their own."""
    ones_own(tmp_path)
    options = ["--config.model_options.widths=(7, 5)", "--config.data_options.subset=60"]
    ended = program(tmp_path, "--config=mine.py", *options)
    (row,) = table(tmp_path, "own")
    assert 0 <= float(row["accuracy"]) <= 1 and row["plan"].startswith("mine.plan-") and "failed" not in ended.out
    assert len(states(tmp_path)) == 1
    assert [int(row["size"]) for row in table(tmp_path, "layers")] == [4 * 7, 7 * 5, 5 * 3]


MISFITS = {"outputs=2": ["(None, 2)", "3 classes"], "fixed=(5,)": ["5"], "wide=8": ["wide"]}


@pytest.mark.parametrize("options", short_if(lambda options: "fixed" not in options, MISFITS))
def test_only_what_fits_together_is_run(options: str, tmp_path: Path) -> None:
    ones_own(tmp_path)
    ended = program(tmp_path, "--config=mine.py", f"--config.model_options.{options}", done=False)
    assert all(word in ended.err.splitlines()[-1] for word in MISFITS[options]) and "Traceback" not in ended.err
    assert states(tmp_path) == {}


@pytest.mark.proof
def test_on_ray(tmp_path: Path) -> None:
    program(tmp_path, *TINY, "--runner=ray", "--workers=2")
    assert len(states(tmp_path)) == 3 and len(table(tmp_path, "results")) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stepz": 1}, "stepz.*steps"),
        ({"instability": {"fork": ()}}, "fork.*forks"),
        ({"arms": 5}, "arms.*5"),
        ({"schedule": "cosine"}, "schedule.*drops.*cosine"),
        ({"optimizer": "adam"}, "optimizer.*name.*adam"),
        ({"instability": {"forks": 3}}, "forks.*3"),
        ({"fraction": "a fifth"}, "fraction.*a fifth"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"replicates": "three"}, "replicates.*three"),
        ({"optimizer": {"name": "adam"}}, "learning_rate.*None"),
        ({"schedule": {"drops": (9, 3)}}, r"drops.*\(9, 3\)"),
        ({"arms": ("imp", "reinitialised")}, "reinitialised.*reinit"),
        ({"plan": "lotery"}, "lotery.*lottery"),
        ({"plan": "nothing.there:plan"}, "nothing.there:plan"),
        ({"plan": "averaging"}, "averaging.forks"),
        ({"plan": "averaging", "averaging": {"permutations": True}}, "replicates=1"),
        ({"plan": "averaging", "averaging": {"every": ("0 steps",)}}, "0 steps.*above 0"),
        ({"plan": "averaging", "averaging": {"forks": (0,), "parts": ({"part": "1/2"},)}}, "1 part.*2/2"),
        ({"plan": "averaging", "averaging": {"forks": (0,), "parts": ({"part": "3/2"}, {})}}, "1/2.*'3/2'"),
        ({"plan": "instability", "instability": {"networks": ("random",)}}, "networks.*'random'.*random_layerwise"),
        ({"plan": "instability", "instability": {"levels": (16,)}}, r"instability\.levels.*16.*levels=15"),
        ({"plan": "instability", "instability": {"seeds": (7, 8, 7)}}, r"instability\.seeds.*7 twice"),
        ({"plan": "instability", "instability": {"seeds": (7, 8)}}, "2 seeds for runs=3"),
        ({"plan": "instability", "instability": {"noise": "augment"}}, "flip.*noise='order'"),
        ({"plan": "instability", "instability": {"span": "whole"}}, "remaining, restart.*'whole'"),
        ({"plan": "instability", "instability": {"statistics": "mean"}}, "mean.*interpolate"),
        ({"plan": "instability", "instability": {"after": {"name": "sgd"}}}, "learning_rate"),
        ({"plan": "instability", "instability": {"every": "30000 steps"}}, "step 30000.*steps=24000"),
        ({"instability": {"forks": ("0 steps",)}}, "lottery,instability"),
        ({"plan": "instability", "instability": {"forks": ("100%",)}}, "100%.*24000"),
        ({"plan": "instability", "instability": {"forks": (0,), "runs": 1}}, "runs.*1"),
        ({"rewind_to": "5 minutes"}, "5 minutes.*500 steps"),
        ({"fraction": 1.5}, "1.5"),
        ({"scope": "layers"}, "layers"),
        ({"compat": "torch"}, "open_lth.*torch"),
        ({"plan": "early"}, r"early\.levels"),
        ({"early": {"methods": ("snipp",)}}, "snipp.*snip"),
        ({"early": {"levels": (0,)}}, "early.levels.*0"),
        ({"early": {"ltr": "100%"}}, "early.ltr.*100%"),
        ({"validation_freq": "often"}, "validation_freq.*often"),
        ({"validation_freq": 0}, "validation_freq.*0"),
        ({"plan": "dilation"}, r"dilation\.levels"),
        ({"dilation": {"levels": (16,)}}, "16.*levels=15"),
        ({"plan": "dilation", "dilation": {"levels": (3,)}, "rewind_to": "5 steps"}, "5 steps.*0 steps"),
        ({"plan": "dilation", "dilation": {"levels": (3,)}, "steps": 7}, "0.2.*steps=7.*1.4"),
        ({"dilation": {"factors": (1.0, 0.5)}}, r"increasing.*\[1.0, 0.5\]"),
        ({"dilation": {"arms": ("reinitialised",)}}, "reinitialised.*reinit"),
    ],
)
def test_what_no_config_can_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){said}"):
        configs.check(configs.completed(changes))


def test_epochs_past_the_end() -> None:
    config = configs.completed({"rewind_to": "2 epochs", "steps": 48})
    configs.check(config)
    with pytest.raises(ValueError, match="step 48"):
        configs.plans_of(config, 1440)
    assert configs.imp_of({**config, "steps": 49}, 1440).k == 48
    assert configs.imp_of(configs.completed({"rewind_to": "1%", "steps": 500}), 7).k == 5


def test_durations_between_points_of_a_curve() -> None:
    """A number is one of epochs; 1 440 examples in batches of 60 are 24 steps."""
    found = []
    for given in (2, "2", "1 epoch", "400 steps", "1%"):
        config = configs.completed({"validation_freq": given})
        configs.check(config)
        (plan,) = configs.plans_of(config, 1440).values()
        plan(book := Notebook(lambda step: None))
        (curve,) = {s.params["every"] for row in book.rows for s in row.steps if s.kind.name == "observed"}
        found.append(curve)
    assert found == [48, 48, 24, 400, 240]


def test_layers_that_are_not_pruned_count_in_open_lth() -> None:
    """The plan waits for the sizes of the layers, with and without the excluded one, and counts what is ignored."""
    config = configs.completed({"compat": "open_lth", "exclude": ("output",), "levels": 1})
    configs.check(config)
    sizes = {}

    def value(step: Any) -> Value | None:
        if step.kind.name == "full":
            sizes[step.name] = 265_200 if step.params.get("exclude") else 266_200
            return Value({}, {"rows": [{"size": sizes[step.name]}]})
        return None

    (plan,) = configs.plans_of(config, 1440).values()
    plan(book := Notebook(value))
    cuts = [step.params for row in book.rows for step in row.steps if step.kind.name == "cut"]
    assert len(sizes) == 2 and cuts and all(cut["ignored"] == 1000 and cut["compat"] == "open_lth" for cut in cuts)


def test_forms() -> None:
    config = configs.completed({"arms": "imp, reinit", "instability": {"forks": "0 steps,5%"}, "schedule": None})
    assert config["arms"] == ("imp", "reinit") and config["instability"]["forks"] == ("0 steps", "5%")
    assert config["schedule"] == configs.DEFAULTS["schedule"]
    assert configs.completed({"optimizer": {"learning_rate": 1}})["optimizer"] == {"learning_rate": 1}


def test_levels_and_layers() -> None:
    masks = Masks({"a": np.ones(6, bool), "b": np.ones(2, bool)})
    configs.check_levels(IMP(rounds=2, fraction=0.5), masks)  # 8, 4, 2
    with pytest.raises(ValueError, match=r"levels=3.*levels=2"):
        configs.check_levels(IMP(rounds=3, fraction=0.5), masks)


def mine(lab: Any, imp: IMP, *, name: str) -> None:
    """A plan of a user's own."""
    lab.row(lab.evaluate(lab.train(lab.init(0)).at(imp.T)), table=name)


def test_a_plan_of_ones_own() -> None:
    changes = {"plan": f"lottery, {__name__}:mine", "plan_options": {"name": "own"}, "augment": "flip", "levels": 0}
    config = configs.completed({**changes, "schedule": {"drops": (9,), "factor": 0.5}})
    configs.check(config)
    assert config["augment"] == ("flip",)
    rows = []
    for plan in pickle.loads(pickle.dumps(configs.plans_of(config, 1440))).values():
        plan(book := Notebook(lambda step: None))
        rows.append([row.labels["table"] for row in book.rows])
    assert rows == [["results", "curves", "layers"], ["own"]]


def test_tables(tmp_path: Path) -> None:
    rows = [{"table": "a", "x": 1 / 3}, {"x": np.float64(0.1), "path": [1, 2]}, {"table": "a", "y": True}]
    assert write_tables(rows, tmp_path / "rows") == {"a.csv": 2, "rows.csv": 1}
    assert (tmp_path / "rows" / "a.csv").read_text() == "x,y\n0.3333333333333333,\n,True\n"
    assert (tmp_path / "rows" / "rows.csv").read_text() == 'x,path\n0.1,"[1, 2]"\n'
    write_tables(rows[:1], tmp_path / "rows")
    assert [path.name for path in (tmp_path / "rows").iterdir()] == ["a.csv"]
