"""Calls on files that fail: a full disk, a read-only folder, a dying disk; and files that were damaged."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from tests.crash.suites import assert_well, cases


def test_every_call_fails_once() -> None:
    found = cases("errors")
    assert_well(found)
    for fault, group in groupby(found, lambda case: case["fault"]):
        some = list(group)
        assert [case["n"] for case in some] == list(range(len(some))) and len(some) > 50
        code = fault.split()[1]
        for case in some:
            assert case["signal"] == 0 and case["struck"] == 1
            # None is passed over in silence, and each names a file of the run.
            said = case["said"] or case["warned"][0]
            assert "/run" in said and (
                case["said"].startswith(code) or "an old checkpoint could not be removed" in said
            ), case


def test_the_disk_stays_full_read_only_or_dead_for_the_rest_of_the_run() -> None:
    found = cases("lasting")
    assert_well(found)
    counts = Counter(case["fault"] for case in found)
    assert set(counts) == {"FAIL_ON ENOSPC", "FAIL_ON EROFS", "FAIL_ON EIO"} and min(counts.values()) > 50
    for case in found:
        assert (case["said"].startswith(case["fault"].split()[1]) and "/run" in case["said"]) or case["warned"], case


def test_every_read_fails_once() -> None:
    found = cases("reads")
    assert_well(found)
    assert [case["n"] for case in found] == list(range(len(found))) and len(found) > 30
    passed = [case for case in found if any("step 1 is skipped" in text for text in case["warned"])]
    # The manifest, the arrays and the state of the newest checkpoint are opened and read.
    assert len(passed) >= 6 and all("Input/output error" in case["warned"][0] for case in passed)
    for case in found:
        assert case["warned"] or (case["said"].startswith("EIO") and "/run" in case["said"]), case


def test_damaged_files_of_the_newest_checkpoint() -> None:
    found = cases("damage")
    assert_well(found)
    assert len(found) == 3 * 6
    for case in found:
        assert case["said"] == ""
        if case["fault"] == "manifest.json: gone":  # without it there is no checkpoint
            assert case["warned"] == []
        else:
            (text,) = case["warned"]
            assert "is skipped" in text and case["call"] in text
