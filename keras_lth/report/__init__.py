"""From the rows of a store to figures, tables and one page, at any time, without TensorFlow.

``write(workdir)`` makes ``workdir/report/``; ``read`` gives its rows as pandas frames.
"""

from __future__ import annotations

from keras_lth.report.page import write
from keras_lth.report.read import Results, read

__all__ = ["Results", "read", "write"]
