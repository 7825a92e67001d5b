"""In a process of its own: real TFMOT trains a small model; writes the weights and masks of every step."""

from __future__ import annotations

import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras

SETTINGS = {
    "polynomial": {"pruning_schedule": tfmot.sparsity.keras.PolynomialDecay(0.2, 0.9, 2, 20, frequency=3)},
    "constant": {"pruning_schedule": tfmot.sparsity.keras.ConstantSparsity(0.55, 3, 18, 5)},
    "average": {
        "pruning_schedule": tfmot.sparsity.keras.ConstantSparsity(0.6, 1, frequency=4), "block_size": (2, 3),
    },
    "largest": {
        "pruning_schedule": tfmot.sparsity.keras.PolynomialDecay(0.1, 0.7, 1, 20, 2, 4), "block_size": (5, 2),
        "block_pooling_type": "MAX",
    },
    "two_of_four": {"sparsity_m_by_n": (2, 4)},
}  # fmt: skip
STEPS = 24


def main(setting: str, folder: str) -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    plain = keras.Sequential(
        [layers.Dense(15, "relu", input_shape=(10,)), layers.BatchNormalization(), layers.Dense(4)]
    )
    model = tfmot.sparsity.keras.prune_low_magnitude(layers_only(plain), **SETTINGS[setting])
    model.compile("adam", "mse")
    update, kept = tfmot.sparsity.keras.UpdatePruningStep(), {}
    rng = np.random.default_rng(1)
    update.set_model(model)
    update.on_train_begin()
    wrapped = [layer for layer in model.layers if hasattr(layer, "pruning_vars") and layer.pruning_vars]
    for step in range(1, STEPS + 1):
        for number, layer in enumerate(wrapped):
            # What the step's own update of masks reads: the weights after the last step, not masked yet.
            kept[f"weight/{number}/{step}"] = layer.pruning_vars[0][0].numpy()
        update.on_train_batch_begin(batch=-1)
        model.train_on_batch(rng.normal(size=(8, 10)), rng.normal(size=(8, 4)))
        for number, layer in enumerate(wrapped):
            kept[f"mask/{number}/{step}"] = layer.pruning_vars[0][1].numpy()
    update.on_epoch_end(batch=-1)
    np.savez(os.path.join(folder, "steps.npz"), **kept)
    model.save_weights(os.path.join(folder, "pruned.h5"))
    tfmot.sparsity.keras.strip_pruning(model).save_weights(os.path.join(folder, "stripped.h5"))
    # A file of ours comes in.
    ours = os.path.join(folder, "ours.h5")
    if os.path.exists(ours):
        plain.load_weights(ours)
        np.savez(os.path.join(folder, "read.npz"), *plain.get_weights())


def layers_only(model: keras.Model) -> keras.Model:
    """A copy, because TFMOT prunes the layers themselves."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


main(*sys.argv[1:])
