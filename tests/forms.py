"""Two forms of a test: the short one is in every run of the tests, the rest of the long one in `make proof`.

No property is in the long form only: what is left out of the short one are further combinations of what it shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest

# Set by conftest.py before a module of tests is read: `make proof` runs.
proving = False


def short_if(chosen: Callable[..., bool], cells: Iterable[Any]) -> list[Any]:
    """All cells as parameters; the chosen ones are in every run, the others in `make proof`."""
    found = []
    for cell in cells:
        values = cell if isinstance(cell, tuple) else (cell,)
        found.append(pytest.param(*values, marks=() if chosen(*values) else pytest.mark.proof))
    return found


def spread(of: int, *axes: Iterable[Any]) -> list[Any]:
    """All combinations as parameters; one in `of` of them is in every run, the others in `make proof`.

    Each value of each axis is in every run if another axis has at least `of` values.
    """
    cells = list(itertools.product(*(list(enumerate(axis)) for axis in axes)))
    return [
        pytest.param(
            *(value for _, value in cell),
            marks=() if sum(place for place, _ in cell) % of == 0 else pytest.mark.proof,
        )
        for cell in cells
    ]


def examples(count: int) -> int:
    """How many examples Hypothesis tries: in `make proof` all of them, in every run a third."""
    return count if proving else -(-count // 3)
