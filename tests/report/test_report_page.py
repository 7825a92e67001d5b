"""From a run's folder to its page: what is read, written, left out, and refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from keras_lth import report
from keras_lth.masks import Masks
from keras_lth.tickets import Snapshot, Ticket

RESULTS = "arm,replicate,level,density,remaining,steps,accuracy,loss,train_accuracy,train_loss,seconds\n"
CURVES = "arm,replicate,level,density,epoch,step,accuracy,loss\n"
LAYERS = "replicate,level,path,size,remaining,density\n"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Every tag closed in order; the images, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.targets: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.targets.append(value)
            if name == "alt":
                assert value

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def run(here: Path, *, replicates: int = 2, extras: bool = True, **config: object) -> Path:
    here.mkdir(exist_ok=True)
    settings = {"model": "lenet_300_100", "data": "digits", "rewind_to": "0 steps", "seed": 1, **config}
    (here / "config.json").write_text(json.dumps(settings))
    results, curves, layers = RESULTS, CURVES, LAYERS
    for r in range(replicates):
        for arm, loss in (("imp", 0.001), ("reinit", 0.01)):
            for level in range(0 if arm == "imp" else 1, 4):
                at = f"{arm},{r},{level},{0.8**level:.6g}"
                a = 0.97 - loss * level
                results += f"{at},{round(1000 * 0.8**level)},100,{a:.6g},0.1,0.99,0.01,1.5\n"
                curves += "".join(f"{at},{e},{50 * e},{a * e / 2:.6g},0.1\n" for e in (1, 2))
                if arm == "imp":
                    layers += f"{r},{level},dense/kernel,1000,{round(1000 * 0.8**level)},{0.8**level:.6g}\n"
    (here / "results.csv").write_text(results)
    if extras:
        (here / "curves.csv").write_text(curves)
        (here / "layers.csv").write_text(layers)
        paths = [
            {
                "network": network, "level": 0, "density": 1.0 if network == "dense" else 0.64, "replicate": 0,
                "fork_step": k, "pair": [0, 1], "data": data, "alphas": [0, 0.5, 1], "errors": [0.1, 0.15, 0.1],
                "barrier": 0.05, "stable": False, "statistics": "interpolate",
            }
            for network in ("dense", "ticket") for k in (0, 50) for data in ("train", "test")
        ]  # fmt: skip
        (here / "instability.json").write_text(json.dumps(paths))
    return here


def test_a_whole_run_becomes_a_page_that_needs_only_its_folder(tmp_path):
    page = Path(report.write(run(tmp_path)))
    assert page == tmp_path / "report" / "index.html"
    names = {
        "accuracy.png",
        "curves.png",
        "layers.png",
        "path.png",
        "barrier.png",
        "table.csv",
        "table.md",
        "index.html",
    }
    assert {each.name for each in page.parent.iterdir()} == names
    read = Page(page.read_text())
    assert read.targets == ["accuracy.png", "curves.png", "layers.png", "path.png", "barrier.png", "table.csv"]
    assert not {"script", "link", "iframe"} & set(read.tags)
    assert not re.search(r"https?:|//|url\(|@import", page.read_text())
    for name in names - {"table.csv", "table.md", "index.html"}:
        assert (page.parent / name).read_bytes().startswith(b"\x89PNG")
    assert "LeNet-300-100 on digits, 2 replicates" in read.words
    assert "Left out" not in read.words
    assert "statistics on the line: interpolate" in read.words
    # 97 % dense; IMP loses 0.1, the other 1 point a level.
    assert "96.80(96.80–96.80)−0.20(0/2)" in read.words
    assert "No subnetwork reaches the dense accuracy: there is no winning ticket." in read.words


def test_the_same_run_gives_the_same_bytes(tmp_path):
    first = {p.name: p.read_bytes() for p in Path(report.write(run(tmp_path))).parent.iterdir()}
    assert {p.name: p.read_bytes() for p in Path(report.write(tmp_path)).parent.iterdir()} == first


def test_missing_inputs_leave_figures_out_and_old_ones_do_not_stay(tmp_path):
    report.write(run(tmp_path))
    for name in ("curves.csv", "layers.csv", "instability.json"):
        (tmp_path / name).unlink()
    page = Path(report.write(tmp_path))
    assert [each.name for each in sorted(page.parent.glob("*.png"))] == ["accuracy.png"]
    read = Page(page.read_text())
    assert read.targets == ["accuracy.png", "table.csv"]
    for name in ("curves.csv", "layers.csv", "instability.json"):
        assert f"needs {name}" in read.words


def test_names_are_escaped(tmp_path):
    page = report.write(run(tmp_path, model="<script>alert(1)</script>", note='"a" & <b>'))
    read = Page(page.read_text())
    assert "script" not in read.tags
    assert "b" not in read.tags
    assert "<script>alert(1)</script> on digits" in read.words
    assert '"a" & <b>' in read.words


def test_one_replicate_says_so(tmp_path):
    read = Page(report.write(run(tmp_path, replicates=1)).read_text())
    assert "There is one replicate: no spread is shown" in read.words
    assert "96.80−0.20(0/1)" in read.words


def test_a_diverged_training_is_named(tmp_path):
    run(tmp_path)
    text = (
        (tmp_path / "results.csv").read_text().replace("reinit,1,2,0.64,640,100,0.95,", "reinit,1,2,0.64,640,100,nan,")
    )
    (tmp_path / "results.csv").write_text(text)
    read = Page(report.write(tmp_path).read_text())
    assert "Diverged and left out of the means: reinitialised at 64.0 %, replicate 1." in read.words
    assert "1 diverged" in read.words


def test_a_folder_without_results_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"results.csv does not exist.*keras_lth\.bin\.lottery.*--workdir="):
        report.write(tmp_path)
    (tmp_path / "results.csv").write_text(RESULTS)
    with pytest.raises(FileNotFoundError, match="holds no training"):
        report.write(tmp_path)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("results.csv", RESULTS + "imp,0,0,1,ten,100,0.9,,,,\n", r"results.csv, line 2 .*'ten'"),
        ("results.csv", RESULTS + "imp,0,0\n", r"results.csv, line 2 "),
        ("results.csv", "arm,level\nimp,0\n", r"line 2 cannot be read: no 'replicate'"),
        ("config.json", "{", r"config.json is not JSON"),
        ("config.json", "[1]", r"config.json holds no object"),
        ("instability.json", '[{"alphas": [0, 1], "errors": [0]}]', r"row 0 cannot be read: 2 alphas, but 1 errors"),
        ("instability.json", "[{}]", r"instability.json, row 0 cannot be read: no 'alphas'"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path, name, text, says):
    run(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=says):
        report.write(tmp_path)


def imp_folder(here: Path, logs: dict[str, float]) -> Path:
    (here / "config.json").write_text(json.dumps({"method": "IMP", "rewind_step": 5}))
    rows, lines = [], []
    for level, kept in enumerate((10, 8, 6)):
        mask = np.arange(10).reshape(2, 5) < kept
        snapshot = Snapshot({"dense/kernel": np.zeros((2, 5), np.float32)}, {}, 5, {})
        (here / "tickets").mkdir(exist_ok=True)
        Ticket(Masks({"dense/kernel": mask}), snapshot, {}).save(here / "tickets" / f"level_{level:02d}.ticket")
        rows.append({
            "round": level, "density": kept / 10, "remaining": kept, "steps": 20 if level == 0 else 15, "seconds": 1.0,
            "monitor": "val_accuracy", "score": 0.9, "matching": True, "logs": logs,
        })  # fmt: skip
        lines += [{"round": level, "epoch": 2 * level + e, "step": 10 * (e + 1), **logs} for e in range(2)]
    (here / "levels.json").write_text(json.dumps(rows))
    (here / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return here


def test_the_folder_of_imp_callback_is_a_run_too(tmp_path):
    logs = {"accuracy": 0.99, "loss": 0.01, "val_accuracy": 0.9, "val_loss": 0.2}
    results = report.read(imp_folder(tmp_path, logs))
    assert [(row.level, row.density, row.accuracy, row.train_accuracy) for row in results.outcomes] == [
        (0, 1.0, 0.9, 0.99), (1, 0.8, 0.9, 0.99), (2, 0.6, 0.9, 0.99),
    ]  # fmt: skip
    assert [(row.level, row.remaining) for row in results.layers] == [(0, 10), (1, 8), (2, 6)]
    assert [(row.level, row.step) for row in results.curves] == [(0, 10), (0, 20), (1, 10), (1, 20), (2, 10), (2, 20)]
    assert results.verdict == "matching"
    read = Page(report.write(tmp_path).read_text())
    assert "IMP tickets reach the dense accuracy down to 60.0 % of the weights." in read.words


def test_a_run_without_accuracy_says_what_would_work(tmp_path):
    with pytest.raises(ValueError, match=r'no accuracy, only loss, val_loss.*metrics=\["accuracy"\]'):
        report.read(imp_folder(tmp_path, {"loss": 0.1, "val_loss": 0.2}))


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from keras_lth.bin import report; import atexit;"
        "atexit.register(lambda: print('tensorflow' in sys.modules)); report.run()"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_the_program_prints_findings_and_page_without_tensorflow(tmp_path):
    done = program(f"--workdir={run(tmp_path)}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The dense network has 97.00 %")
    assert f"{tmp_path / 'report' / 'index.html'}" in done.stdout
    assert done.stdout.endswith("False\n")


def test_the_program_reports_a_missing_run_in_one_line(tmp_path):
    done = program(f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr
    assert "Traceback" not in done.stderr
