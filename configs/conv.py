"""Conv-2, 4, 6 and 8 (thesis 3.3.1), shared by their data sets: Adam at a constant rate, batches of 60.

The steps and rates of Conv-2, 4 and 6 are those of J. Frankle and M. Carbin, "The lottery ticket hypothesis", ICLR
2019, figure 2; the thesis uses Conv-8 and describes nothing of it: it has the setting of Conv-6 here. 20 % of all
weights are pruned per round, over the whole network; that paper prunes 10 or 15 % of each convolution, 20 % of each
dense layer and 10 % of the output layer.

On two cores one training of Conv-4 takes about two hours, of Conv-2 one, of Conv-6 three, of Conv-8 four (estimated).
"""

from __future__ import annotations

from ml_collections import ConfigDict, config_dict

# Steps and rate.
SETTINGS = {"conv_2": (20_000, 2e-4), "conv_4": (25_000, 3e-4), "conv_6": (30_000, 3e-4), "conv_8": (30_000, 3e-4)}


def get_config(model: str = "conv_4", data: str = "cifar10") -> ConfigDict:
    """Return the setting of one of the networks for ``data``."""
    steps, rate = SETTINGS[model]
    return ConfigDict(
        {
            "model": model,
            "data": data,
            "batch_size": 60,
            "steps": steps,
            "optimizer": {"name": "adam", "learning_rate": rate, "epsilon": 1e-8},
            "levels": 15,
            "fraction": 0.2,
            "rewind_to": "0 steps",
            "scope": "global",
            "arms": ("imp", "reinit", "random_layerwise", "random_global"),
            "replicates": 1,
            "seed": 1,
            # As the training loop finds best: on a CPU without XLA, elsewhere with it.
            "jit_compile": config_dict.placeholder(bool),
        }
    )
