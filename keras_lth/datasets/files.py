"""Batches of data too large for memory, in an order that can be resumed, forked and shared among hosts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_lth.datasets.augment import augmented, sequence
from keras_lth.datasets.order import SEED_LIMIT, STEP_LIMIT, integer, permutation
from keras_lth.datasets.sources import Sharded, Source

_OWNER = "from_files"


def from_files(
    source: Source | Callable[[int, int], Any],
    *,
    batch_size: int,
    seed: int,
    hosts: int = 1,
    host: int = 0,
    shuffle: bool = True,
    window: int = 4096,
    augment: Any = None,
    examples: int | None = None,
    decode: Callable[..., Any] | None = None,
) -> Streamed:
    """Read data from files, for the loop: per-host batches whose order is a function of (seed, step, host).

    The order of an epoch has two parts: the source's own (files shuffled and read in turn; single images permuted),
    then a permutation of the records of each `window`. A remainder of fewer examples than a global batch is left out;
    it differs from epoch to epoch.

    Args:
        source: `tfds_files(…)`, `tiny_imagenet(…)`, any `Source`; or a function `shard(index, count)` that returns a
            `tf.data.Dataset` of examples (x, y), always the same ones in the same order.
        batch_size: B, the global batch; each host yields B/hosts examples.
        seed: 0 ≤ seed < 2**63.
        hosts: number of hosts that share the data.
        host: index of this host.
        shuffle: False keeps the order of the files in every epoch (for evaluation); on one host the last batch of an
            epoch is then the remainder, which may be smaller.
        window: number of records that are permuted at a time, kept in memory before decoding.
        augment: as for `ordered`; draws by (seed, epoch, identity of the example). The first stage gets the images as
            decoded, each of any size.
        examples: for a function, the number of examples in all shards, if their datasets do not report it.
        decode: for a function, makes (x, y) from the elements of its datasets; only elements that are used are decoded.

    Raises:
        ValueError: names the argument: a number out of range, a batch that the hosts cannot share equally, fewer
            examples than a batch, `examples` or `decode` with a source that has its own.
    """
    if callable(source):
        chosen: Source = Sharded(source, examples=examples, decode=decode)
    elif examples is not None or decode is not None:
        raise ValueError(f"{_OWNER}: examples and decode are for functions; {type(source).__name__} has its own")
    else:
        chosen = source
    return Streamed(
        chosen, batch_size=batch_size, seed=seed, hosts=hosts, host=host, shuffle=shuffle, window=window,
        augment=augment,
    )  # fmt: skip


class Streamed:
    """The result of `from_files`: it knows its position, and yields the batches of an epoch from any step."""

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        seed: int,
        hosts: int,
        host: int,
        shuffle: bool,
        window: int,
        augment: Any,
    ) -> None:
        self.source = source
        self.augment = sequence(augment)
        self.hosts = integer(_OWNER, "hosts", hosts, 1, 2**31)
        self.host = integer(_OWNER, "host", host, 0, self.hosts)
        self._batch_size = integer(_OWNER, "batch_size", batch_size, 1, 2**31)
        self._window = integer(_OWNER, "window", window, 1, 2**31)
        self._shuffle = bool(shuffle)
        self._position = integer(_OWNER, "seed", seed, 0, SEED_LIMIT), 0
        self._steps = self.steps_among(self.hosts)

    @property
    def steps_per_epoch(self) -> int:
        """Return ⌊hosts · n/B⌋ for the n examples of the host that has fewest; ⌈n/B⌉ unshuffled on one host."""
        return self._steps

    @property
    def batch_size(self) -> int:
        """Return B, over all hosts."""
        return self._batch_size

    @property
    def seed(self) -> int:
        """Return the seed of the position."""
        return self._position[0]

    @property
    def position(self) -> tuple[int, int]:
        """Return the (seed, step) at which the training will continue."""
        return self._position

    def seek(self, step: int, seed: int | None = None) -> None:
        """Set the position: `step`, in the order of `seed` (None: the current seed).

        Raises:
            ValueError: if step is not an integer in [0, 2**62) or seed not one in [0, 2**63).
        """
        step = integer(_OWNER, "step", step, 0, STEP_LIMIT)
        seed = self.seed if seed is None else integer(_OWNER, "seed", seed, 0, SEED_LIMIT)
        self._position = seed, step

    def steps_among(self, hosts: int) -> int:
        """Return the steps in an epoch if this number of hosts share the data.

        Raises:
            ValueError: if they cannot share a batch equally, or have no whole batch.
        """
        if self._batch_size % hosts:
            raise ValueError(
                f"{_OWNER}: {hosts} hosts cannot share a batch of {self._batch_size} examples equally: choose a "
                f"batch_size that {hosts} divides"
            )
        share = self._batch_size // hosts
        fewest = min(self.source.count(host, hosts) for host in range(hosts))
        steps = -(-fewest // share) if self._keeps_rest(hosts) else fewest // share
        if steps == 0:
            raise ValueError(
                f"{_OWNER}: a host of {hosts} has only {fewest} examples, less than its {share} of a batch of "
                f"{self._batch_size}: choose a smaller batch_size or fewer hosts"
            )
        return steps

    @property
    def element_spec(self) -> Any:
        """Return the element spec of the batches of this host."""
        return self.stream(0).element_spec

    def stream(
        self, epoch: int, seed: int | None = None, first: int = 0, *, hosts: int | None = None, host: int | None = None
    ) -> Any:
        """Return the batches of one host in an epoch, from step `first` of the epoch, as a `tf.data.Dataset`.

        Step s of the epoch has the same bits whatever `first` is. Earlier records are read but not decoded.

        Args:
            epoch: at least 0.
            seed: the seed of order and augmentation; None is the current one.
            first: in [0, steps of the epoch].
            hosts: number of hosts; None is the dataset's own.
            host: index of the host; None is the dataset's own.
        """
        epoch = integer(_OWNER, "epoch", epoch, 0, STEP_LIMIT)
        seed = self.seed if seed is None else integer(_OWNER, "seed", seed, 0, SEED_LIMIT)
        hosts = self.hosts if hosts is None else integer(_OWNER, "hosts", hosts, 1, 2**31)
        host = self.host if host is None else host
        host = integer(_OWNER, "host", host, 0, hosts)
        steps = self.steps_among(hosts)
        first = integer(_OWNER, "first", first, 0, steps + 1)
        share = self._batch_size // hosts
        with tf.init_scope(), tf.device("CPU:0"):
            records = self._records(epoch, seed, host, hosts, first * share).take((steps - first) * share)
            batches = self._batches(records, seed, epoch, share, not self._keeps_rest(hosts))
            # A source that ends too early is an error, not a shorter epoch: the other hosts would wait forever.
            batches = batches.apply(tf.data.experimental.assert_cardinality(steps - first))
            options = tf.data.Options()
            options.deterministic = True
            # The files are divided here, not by the strategy.
            options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
            return batches.with_options(options).prefetch(tf.data.AUTOTUNE)

    def _keeps_rest(self, hosts: int) -> bool:
        return not self._shuffle and hosts == 1

    def _records(self, epoch: int, seed: int, host: int, hosts: int, skipped: int) -> Any:
        """(identity, record) in the order of the epoch, without the first `skipped`."""
        if not self._shuffle:
            return self.source.records(host, hosts, None).skip(skipped)
        key = order_key(seed, epoch, host)
        windows, rest = divmod(skipped, self._window)

        # Not `Dataset.shuffle`: its order depends on TensorFlow's global seed too, and its beginning cannot be skipped.
        def permuted(number: Any, window: Any) -> Any:
            count = tf.shape(window[0], tf.int64)[0]
            order = permutation(count, tf.constant(key, tf.int64), number + 1)
            return tf.nest.map_structure(lambda part: tf.gather(part, order), window)

        batched = self.source.records(host, hosts, key).batch(self._window).enumerate()
        return batched.skip(windows).map(permuted).unbatch().skip(rest)

    def _batches(self, records: Any, seed: int, epoch: int, share: int, drop: bool) -> Any:
        def decoded(identity: Any, record: Any) -> Any:
            return identity, self.source.decode(record)

        def changed(identities: Any, example: Any) -> Any:
            x, y, weight = keras.utils.unpack_x_y_sample_weight(example)
            x = augmented(x, self.augment, seed=seed, epoch=epoch, index=identities)
            return identities, keras.utils.pack_x_y_sample_weight(x, y, weight)

        def changed_one(identity: Any, example: Any) -> Any:
            x, y, weight = keras.utils.unpack_x_y_sample_weight(example)
            x = augmented(x[tf.newaxis], self.augment, seed=seed, epoch=epoch, index=identity[tf.newaxis])[0]
            return identity, keras.utils.pack_x_y_sample_weight(x, y, weight)

        parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
        examples = records.map(decoded, **parallel)
        # Images of one size are augmented together, others one by one, with the same bits.
        alike = all(spec.shape.is_fully_defined() for spec in tf.nest.flatten(examples.element_spec))
        if self.augment and not alike:
            examples = examples.map(changed_one, **parallel)
        batches = examples.batch(share, drop_remainder=drop)
        if self.augment and alike:
            batches = batches.map(changed, **parallel)
        return batches.map(lambda _, example: example)


def order_key(seed: int, epoch: int, host: int) -> int:
    """Return 63 bits of SHA-256 of "seed/epoch/host", stable between processes and machines."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}/{host}".encode()).digest()[:8], "big") >> 1
