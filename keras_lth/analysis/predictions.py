"""What networks say of each example, and how much two of them differ in it (thesis 4.1.5, 4.2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Differences(NamedTuple):
    """How differently two networks treat the same examples.

    Attributes:
        different: examples that they classify differently.
        most: the greatest possible number: the sum of the two numbers of errors (thesis 4.2.4, footnote 2).
        loss_l2: Euclidean distance of their vectors of losses.
    """

    different: int
    most: int
    loss_l2: float

    @property
    def share(self) -> float:
        """Return the number as a share of the greatest possible; 0 for two networks without an error."""
        return self.different / self.most if self.most else 0.0


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says of n examples.

    Attributes:
        labels: the right classes, integers of shape (n,).
        classes: the classes that the network names, integers of shape (n,).
        losses: the loss of each example, of shape (n,).

    Raises ``ValueError`` unless all have the same length.
    """

    labels: np.ndarray
    classes: np.ndarray
    losses: np.ndarray

    def __post_init__(self) -> None:
        shapes = [np.shape(each) for each in (self.labels, self.classes, self.losses)]
        if len({*shapes}) != 1 or len(shapes[0]) != 1:
            raise ValueError(f"labels, classes and losses must have one value for each example, not shapes {shapes}.")

    @property
    def errors(self) -> int:
        """Return the number of examples whose class is wrong."""
        return int(np.count_nonzero(self.classes != self.labels))


def differences(a: Predictions, b: Predictions) -> Differences:
    """Count the examples that two networks classify differently, and measure how much their losses differ.

    Raises ``ValueError`` for predictions on different examples, judged by their labels.
    """
    if not np.array_equal(a.labels, b.labels):
        raise ValueError(
            f"The predictions are of different examples ({len(a.labels)} and {len(b.labels)}): let both networks "
            "predict the same data."
        )
    different = int(np.count_nonzero(a.classes != b.classes))
    most = min(a.errors + b.errors, len(a.labels))
    return Differences(different, most, float(np.linalg.norm(a.losses.astype(float) - b.losses.astype(float))))
