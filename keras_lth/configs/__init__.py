"""The settings of the papers: each module here has ``get_config()``, and ``--config`` finds it by its name.

Your own config can build on one: ``from keras_lth.configs.lenet_300_100 import get_config``. In a source tree the
modules are in the top-level folder ``configs``; in an installed package they are beside this file.
"""

from __future__ import annotations

from pathlib import Path

_BESIDE = Path(__file__).parent
FOLDER = _BESIDE if (_BESIDE / "demo.py").exists() else _BESIDE.parents[1] / "configs"
__path__ = [str(FOLDER)]
