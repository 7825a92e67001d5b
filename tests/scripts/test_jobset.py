"""scripts/jobset.yaml and the words that the scripts give to the program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from keras_lth.bin import run
from keras_lth.experiments.config import DEFAULTS
from keras_lth.training import strategies
from tests.scripts.cloud import ROOT

SCRIPTS = ROOT / "scripts"
FLAGS = set(re.findall(r'flags\.DEFINE_\w+\("(\w+)"', Path(run.__file__).read_text())) | {"config"}


def pod() -> dict[str, Any]:
    jobset = yaml.safe_load((SCRIPTS / "jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = jobset["spec"]["replicatedJobs"]
    return job["template"]["spec"]["template"]["spec"]


def named_flags(text: str) -> set[str]:
    return set(re.findall(r"--([a-z][a-z_.]*)=", text))


def test_the_pods_take_a_slice_of_one_host_whole() -> None:
    spec = pod()
    (container,) = spec["containers"]
    rows, columns = map(int, spec["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert chips == container["resources"]["requests"]["google.com/tpu"] == str(rows * columns)
    assert spec["restartPolicy"] == "Never"
    assert spec["terminationGracePeriodSeconds"] >= 30
    # Each replicate has a folder and a seed of its own.
    assert sum("$(REPLICATE)" in word for word in container["command"]) == 2
    assert [one["name"] for one in container["env"]] == ["REPLICATE"]


def test_flags_and_values_are_those_of_the_program() -> None:
    command = pod()["containers"][0]["command"]
    assert command[:3] == ["python", "-m", run.__name__]
    script = "\n".join(line for line in (SCRIPTS / "tpu_vm.sh").read_text().splitlines() if "words=$(" in line)
    words = {name for text in (*command, script) for name in named_flags(text)}
    assert {"strategy", "tpu", "workdir"} <= words
    for name in words:
        first, *keys = name.split(".")
        assert first in FLAGS, name
        assert first == "config" or not keys
        assert all(key in DEFAULTS for key in keys), name
    assert run.STRATEGIES == strategies.NAMES


def test_a_tpu_host_gets_what_the_package_asks_for() -> None:
    text = (ROOT / "pyproject.toml").read_text().split("dependencies = [", 1)[1].split("]", 1)[0]
    asked = dict(re.findall(r'"([\w-]+)>=([\d.]+)', text))
    given = dict(re.findall(r"^([\w-]+)[>=]=([\d.]+)$", (SCRIPTS / "tpu_requirements.txt").read_text(), re.MULTILINE))
    assert given.pop("libtpu")
    oldest, ours = asked.pop("tensorflow"), given.pop("tensorflow-tpu")
    assert [int(part) for part in ours.split(".")] >= [int(part) for part in oldest.split(".")]
    assert given == asked


def test_the_page_names_only_what_there_is() -> None:
    page = (ROOT / "docs" / "pods.md").read_text()
    for path in set(re.findall(r"`((?:scripts|tests|docs|configs)/[\w/.]+)`", page)):
        assert (ROOT / path).exists(), path
    for line in page.splitlines():
        if "keras_lth.bin.run" in line or "tpu_vm.sh run" in line or "tpu_vm.sh keep" in line:
            after = re.split(r"keras_lth\.bin\.run|tpu_vm\.sh (?:run|keep)", line, maxsplit=1)[1]
            assert {name.split(".")[0] for name in named_flags(after)} <= FLAGS, line
    commands = set(re.findall(r"tpu_vm\.sh (?:--dry-run )?([a-z]+)", page))
    usage = (SCRIPTS / "tpu_vm.sh").read_text().split("TEXT", 2)[1]
    assert commands == set(re.findall(r"^  ([a-z]+) {2,}", usage, re.MULTILINE))
