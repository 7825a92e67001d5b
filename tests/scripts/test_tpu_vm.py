"""scripts/tpu_vm.sh against a cloud in a folder: what it calls, and what becomes of preemptions and failures."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scripts.cloud import ROOT, Cloud, shellcheck

FLAGS = ["--config=demo", "--config.arms=('imp',)", "--config.data=two words"]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Cloud]]:
    made: list[Cloud] = []

    def cloud(hosts: int, *fates: object) -> Cloud:
        made.append(Cloud(tmp_path, hosts, list(fates)))
        return made[-1]

    yield cloud
    for one in made:
        one.close()


def wait(until: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    assert shellcheck(*sorted((ROOT / "scripts").glob("*.sh"))) == ""
    wrong = tmp_path / "wrong.sh"
    wrong.write_text("#!/bin/sh\ncd $1\n")
    assert "SC2086" in shellcheck(wrong)


def test_a_dry_run_prints_commands_and_runs_none(make: Callable[..., Cloud]) -> None:
    cloud = make(2)
    wanted = {
        "create": ["gcloud compute tpus tpu-vm create keras-lth --accelerator-type=v5litepod-16"],
        "install": [
            "tar -C",
            "gcloud compute tpus tpu-vm scp",
            "gcloud compute tpus tpu-vm ssh keras-lth --worker=all",
        ],
        "run": ["gcloud compute tpus tpu-vm ssh keras-lth --worker=all", "gcloud compute tpus tpu-vm ssh keras-lth"],
        "watch": ["gcloud compute tpus tpu-vm describe", "gcloud compute tpus tpu-vm ssh keras-lth --worker=0"],
        "collect": ["mkdir -p runs/keras-lth", "gcloud storage rsync --recursive gs://bucket/run runs/keras-lth"],
        "delete": ["gcloud compute tpus tpu-vm delete keras-lth --quiet"],
    }
    for command, begins in wanted.items():
        lines = cloud.run("--dry-run", command).splitlines()
        assert [line[: len(begin)] for line, begin in zip(lines, begins, strict=True)] == begins
    assert not (cloud.folder / "calls").exists()
    assert "--spot" in cloud.run("--dry-run", "create")
    assert "--spot" not in cloud.run("--dry-run", "create", SPOT="0")


def test_a_pod_has_a_server_on_each_host_and_the_program_on_the_first(make: Callable[..., Cloud]) -> None:
    cloud = make(2, 1, 143, 0)
    for command in ("create", "install"):
        cloud.run(command)
    cloud.run("run", "--", *FLAGS)
    wait(lambda: cloud.read(0, "run.rc"))
    assert cloud.read(0, "run.rc") == "0\n"
    # Killed twice, started again with the same words, which came through three shells.
    target = "--tpu=grpc://10.0.0.1:8470,grpc://10.0.0.2:8470"
    words = ["0", "-m", "keras_lth.bin.run", "--strategy=tpu", target, "--workdir=gs://bucket/run", *FLAGS]
    assert cloud.programs() == [words] * 3
    assert [line.rsplit(" ", 1)[1] for line in cloud.read(0, "run.log").splitlines()] == ["1", "143", "0"]
    for host in range(2):
        assert cloud.read(host, "server.pid")
        assert "--no-deps --no-build-isolation --editable ." in cloud.read(host, "pip.calls")
        # All that the package is built from, and no more.
        there = {path.name for path in (cloud.folder / f"host{host}" / "keras_lth").iterdir()}
        assert {"setup.py", "pyproject.toml", "README.md", "cc", "keras_lth", "configs"} <= there
        assert not {"tests", "docs", ".git", "build"} & there
    servers = [cloud.read(host, "server.pid") for host in range(2)]
    cloud.run("run")
    assert [cloud.read(host, "server.pid") for host in range(2)] == servers


def test_one_host_needs_no_server_and_gives_up_after_its_restarts(make: Callable[..., Cloud]) -> None:
    cloud = make(1, 2, 2, 2, 0)
    for command in ("create", "install"):
        cloud.run(command)
    cloud.run("run", RESTARTS="2")
    wait(lambda: cloud.read(0, "run.rc"))
    assert cloud.read(0, "run.rc") == "2\n"
    assert [words[0] for words in cloud.programs()] == ["unset"] * 3
    assert all("--tpu=local" in words for words in cloud.programs())
    assert not cloud.read(0, "server.pid")


def test_a_second_experiment_on_the_same_slice_is_refused(make: Callable[..., Cloud]) -> None:
    cloud = make(1, "hangs")
    for command in ("create", "install", "run"):
        cloud.run(command)
    assert "already running here" in cloud.run("run", code=1)
    assert len(cloud.programs()) <= 1


def test_a_preempted_slice_is_made_anew_until_the_experiment_has_ended(make: Callable[..., Cloud]) -> None:
    cloud = make(2, "hangs", 0)
    # The first time there is no capacity.
    (cloud.folder / "refusals").write_text("once\n")
    process = cloud.start("keep", "--", *FLAGS)
    wait(lambda: len(cloud.programs()) == 1)
    cloud.close()
    (cloud.folder / "state").write_text("PREEMPTED\n")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "the experiment has ended with 0" in out
    first, second = cloud.programs()
    assert first == second
    calls = [shlex.split(line)[3] for line in (cloud.folder / "calls").read_text().splitlines()]
    changes = [call for call in calls if call in ("create", "delete", "scp")]
    assert changes == ["create", "create", "scp", "delete", "create", "scp"]


@pytest.mark.parametrize("command", ["run", "keep", "collect"])
def test_a_run_without_a_bucket_is_refused(command: str, make: Callable[..., Cloud]) -> None:
    assert "WORKDIR=gs://BUCKET/FOLDER is needed" in make(1).run(command, code=2, WORKDIR="runs/here")


def test_wrong_commands(make: Callable[..., Cloud]) -> None:
    cloud = make(1)
    assert "there is no slice keras-lth in us-west4-a" in cloud.run("run", code=1)
    assert "create takes no flags: --config=x" in cloud.run("create", "--", "--config=x", code=2)
    assert "--dry-run prints the commands instead" in cloud.run("made up", code=2)
    assert "--dry-run prints the commands instead" in cloud.run("--help")
