"""A run may be killed, and the power may go, before any of its calls on files: nothing is lost, nothing is torn."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from tests.crash.mutants import MUTANTS
from tests.crash.suites import assert_well, cases


def test_every_death() -> None:
    found = cases("deaths")
    assert_well(found)
    assert {case["signal"] for case in found} == {signal.SIGKILL}
    killed = [case for case in found if case["fault"] == "KILL"]
    torn = [case for case in found if case["fault"] == "TEAR"]
    assert [case["n"] for case in killed] == list(range(len(killed)))
    kinds = Counter(case["call"].split()[0] for case in killed)
    # Four checkpoints of three files, two of them removed; config, state, ticket, manifest: 16 files, and two lines.
    assert kinds["RENAME"] == 16 and kinds["UNLINK"] == 6 and kinds["WRITE"] == len(torn) == 16 + 2 + 1
    assert kinds["SYNC"] >= 2 * 16 + 2 and kinds["MKDIR"] == 3
    assert all(case["states"] == 7 for case in found)


def test_struck_again_after_the_restart() -> None:
    found = cases("twice")
    assert_well(found)
    assert len(found) == 100 and len({case["call"] for case in found}) > 30


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_way_to_write_is_found_out(name: str) -> None:
    found = cases(MUTANTS[name][0], name)
    assert found[-1]["struck"] and found[-1]["wrong"], f"{len(found)} cases found nothing"
