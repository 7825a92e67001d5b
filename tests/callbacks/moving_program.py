"""RigL on two virtual devices: after each update both replicas hold the masks of the first."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import keras_lth as lth
from keras_lth import surgery
from tests.callbacks import small
from tests.two_devices import mirrored, report


class Look(keras.callbacks.Callback):
    """Behind a mover in the list: compares the replicas after each call."""

    def __init__(self) -> None:
        super().__init__()
        self.digests: list[str] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        surgery.check_replicas(self.model)
        self.digests.append(lth.masks_of(self.model).digest)


def main() -> None:
    with mirrored().scope():
        built = small.model(jit_compile=False)
    look = Look()
    rigl = lth.RigL(0.25, every=4, until="100%", verbose=0)
    lth.training.fit(built, small.data(), epochs=2, callbacks=[rigl, look])
    copies = [[np.asarray(copy) for copy in layer.kernel._value.values] for layer in built.layers]
    report(
        {
            "checked": len(look.digests),
            "remaining": lth.masks_of(built).remaining,
            "moved": len(set(look.digests)) - 1,
            "same": all(bool(np.array_equal(one, other)) for one, other in copies),
        }
    )


if __name__ == "__main__":
    main()
