"""Candidates that take turns in one process, so that other load on the machine affects all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Effort(NamedTuple):
    """How long to measure: turns of a candidate, milliseconds of a turn, and what is too slow for more than two."""

    turns: int = 7
    turn_ms: float = 40.0
    slow_ms: float = 80.0


# Idle pools of OpenMP and Eigen spin for some milliseconds after their work, on the cores of the next candidate.
PAUSE_SECONDS = 0.004
MOST_CALLS = 50


def milliseconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)


def in_turns(calls: Mapping[str, Callable[[], object]], effort: Effort) -> dict[str, float]:
    """The least milliseconds of one call of each, over all turns.

    A turn is a pause, a call that is not counted, and timed calls until `turn_ms` is used up; two turns of one timed
    call for what is slow. The order is turned round every time.
    """
    best = {}
    for name, call in calls.items():
        call()  # traces, allocates, touches the pages
        best[name] = milliseconds(call)
    for turn in range(effort.turns):
        names = list(calls) if turn % 2 == 0 else list(calls)[::-1]
        for name in names:
            call, count = calls[name], min(MOST_CALLS, 1 + round(effort.turn_ms / max(best[name], 1e-3)))
            time.sleep(PAUSE_SECONDS)
            if best[name] <= effort.slow_ms:
                call()
            elif turn < 2:
                count = 1
            else:
                continue
            best[name] = min(best[name], *(milliseconds(call) for _ in range(count)))
    return best
