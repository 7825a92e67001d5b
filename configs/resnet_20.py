"""ResNet-20 with the thesis' setting (table 4.1), shared by its data sets.

Momentum 0.9 at a rate of 0.1, divided by 10 at steps 32 000 and 48 000, 63 000 steps of batches of 128, flips and
crops, 20 % of the weights pruned per round, rewound to step 500, where IMP's subnetworks become stable (thesis, figure
4-15). The momentum, the weight decay of 1e-4 inside the gradient and the normalised channels are open_lth's.

About 5 steps per second on two cores: 3.4 hours for one training, about 165 for 13 levels of four arms.
"""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict, config_dict


def get_config(
    data: str = "cifar10",
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> ConfigDict:
    """Return the setting for ``data``, whose channels have this mean and deviation."""
    return ConfigDict(
        {
            "model": "resnet_20",
            "model_options": {"mean": tuple(mean), "std": tuple(std)},
            "data": data,
            "augment": ("flip", "crop"),
            "batch_size": 128,
            "steps": 63_000,
            "optimizer": {"name": "momentum", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
            # The rate is multiplied by the factor at each of these steps.
            "schedule": {"drops": (32_000, 48_000), "factor": 0.1},
            "levels": 12,
            "fraction": 0.2,
            "rewind_to": "500 steps",
            "scope": "global",
            "arms": ("imp", "reinit", "random_layerwise", "random_global"),
            "replicates": 1,
            "seed": 1,
            # As the training loop finds best: on a CPU without XLA, elsewhere with it.
            "jit_compile": config_dict.placeholder(bool),
            "validation_freq": "1 epoch",
            # Of the plan "instability": the dense network and the sparsest matching ticket, forked at these steps.
            "instability": {"forks": (), "runs": 3},
        }
    )
