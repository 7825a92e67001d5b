"""A whole run of TensorFlow, struck: a sample of what ``python -m tests.crash.whole`` does at every call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from random import Random

import pytest

from tests.crash.suites import assert_well
from tests.crash.whole import Cases, Workers, until


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as workers:
        yield workers


def test_the_run_saves_prunes_and_rewinds(workers: Workers) -> None:
    end = workers.end
    assert [level["round"] for level in end["levels"]] == [0, 1, 2]
    assert [level["remaining"] for level in end["levels"]] == [132, 106, 85]  # 0.8 of them stay, rounded up
    assert len(set(end["masks"])) == len(set(end["tickets"])) == 3
    assert len([row for row in end["rows"] if row["table"] == "curves"]) == len(end["epochs"]) == 6
    # Ten commits of three files, eight of them removed again; 17 values of IMP.
    assert workers.calls > 400 and workers.writes >= 10 * 3 + 17


def test_killed_at_a_sample_of_its_calls(workers: Workers) -> None:
    chance = Random(7)
    calls, writes = chance.sample(range(workers.calls), 4), chance.sample(range(workers.writes), 1)
    found = workers.run([("died", n) for n in calls] + [("torn", n) for n in writes])
    assert_well(found)
    assert len(found) == 5 and all(case["ended"] == ["signal 9"] and case["warned"] == [] for case in found)
    assert sum(case["starts"] for case in found) > 2 * len(found)


def test_sigkill_and_sigterm_at_random_times(workers: Workers) -> None:
    found: Cases = []
    workers.run(chain([("terminated", 0)], until("killed", 3, 0, found)), found)
    assert_well(found)
    ended = {"killed": Counter[str](), "terminated": Counter[str]()}
    for case in found:
        ended[case["suite"]].update(case["ended"])
    assert ended["killed"]["signal 9"] >= 3 and ended["terminated"]["exit code 143"] >= 1


def test_a_failing_full_read_only_and_dead_disk(workers: Workers) -> None:
    found = workers.run([("failed", 210), ("full", 1), ("dead", 1)])
    assert_well(found)
    assert {case["fault"] for case in found} <= {"FAIL ENOSPC", "FAIL EIO", "FAIL_ON ENOSPC", "FAIL_ON EIO"}
    for case in found:
        (ended,) = case["ended"]
        assert ended.startswith(case["fault"].split()[1]) or case["warned"], case


def test_a_damaged_newest_checkpoint_and_half_written_files(workers: Workers) -> None:
    damaged = workers.run([("damaged", number) for number in (0, 11)])
    assert_well(damaged)
    assert {case["fault"] for case in damaged} == {"safetensors: one bit", "manifest.json: gone"}
    halved = workers.run([("halved", number) for number in (1, 4)])
    assert_well(halved)
    assert {case["call"] for case in halved} == {"imp/values/imp.level_00.value", "imp/values/imp.level_01.masks.value"}
