"""A plan on a store may die, or its disk fail, at any call: nothing is lost, the next run ends with the same bits."""

from __future__ import annotations

import signal

import pytest

from tests.crash.plan_cases import EVERY, SUITES
from tests.crash.suites import assert_well, cases


@pytest.mark.proof
@pytest.mark.parametrize("suite", SUITES)
def test_at_every_call(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests below strike every seventh."""
    monkeypatch.setenv("KERAS_LTH_PROOF", "1")
    assert_well(cases(suite, program="plan_cases"))


def test_every_death() -> None:
    found = cases("deaths", program="plan_cases")
    assert_well(found)
    assert {case["signal"] for case in found} == {signal.SIGKILL}
    killed = [case for case in found if case["fault"] == "KILL"]
    assert [case["n"] for case in killed] == list(range(0, EVERY * len(killed), EVERY))
    assert len(killed) > 200 / EVERY
    assert all(case["states"] == 5 for case in found)
    assert {case["call"].split()[0] for case in killed} >= {"WRITE", "SYNC", "RENAME", "CLOSE", "OPEN_WRITE"}


def test_every_call_fails_once() -> None:
    found = cases("errors", program="plan_cases")
    assert_well(found)
    assert {case["fault"] for case in found} == {"FAIL ENOSPC", "FAIL EIO"} and len(found) > 200 / EVERY


def test_the_disk_stays_full_or_read_only() -> None:
    found = cases("lasting", program="plan_cases")
    assert_well(found)
    for case in found:
        assert case["said"].startswith(case["fault"].split()[1]) and "/store" in case["said"], case


def test_every_read_fails_once() -> None:
    found = cases("reads", program="plan_cases")
    assert_well(found)
    assert len(found) > 30 / EVERY
