"""From a run's folder to its tables, its figures and one page, without TensorFlow.

``write(workdir)`` makes ``workdir/report/``; ``read``, ``tables``, ``figures`` and ``findings`` are its parts.
"""

from __future__ import annotations

from keras_lth.report.page import write
from keras_lth.report.results import Curve, ErrorPath, Layer, Outcome, Results, read
from keras_lth.report.sentences import findings

__all__ = ["Curve", "ErrorPath", "Layer", "Outcome", "Results", "findings", "read", "write"]
