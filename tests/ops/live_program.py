"""A live structure on two virtual CPU devices, under a MirroredStrategy; run by test_tf_live.py."""

from __future__ import annotations

from typing import Any

from tests.two_devices import mirrored, report

if __name__ == "__main__":
    strategy = mirrored()
    import numpy as np
    import tensorflow as tf

    from keras_lth.ops import SparseStructure
    from keras_lth.ops import tensorflow as tf_ops

    random = np.random.default_rng(0)
    masks = [random.random((9, 8)) < density for density in (0.5, 0.2, 1.0)]
    structures = [SparseStructure.from_mask(mask, room=72) for mask in masks]
    with strategy.scope():
        live = tf_ops.LiveStructure(structures[0])
        values = tf.Variable(np.zeros((72, 1, 1), np.float32))
    x = random.normal(size=(5, 9)).astype(np.float32)
    traces = []

    @tf.function(autograph=False)
    def run() -> Any:
        def replica() -> Any:
            traces.append(1)
            return tf_ops.sparse_matmul(tf.constant(x), values, live)

        return strategy.experimental_local_results(strategy.run(replica))

    errors = []
    for mask, structure in zip(masks, structures, strict=True):
        kernel = random.normal(size=mask.shape).astype(np.float32) * mask
        live.assign(structure)
        values.assign(structure.values(kernel))
        results = run()
        errors += [float(np.abs(y - x @ kernel).max()) for y in results]
    report({"replicas": len(results), "traces": len(traces) // 2, "errors": errors})
