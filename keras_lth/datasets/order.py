"""Batches whose order is a function of (seed, step).

The noise of SGD is a sample of data orders (Frankle, thesis, section 4.1.1). To train two copies from step k with
different orders, or one copy again with the same order, an order needs a name. Here its name is a seed.
"""

from __future__ import annotations

import operator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.datasets.augment import augmented, sequence
from keras_lth.datasets.unshuffled import never_shuffled

# Reading ahead draws few batches: Keras builds a model from one, and a distributed iterator prefetches a few more.
# Only an iterator that goes past this many has used its epoch.
PEEK = 8
STEP_LIMIT = 2**62
SEED_LIMIT = 2**63
_PARTS = ("x", "y", "sample_weight")
# Keys of the state table. A generation ≥ 0, begun by each seek, holds (seed, step); so the iterators of an earlier one
# write to an entry that is no longer read.
_CURRENT = -1  # holds (generation, 0)
_NOWHERE = -2


def ordered(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    augment: Any = None,
) -> Ordered:
    """Make a dataset for `model.fit(x=...)` that permutes its examples in an order fixed by the seed.

    With n examples and B = `batch_size` an epoch has ⌈n/B⌉ batches. Step s is batch b = s mod ⌈n/B⌉ of epoch e =
    ⌊s/⌈n/B⌉⌋ and holds the examples π[bB:(b+1)B], where π is a permutation of all n examples that depends on (seed, e)
    only; the last batch of an epoch may be smaller. Each new iterator, and so each epoch of `fit`, continues with the
    next epoch. Use `Ordered.seek` to start at any step, or to change the seed there.

    Args:
        x: an array, or a tuple, list or dict of arrays, each of shape (n, ...). Kept in memory, on the CPU.
        y: targets in the same form, or None.
        sample_weight: weights in the same form, or None; needs y.
        batch_size: B, examples per batch (the global batch if a strategy splits it).
        seed: 0 ≤ seed < 2**63.
        shuffle: False keeps the order of the arrays in every epoch (for evaluation).
        augment: of images x, one array of shape (n, h, w, c): an augmentation of `keras_lth.datasets` (Flip(), Crop(4),
            …), "flip", "crop", or a sequence of these, applied in order. The result for an example is a function of
            (seed, e, its index). None does not change x.

    Floating arrays are cast to `keras.config.floatx()`, as `fit` does with arrays.

    Raises:
        ValueError: names the argument: batch_size below 1, a seed out of range, no examples, lengths that differ, an
            unknown augment, or augment for data that is not one array of images.
    """
    return Ordered(x, y, sample_weight, batch_size=batch_size, seed=seed, shuffle=shuffle, augment=augment)


class Ordered(tf.data.Dataset):
    """The result of `ordered`: a `tf.data.Dataset` of batches that knows its position.

    An iterator reads the position once, at its first draw. It moves the position to the following epoch when it has
    drawn more than `PEEK` batches, or the last of the epoch, so that reading one batch does not use up an epoch. A
    `seek` overrides every iterator that drew before it: a stale or prefetching one can no longer move the position.
    Under a strategy that prefetches, reading a batch can use up an epoch of at most four batches; `seek` at the start
    of each epoch avoids that.

    `arrays` has the examples, as tensors in the form that `fit` gets them: x, (x, y) or (x, y, sample_weight).
    `augment` is the tuple of augmentations, and `batch` a batch as an iterator yields it.
    """

    def __init__(
        self, x: Any, y: Any, sample_weight: Any, *, batch_size: int, seed: int, shuffle: bool, augment: Any = None
    ) -> None:
        self._batch_size = integer("ordered", "batch_size", batch_size, 1, STEP_LIMIT)
        self._shuffle = bool(shuffle)
        seed = integer("ordered", "seed", seed, 0, SEED_LIMIT)
        if sample_weight is not None and y is None:
            raise ValueError("ordered: sample_weight needs y, which is None")
        with tf.init_scope(), tf.device("CPU:0"):
            data = tuple(_tensors(*pair) for pair in zip(_PARTS, (x, y, sample_weight), strict=True))
            self._n = _count(data)
            self.augment = sequence(augment)
            if self.augment and (not tf.is_tensor(data[0]) or data[0].shape.rank != 4):
                found = tf.nest.map_structure(lambda array: tuple(array.shape), data[0])
                raise ValueError(f"ordered: augment needs x to be one array of shape (n, h, w, c), got {found}")
            # A hash table and not a variable: under a strategy's scope a variable would be mirrored.
            self._table = tf.lookup.experimental.MutableHashTable(
                tf.int64, tf.int64, default_value=[0, 0], experimental_is_anonymous=True
            )
            self._write(0, (seed, 0))
            self._write(_CURRENT, (0, 0))
            self.arrays = keras.utils.pack_x_y_sample_weight(*data)
            self._pipeline = self._build()
        super().__init__(self._pipeline._variant_tensor)
        never_shuffled(Ordered)

    @property
    def steps_per_epoch(self) -> int:
        """Return ⌈n/B⌉."""
        return -(-self._n // self._batch_size)

    @property
    def batch_size(self) -> int:
        """Return B; the last batch of an epoch may be smaller."""
        return self._batch_size

    @property
    def seed(self) -> int:
        """Return the seed that the next iterator will use."""
        return self.position[0]

    @property
    def position(self) -> tuple[int, int]:
        """Return the (seed, step) at which the next iterator will start. Read it between epochs, not during one."""
        with tf.init_scope(), tf.device("CPU:0"):
            seed, step = self._read(self._read(_CURRENT)[0]).numpy().tolist()
        return seed, step

    def seek(self, step: int, seed: int | None = None) -> None:
        """Make the next iterator start at `step`, in the order of `seed` (None: the current seed).

        In the middle of an epoch it yields only the rest of that epoch. Let a callback end such an epoch of `fit` after
        its last batch: if data runs out in a step, Keras warns, and may count that step without `jit_compile`.
        Iterators that have already drawn continue unchanged.

        Raises:
            ValueError: if step is not an integer in [0, 2**62) or seed not one in [0, 2**63).
        """
        step = integer("ordered", "step", step, 0, STEP_LIMIT)
        seed = self.seed if seed is None else integer("ordered", "seed", seed, 0, SEED_LIMIT)
        with tf.init_scope(), tf.device("CPU:0"):
            generation = int(self._read(_CURRENT)[0]) + 1
            self._write(generation, (seed, step))
            self._write(_CURRENT, (generation, 0))

    def order(self, epoch: int, seed: int | None = None) -> np.ndarray:
        """Return π(seed, epoch), an int64 array of shape (n,): the indices of the examples in order."""
        epoch = integer("ordered", "epoch", epoch, 0, STEP_LIMIT)
        seed = self.seed if seed is None else integer("ordered", "seed", seed, 0, SEED_LIMIT)
        if not self._shuffle:
            return np.arange(self._n)
        with tf.init_scope(), tf.device("CPU:0"):
            keys = _keys(self._n, tf.constant(seed, tf.int64), tf.constant(epoch, tf.int64)).numpy()
        return np.argsort(keys, kind="stable")  # as `permutation`, in an eighth of its time

    def batch_of(self, rows: Any, seed: Any, epoch: Any) -> Any:
        """Return the examples `rows` as in an epoch, in the form of `arrays`; iterators use it for what they yield.

        It works on tensors, eagerly, in graphs and under XLA.

        Args:
            rows: int64 of shape (share,), indices of examples in any order.
            seed: int64 scalar in [0, 2**63); with `epoch` it decides the augmentation.
            epoch: int64 scalar of at least 0.
        """
        examples = tf.nest.map_structure(lambda array: tf.gather(array, rows), self.arrays)
        if not self.augment:
            return examples
        x, y, weight = keras.utils.unpack_x_y_sample_weight(examples)
        x = augmented(x, self.augment, seed=seed, epoch=epoch, index=tf.cast(rows, tf.int64))
        return keras.utils.pack_x_y_sample_weight(x, y, weight)

    def cardinality(self) -> Any:
        """Return the batches of a whole epoch, which TensorFlow cannot know: after a seek the first epoch may be
        shorter.
        """
        return tf.constant(self.steps_per_epoch, tf.int64)

    @property
    def element_spec(self) -> Any:
        """Return the element spec, as for any `tf.data.Dataset`."""
        return self._pipeline.element_spec

    def _inputs(self) -> list[Any]:
        return [self._pipeline]

    def _read(self, key: Any) -> Any:
        return self._table.lookup(tf.convert_to_tensor(key, tf.int64))

    def _write(self, key: Any, value: Any) -> Any:
        return self._table.insert(tf.convert_to_tensor(key, tf.int64), tf.convert_to_tensor(value, tf.int64))

    def _build(self) -> Any:
        # Few, small functions, because TensorFlow prepares each of them again for every iterator.
        n, batch, steps = self._n, self._batch_size, self.steps_per_epoch
        # A static batch size for XLA, if all batches are equal.
        static = min(n, batch) if n % batch == 0 or steps == 1 else None

        def epoch_of(_: Any) -> Any:
            generation = self._read(_CURRENT)[0]
            state = self._read(generation)
            epoch, first = state[1] // steps, state[1] % steps
            order = permutation(n, state[0], epoch) if self._shuffle else tf.range(n, dtype=tf.int64)
            rows = tf.data.Dataset.from_tensor_slices(order[first * batch :]).batch(batch)
            origin = tf.data.Dataset.from_tensors((generation, state)).repeat()
            return tf.data.Dataset.zip(rows, origin, tf.data.Dataset.range(first, steps))

        def take(rows: Any, origin: Any, b: Any) -> Any:
            _, state = origin
            return self.batch_of(tf.ensure_shape(rows, [static]), state[0], state[1] // steps), origin, b

        def use(examples: Any, origin: Any, b: Any) -> Any:
            generation, state = origin
            last_look = tf.minimum(state[1] % steps + PEEK, steps - 1)
            moves = tf.logical_and(b == last_look, tf.reduce_all(self._read(generation) == state))
            onward = tf.stack([state[0], (state[1] // steps + 1) * steps])
            with tf.control_dependencies([self._write(tf.where(moves, generation, _NOWHERE), onward)]):
                return tf.nest.map_structure(tf.identity, examples)

        options = tf.data.Options()
        options.deterministic = True
        # Rewriting the graph copies the data into it (0.15 s an epoch for 60 000 images) and finds nothing to improve.
        options.experimental_optimization.apply_default_optimizations = False
        options.experimental_optimization.inject_prefetch = False
        options.autotune.enabled = False
        # The position moves after the prefetching, with the batches that the consumer draws.
        pipeline = tf.data.Dataset.range(1).flat_map(epoch_of).map(take).prefetch(2).map(use)
        return pipeline.with_options(options)


def permutation(n: int, seed: Any, epoch: Any) -> Any:
    """Return π(seed, epoch), an int64 tensor of shape (n,): n stateless random 64-bit keys, sorted from low to high.

    The generator is always Philox, not chosen by device, and of equal keys the lower index comes first, so the result
    is the same on every machine.
    """
    return tf.math.top_k(tf.bitwise.invert(_keys(n, seed, epoch)), k=n, index_type=tf.int64).indices


def _keys(n: int, seed: Any, epoch: Any) -> Any:
    return tf.random.stateless_uniform(
        [n], seed=tf.stack([seed, epoch]), minval=None, maxval=None, dtype=tf.int64, alg="philox"
    )


def integer(owner: str, name: str, value: Any, low: int, limit: int) -> int:
    """Return the value as an integer in [low, limit), or raise a ValueError that names it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number < limit:
        raise ValueError(f"{owner}: {name} must be an integer in [{low}, {limit}), got {value!r}")
    return number


def _tensors(name: str, value: Any) -> Any:
    """The arrays of `value` as tensors, floating ones in Keras' float type; lists become tuples, as tf.data needs."""
    if value is None:
        return None

    def convert(path: Any, leaf: Any) -> Any:
        label = name + "".join(f"[{key!r}]" for key in path)
        array = leaf if tf.is_tensor(leaf) else np.asarray(leaf)
        if len(array.shape) == 0:
            raise ValueError(f"ordered: {label} must be an array of shape (n, ...), got {leaf!r} without axes")
        tensor = tf.convert_to_tensor(array)
        return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor

    return _map(convert, value, ())


def _map(convert: Any, value: Any, path: tuple[Any, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _map(convert, item, (*path, key)) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_map(convert, item, (*path, i)) for i, item in enumerate(value))
    return convert(path, value)


def _count(data: Any) -> int:
    """The number of examples, the same in every array."""
    counts = {}

    def note(path: Any, leaf: Any) -> None:
        if leaf is not None:
            counts[_PARTS[path[0]] + "".join(f"[{key!r}]" for key in path[1:])] = int(leaf.shape[0])

    _map(note, data, ())
    if not counts or 0 in counts.values():
        raise ValueError(f"ordered: no examples: {counts or 'x holds no array'}")
    if len(set(counts.values())) > 1:
        raise ValueError(f"ordered: the arrays differ in length: {counts}")
    return next(iter(counts.values()))
