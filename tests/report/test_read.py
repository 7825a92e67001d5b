"""The frames of stores and of folders with CSV files; what is missing, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from keras_lth import report
from keras_lth.experiments.tables import write_tables
from keras_lth.store import Store
from tests.report import rows

THIRD = 1 / 3  # has no short decimal form


def test_a_store_and_its_csv_files_give_the_same_frames(tmp_path: Path) -> None:
    listed = [*rows.lottery(), *rows.lines(), {"table": "mine", "what": "a", "x": THIRD, "ok": True}]
    made = rows.store(tmp_path / "lenet", listed, arguments={"config": rows.SETTING})
    copied = tmp_path / "copied" / "lenet"
    write_tables(listed, copied / "rows")
    (copied / "rows" / "setting.json").write_text(json.dumps(rows.SETTING))
    one, other = report.read(made), report.read(copied)
    assert {*one.tables} == {"results", "curves", "layers", "instability", "mine"}
    assert one.tables["mine"]["x"][0] == THIRD and one.tables["mine"]["ok"][0]
    for name, frame in one.tables.items():
        pd.testing.assert_frame_equal(frame, other.tables[name][frame.columns], check_dtype=False)
    assert one.settings == other.settings == {"lenet": rows.SETTING}
    assert one.title == "LeNet-300-100 on Fashion-MNIST" and one.runs == ["lenet"] and not one.missing
    assert len(one.tables["results"]) == 3 * (5 + 3 * 4)


def test_a_run_that_is_under_way(tmp_path: Path) -> None:
    made = rows.store(tmp_path / "run", rows.lottery(), missing=3)
    found = report.read(made)
    # Of the 51 networks the last has no result, the last two no curve of eight points.
    assert len(found.tables["results"]) == 50 and len(found.tables["curves"]) == 8 * 49
    assert [labels["table"] for labels in found.missing] == ["curves", "results", "curves"]
    assert {labels["run"] for labels in found.missing} == {"run"} and not found.waiting
    # A value that is damaged is missing, too: the run makes it again.
    path = tmp_path / "run" / "values" / "numbers-lottery-0.value"
    path.write_bytes(path.read_bytes()[:-1])
    assert len(report.read(made).missing) == 4
    # A plan that looks at a value cannot name all its rows yet.
    rows.store(made, [{"table": "instability"}], missing=1, plan="instability", awaited=["evaluate-1"])
    found = report.read(made)
    assert found.waiting == ["instability"] and {"run": "run", "table": "instability"} in found.missing


def test_a_row_that_two_plans_name_stands_once(tmp_path: Path) -> None:
    made = rows.store(tmp_path / "run", rows.lottery(), arguments={"levels": 4})
    known = Store(made).plans()["lottery"]
    Store(made).put_plan("again", {**known, "arguments": {"levels": 5}})
    found = report.read(made)
    assert len(found.tables["results"]) == 51
    assert found.settings == {"run, lottery": {"levels": 4}, "run, again": {"levels": 5}}


def test_several_workdirs(tmp_path: Path) -> None:
    first = rows.store(tmp_path / "a" / "lenet", rows.lottery(levels=1), missing=2)
    second = rows.store(tmp_path / "b" / "lenet", rows.lottery(levels=2))
    third = rows.store(tmp_path / "resnet", rows.lottery(levels=2))
    found = report.read(first, second, third)
    counts = found.tables["layers"]["run"].value_counts().to_dict()
    assert counts == {str(first): 18, str(second): 27, "resnet": 27}
    assert [labels["run"] for labels in found.missing] == [str(first)] * 2
    assert found.title == ", ".join(found.runs)


def test_rows_with_a_label_run_keep_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "rows").mkdir(parents=True)
        (tmp_path / name / "rows" / "mine.csv").write_text("run,x\n1,2.5\n2,\n")
    alone = report.read(tmp_path / "a").tables["mine"]
    assert alone["run"].tolist() == ["1", "2"] and alone["x"][0] == 2.5 and math.isnan(alone["x"][1])
    both = report.read(tmp_path / "a", tmp_path / "b").tables["mine"]
    assert both["run"].tolist() == ["a: 1", "a: 2", "b: 1", "b: 2"]


def test_what_has_no_rows_says_what_would_make_some(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*keras_lth.bin.run.*--workdir={tmp_path}"):
        report.read(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "results.csv").touch()
    with pytest.raises(ValueError, match=r"old.*results\.csv.*choose another folder"):
        report.read(tmp_path / "old")
    # Five networks with a result and a curve each, and the layers of two masks.
    made = rows.store(tmp_path / "run", rows.lottery(1, 1), missing=12)
    with pytest.raises(FileNotFoundError, match=f"{made}.* 12 .*start the same run again"):
        report.read(made)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "results.csv").write_text("arm,level\nimp,0,3\n")
    with pytest.raises(ValueError, match=r"results\.csv.*[Rr]emove"):
        report.read(tmp_path)
