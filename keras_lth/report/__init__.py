"""Turn the rows of a store into figures, tables and one page, at any time, without TensorFlow.

``write(workdir)`` creates ``workdir/report/``; ``read`` returns its rows as pandas frames.
"""

from __future__ import annotations

from keras_lth.report.page import write
from keras_lth.report.read import Results, read

__all__ = ["Results", "read", "write"]
