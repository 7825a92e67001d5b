"""A whole run of TensorFlow, struck: a sample of what ``python -m tests.crash.whole`` does at every call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

import pytest

from tests import forms
from tests.crash.suites import assert_well
from tests.crash.whole import Cases, Workers, until
from tests.forms import short_if


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    # That two of them run alike is in the long form.
    with Workers(2 if forms.proving else 1) as workers:
        yield workers


def test_the_run_saves_prunes_and_rewinds(workers: Workers) -> None:
    end = workers.end
    assert [level["round"] for level in end["levels"]] == [0, 1, 2]
    assert [level["remaining"] for level in end["levels"]] == [132, 106, 85]  # 0.8 of them stay, rounded up
    assert len(set(end["masks"])) == len(set(end["tickets"])) == 3
    assert len([row for row in end["rows"] if row["table"] == "curves"]) == len(end["epochs"]) == 6
    # Ten commits of three files, eight of them removed again; 17 values of IMP.
    assert workers.calls > 400 and workers.writes >= 10 * 3 + 17


# Of all its calls, or of its writes alone.
PLACES = [("died", 0.6), ("torn", 0.4), *[("died", share) for share in (0.1, 0.3, 0.9)]]


@pytest.mark.parametrize(("suite", "share"), short_if(lambda suite, share: share == 0.6, PLACES))
def test_killed_at_a_sample_of_its_calls(workers: Workers, suite: str, share: float) -> None:
    found = workers.run([(suite, int(share * (workers.calls if suite == "died" else workers.writes)))])
    assert_well(found)
    (case,) = found
    assert case["ended"] == ["signal 9"] and case["warned"] == []
    assert case["starts"] >= 2


@pytest.mark.parametrize("kills", short_if(lambda kills: kills == 1, [1, 3]))
def test_sigkill_and_sigterm_at_random_times(workers: Workers, kills: int) -> None:
    found: Cases = []
    workers.run(chain([("terminated", 0)], until("killed", kills, 0, found)), found)
    assert_well(found)
    ended = {"killed": Counter[str](), "terminated": Counter[str]()}
    for case in found:
        ended[case["suite"]].update(case["ended"])
    assert ended["killed"]["signal 9"] >= kills and ended["terminated"]["exit code 143"] >= 1


# Each way to fail, once and for good, and each error.
FAULTS = [("failed", 210, "FAIL EIO"), ("full", 1, "FAIL_ON ENOSPC"), ("dead", 1, "FAIL_ON EIO")]


@pytest.mark.parametrize(("suite", "number", "fault"), short_if(lambda suite, *_: suite != "dead", FAULTS))
def test_a_failing_full_and_dead_disk(workers: Workers, suite: str, number: int, fault: str) -> None:
    found = workers.run([(suite, number)])
    assert_well(found)
    (case,) = found
    (ended,) = case["ended"]
    assert case["fault"] == fault
    assert ended.startswith(fault.split()[1]) or case["warned"], case


def test_a_damaged_newest_checkpoint_and_half_written_files(workers: Workers) -> None:
    damaged = workers.run([("damaged", number) for number in (0, 11)])
    assert_well(damaged)
    assert {case["fault"] for case in damaged} == {"safetensors: one bit", "manifest.json: gone"}
    halved = workers.run([("halved", number) for number in (1, 4)])
    assert_well(halved)
    assert {case["call"] for case in halved} == {"imp/values/imp.level_00.value", "imp/values/imp.level_01.masks.value"}
