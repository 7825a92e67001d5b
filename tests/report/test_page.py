"""The page: whole, light, without a network; what it says of what is missing; the program."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from keras_lth import files, report
from keras_lth.files import stores
from tests.files.memory import MemoryStore
from tests.report import rows
from tests.two_devices import ROOT

VOID = {"meta", "br"}


class Page(HTMLParser):
    """A page whose every tag is closed in order, and that asks for nothing."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open and len(text) < 2e6

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "style"):
                assert not re.search(r"https?:|//|@import|url\((?!#)", value or ""), value
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith("#")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag) if tag not in VOID else None

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def read(path: files.RunPath) -> Page:
    return Page(path.read_text())


def test_a_whole_run(tmp_path: Path) -> None:
    made = rows.store(tmp_path / "run", [*rows.lottery(levels=5), *rows.lines()], arguments={"config": rows.SETTING})
    page = read(report.write(made))
    assert page.tags.count("svg") == 5 and page.tags.count("circle") > 100
    assert {path.name for path in (made / "report").iterdir()} == {
        "index.html", "accuracy.png", "curves.png", "layers.png", "path.png", "barrier.png", "table.csv", "table.md",
            "findings.csv",
    }  # fmt: skip
    assert "LeNet-300-100 on Fashion-MNIST" in page.words and "are missing" not in page.words
    assert "lenet_300_100" in page.words  # the setting
    table = pd.read_csv(made / "report" / "table.csv")
    exact = pd.read_csv(io.StringIO((made / "report" / "table.csv").read_text()), dtype=str)
    assert len(table) == 6 + 3 * 5 and table.shape == exact.shape
    # All digits: 0.9 − 0.001 and three such means.
    mine = table[(table["arm"] == "imp") & (table["level"] == 5)].iloc[0]
    assert mine["least"] == rows.accuracy("imp", 5, 0) and mine["difference"] == pytest.approx(-0.005, abs=1e-15)
    lines = [line for line in (made / "report" / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 6 and {line.count("|") for line in lines} == {7}
    # A figure whose rows are gone is removed.
    again = rows.store(tmp_path / "less", rows.lottery(1, 1))
    report.write(again, out=made / "report")
    assert not (made / "report" / "path.png").exists()


def test_what_is_missing_stands_at_the_top(tmp_path: Path) -> None:
    made = rows.store(tmp_path / "run", [*rows.lottery(2, 2), *rows.lines()], missing=18 + 3)
    rows.store(made, [], plan="instability", awaited=["evaluate-1"])
    words = read(report.write(made)).words
    top = words[: words.index("Verdict")]
    assert "21 rows are missing: 2 of curves, 1 of results, 18 of instability." in top
    assert "instability needs" in top and "path, barrier" in top


def test_one_replicate_and_those_that_diverged_are_said(tmp_path: Path) -> None:
    made = rows.store(tmp_path / "one", rows.lottery(1, 2, lost=[("reinit", 2, 0)]))
    words = read(report.write(made)).words
    assert "one replicate" in words and "reinitialised level 2 replicate 0" in words
    lost = rows.store(tmp_path / "lost", rows.lottery(1, 1, lost=[("imp", 0, 0), ("imp", 1, 0)]))
    assert "The dense network diverged" in read(report.write(lost)).words
    start = rows.store(tmp_path / "start", [row for row in rows.lottery(1, 1) if row.get("level")])
    assert "nothing to compare with" in read(report.write(start)).words


def test_a_table_of_a_users_own(tmp_path: Path) -> None:
    listed = [{"criterion": "<saliency>", "replicate": n, "accuracy": n / 7, "path": [n, 2]} for n in range(250)]
    made = rows.store(tmp_path / "mine", listed)
    page = read(report.write(made))
    assert page.tags.count("svg") == 0 and "Table rows" in page.words
    assert "<saliency>" in page.words and "0.428571" in page.words and "200 of 250" in page.words
    assert {path.name for path in (made / "report").iterdir()} == {"index.html"}


def test_several_workdirs(tmp_path: Path) -> None:
    first = rows.store(tmp_path / "lenet", rows.lottery(2, 2), arguments={"config": {"steps": 5}})
    second = rows.store(tmp_path / "resnet", rows.lottery(2, 2), arguments={"config": {"steps": 7}})
    with pytest.raises(ValueError, match=r"2 workdirs.*out"):
        report.write(first, second)
    words = read(report.write(first, second, out=tmp_path / "both")).words
    assert "lenet: IMP" in words and "resnet: IMP" in words and "The dense network of resnet" in words
    assert words.index("steps") < words.rindex("5") < words.rindex("7")


def test_an_object_store(tmp_path: Path) -> None:
    memory = MemoryStore()
    stores.register("memory", memory)
    try:
        rows.store("memory://bucket/run", rows.lottery(1, 1))
        page = report.write("memory://bucket/run")
        assert str(page) == "memory://bucket/run/report/index.html" and "run" in read(page).words
    finally:
        stores.register("memory", None)


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys, atexit; from keras_lth.bin import report;"
        "atexit.register(lambda: print('tensorflow' in sys.modules)); report.run()"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_the_program(tmp_path: Path) -> None:
    made = rows.store(tmp_path / "run", rows.lottery(2, 2), missing=2)
    done = program(f"--workdir={made}")
    assert done.returncode == 0, done.stderr
    assert "89.95 %" in done.stdout and "2 rows are missing" in done.stdout
    assert f"{made / 'report' / 'index.html'}" in done.stdout and done.stdout.endswith("False\n")
    for flags, remedy in (
        ([f"--workdir={tmp_path / 'none'}"], "keras_lth.bin.run"),
        ([f"--workdir={made},{made}"], "--out"),
    ):
        done = program(*flags)
        assert done.returncode == 1 and remedy in done.stderr
        assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_no_program_that_trains_loads_what_reports_need() -> None:
    # Keras imports pandas and Matplotlib where it finds them; under quick_imports it does not, and ours must not.
    code = (
        "import sys\n"
        "from keras_lth.bin import quick_imports\n"
        "import keras_lth.bin.run, keras_lth.bin.store\n"
        "with quick_imports():\n"
        "    import keras_lth.experiments.kinds, keras_lth.callbacks.imp, keras_lth.callbacks.instability\n"
        "bad = {'pandas', 'seaborn', 'matplotlib', 'keras_lth.report'} & {*sys.modules}\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_committed_results_are_reported_on_without_their_store(tmp_path: Path) -> None:
    here = ROOT / "docs" / "results" / "lenet_300_100_fashion_mnist"
    page = report.write(here, out=tmp_path)
    for name in ("table.csv", "table.md"):
        assert (tmp_path / name).read_bytes() == (here / "report" / name).read_bytes()
    assert (
        read(page).tags.count("svg") == 5
        and "winning ticket" in Page((here / "report" / "index.html").read_text()).words
    )
