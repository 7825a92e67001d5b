"""LeNet-300-100 with the thesis' setting (table 4.1), shared by its data sets.

Adam at a constant 1.2e-3, batches of 60, 24 000 steps, 20 % of the weights pruned per round, 15 rounds down to 3.5 %.
"""

from __future__ import annotations

from ml_collections import ConfigDict


def get_config(data: str = "mnist") -> ConfigDict:
    """Return the setting for ``data``; every value can be overridden as ``--config.KEY=VALUE``."""
    return ConfigDict(
        {
            "model": "lenet_300_100",
            "data": data,
            "batch_size": 60,
            "steps": 24_000,
            # Adam with the epsilon of the papers' frameworks; Keras' own default is 1e-7.
            "optimizer": {"name": "adam", "learning_rate": 1.2e-3, "epsilon": 1e-8},
            "levels": 15,
            "fraction": 0.2,
            "rewind_to": "0 steps",
            "scope": "global",
            "arms": ("imp", "reinit", "random_layerwise", "random_global"),
            "replicates": 1,
            "seed": 1,
            "jit_compile": True,
            "validation_freq": "1 epoch",
            # Of the plan "instability": the dense network and the sparsest matching ticket, forked at these steps.
            "instability": {"forks": (), "runs": 3},
        }
    )
