"""Random words that are a function of (seed, epoch, example), whatever the batch of the example."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

_WORD = 0xFFFFFFFF


class Noise(NamedTuple):
    """The random words of a batch of examples, for one stage of their augmentation.

    `seed`, `epoch`: int64 scalars ≥ 0. `index`: int64 of shape (n,), the identities of the examples, ≥ 0. `stage`: the
    position, in a sequence of augmentations, of the one that draws.
    """

    seed: Any
    epoch: Any
    index: Any
    stage: int = 0

    def words(self, draws: int = 1) -> Any:
        """Return an int64 tensor of shape (n, draws, 4), independent, each uniform over 0 … 2**32 - 1.

        The words of example i and draw d are Philox of the counter (i, d), with a key that is Philox of the counter
        (epoch, stage) with the seed as key. Only integers are used, so every device and XLA give the same bits.
        """
        zero = tf.zeros([], tf.int64)
        epoch = (*_halves(self.epoch), tf.constant(self.stage, tf.int64), zero)
        key = philox(epoch, _halves(self.seed))[:2]
        low, high = _halves(self.index[:, tf.newaxis])
        counter = (low, high, tf.range(draws, dtype=tf.int64)[tf.newaxis], zero)
        return tf.stack(philox(counter, key), axis=-1)


def philox(counter: Any, key: Any) -> tuple[Any, Any, Any, Any]:
    """Compute Philox-4x32-10 of four counter words and two key words: int64 tensors in 0 … 2**32 - 1, broadcast.

    Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. It uses int64, so that a shift
    gives the upper half of a product. TensorFlow's own generators take only one seed for all examples.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = _high(b) ^ c1 ^ k0, b & _WORD, _high(a) ^ c3 ^ k1, a & _WORD
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return c0, c1, c2, c3


def uniform(words: Any) -> Any:
    """Convert words to float32 in [0, 1): the upper 24 bits, exactly."""
    return tf.cast(_shifted(words, 8), tf.float32) * 2.0**-24


def below(limit: Any, words: Any) -> Any:
    """Convert words to int64, uniform over 0 … limit - 1, for limit < 2**31; probabilities are within 2**-32 of
    1/limit.
    """
    return _high(words * tf.cast(limit, tf.int64))


def _halves(number: Any) -> tuple[Any, Any]:
    number = tf.cast(number, tf.int64)
    return number & _WORD, _high(number)


def _high(product: Any) -> Any:
    # The shift copies the sign bit; the mask removes it.
    return _shifted(product, 32) & _WORD


def _shifted(number: Any, bits: int) -> Any:
    return tf.bitwise.right_shift(number, tf.constant(bits, tf.int64))
