"""Inference of a masked model without TensorFlow: products that skip its zeros, NumPy in and NumPy out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_lth.export.compiled import Compiled, load

if TYPE_CHECKING:
    import keras

__all__ = ["Compiled", "compile", "load"]


def compile(model: keras.Model | Any, *, batch_size: int | None = None) -> Compiled:
    """Compile a built model to a chain of products that skip its zeros; a snapshot: later training does not reach it.

    Normalisations are folded into the kernels beside them, a ReLU into what it follows. Each kernel is then stored as
    single weights, as blocks or dense, whichever takes the least time. Zeros are those of the masks and exact ones.

    Args:
      model: a Sequential or functional model of one input [batch, ...] of fixed sizes and one output, of layers that
        docs/export.md lists; models inside it too. float32, channels last.
      batch_size: most examples that run at once (memory is that of the layers' results for as many); None: 128.

    Returns:
      A `Compiled`: ``compiled(x)`` is ``model.predict(x)`` to rounding.

    Raises:
      TypeError: `model` is not a Keras model.
      ValueError: a layer, an option or a shape that is not supported, by name; a batch_size below 1.
    """
    from keras_lth.export.fold import fold
    from keras_lth.export.lower import lower
    from keras_lth.surgery import whole

    with whole(model):
        graph = lower(model)
    fold(graph)
    return Compiled.of(graph, batch_size=batch_size)
