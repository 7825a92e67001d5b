"""ResNet-50 on ImageNet (thesis, table 4.1): dense test accuracy 76.1 ± 0.1 %, one-shot IMP to a density of 30 %.

At k = 0 IMP has 73.7 % there, random pruning 73.1 %, reinitialised masks 73.4 % (thesis, table 4.2); from epoch 5 on it
is stable and matches. 90 epochs of batches of 1024 at a rate of 0.4, divided by 10 at epochs 30, 60 and 80, after a
warm-up of 5 epochs; an epoch is 1 251 steps. The weight decay of 1e-4 is open_lth's.

TFDS makes ImageNet from the two archives in its folder for manual downloads. One training is some 3e18 operations: a
year on two cores, so this is for accelerators (docs/pods.md).
"""

from __future__ import annotations

from ml_collections import ConfigDict, config_dict

EPOCH = 1_251


def get_config() -> ConfigDict:
    """Return the setting."""
    return ConfigDict(
        {
            "model": "resnet_50",
            "model_options": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
            "data": "imagenet",
            "augment": ("resized_crop_224", "flip"),
            "batch_size": 1024,
            "steps": 90 * EPOCH,
            "optimizer": {"name": "momentum", "learning_rate": 0.4, "momentum": 0.9, "weight_decay": 1e-4},
            "schedule": {"drops": (30 * EPOCH, 60 * EPOCH, 80 * EPOCH), "factor": 0.1, "warmup": 5 * EPOCH},
            # One cut, to 30 %.
            "levels": 1,
            "fraction": 0.7,
            "rewind_to": f"{5 * EPOCH} steps",
            "scope": "global",
            "arms": ("imp", "reinit", "random_layerwise", "random_global"),
            "replicates": 1,
            "seed": 1,
            "jit_compile": config_dict.placeholder(bool),
        }
    )
