"""How batches reach the steps: gathered from examples on the device, or streamed from files.

Both run in compiled calls of many steps, with no host call inside a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_lth.datasets.files import Streamed
from keras_lth.datasets.order import Ordered

__all__ = ["Feed", "Gathered", "Streaming", "convolves_on_cpu", "feed_for", "on_tpu"]

Step = Callable[[Any], Any]

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


class Feed:
    """Runs steps ``first … first + count - 1`` of an epoch on their batches.

    Under a strategy each replica takes an equal part of a batch. ``variants`` maps a key to the step to compile;
    ``jit_compile`` compiles it with XLA.
    """

    def __init__(self, model: keras.Model, data: Any, variants: Callable[[Any], Step], jit_compile: bool) -> None:
        self.model = model
        self.data = data
        self.variants = variants
        self.jit_compile = jit_compile
        self.strategy = model.distribute_strategy
        self.replicas = int(self.strategy.num_replicas_in_sync)
        self._compiled: dict[Any, Any] = {}

    def run(self, epoch: int, seed: int, first: int, count: int, variant: Any, augment: int | None = None) -> None:
        """Run the steps, in the data order of ``seed``; ``augment`` is the seed of the augmentation, or None for it."""
        raise TypeError(f"{type(self).__name__} has no steps.")

    def run_all(self, variant: Any) -> None:
        """Run a step on every batch of the data, in its stored order."""
        raise TypeError(f"{type(self).__name__} has no steps.")

    def check_shares(self) -> None:
        """Raise ``ValueError`` if the replicas cannot share a batch equally."""


class Gathered(Feed):
    """Batches of `Ordered` data, gathered on the device inside the call.

    The batches of an epoch have one size, except for the last, which has its own function: shapes are static.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.examples = int(tf.nest.flatten(self.data.arrays)[0].shape[0])
        self.batch = self.data.batch_size
        self._order: tuple[tuple[int, int], Any] | None = None

    def check_shares(self) -> None:
        """Raise ``ValueError`` if the replicas cannot share a batch equally."""
        for size in {min(self.batch, self.examples), self.examples % self.batch or self.batch}:
            if size % self.replicas:
                raise ValueError(
                    f"{self.replicas} replicas cannot share a batch of {size} examples equally: choose a batch_size "
                    f"that they divide, and a number of examples (now {self.examples}) with no smaller last batch."
                )

    def run(self, epoch: int, seed: int, first: int, count: int, variant: Any, augment: int | None = None) -> None:
        """Run as `Feed.run` does."""
        size, whole = self.batch, self.examples // self.batch
        full = min(first + count, whole) - first
        if full > 0:
            self._call(epoch, seed, first * size, full, size, variant, augment=augment)
        if first + count > whole:
            self._call(epoch, seed, whole * size, 1, self.examples - whole * size, variant, augment=augment)

    def run_all(self, variant: Any) -> None:
        """Use every example once, in order, however the replicas share them."""
        size = max(self.batch - self.batch % self.replicas, self.replicas)
        whole, rest = divmod(self.examples, size)
        odd = rest % self.replicas
        seed = self.data.seed
        if whole:
            self._call(0, seed, 0, whole, size, variant)
        if rest > odd:
            self._call(0, seed, whole * size, 1, rest - odd, variant)
        if odd:
            self._call(0, seed, self.examples - odd, 1, odd, variant, alone=self.replicas > 1)

    def _call(
        self, epoch: int, seed: int, begin: int, count: int, size: int, variant: Any, *, alone: bool = False,
        augment: int | None = None,
    ) -> None:  # fmt: skip
        """``count`` steps on batches of ``size`` examples, from example ``begin`` of the order.

        ``alone``: only on the first replica.
        """
        if self._order is None or self._order[0] != (epoch, seed):
            self._order = (epoch, seed), tf.constant(self.data.order(epoch, seed))
        if (size, variant, alone) not in self._compiled:
            many = self._many(size, self.variants(variant), alone)
            # On several replicas the step compiles itself: one XLA program has one device.
            jit_compile = self.jit_compile and self.replicas == 1 and not convolves_on_cpu(self.model)
            self._compiled[size, variant, alone] = _compiled(many, jit_compile=jit_compile, autograph=False)
        of = tf.constant(seed if augment is None else augment, tf.int64), tf.constant(epoch, tf.int64)
        end = begin + count * size
        self._compiled[size, variant, alone](self._order[1], *of, tf.constant(begin), tf.constant(end))

    def _many(self, size: int, step: Step, alone: bool) -> Any:
        data, share = self.data, size if alone else size // self.replicas
        if self.jit_compile and self.replicas == 1 and convolves_on_cpu(self.model):
            step = tf.function(step, jit_compile=True)

        def part(order: Any, seed: Any, epoch: Any, begin: Any) -> None:
            replica: Any = 0
            if self.replicas > 1:
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            if alone:
                tf.cond(replica == 0, lambda: on(order, seed, epoch, begin), lambda: 0)
            else:
                on(order, seed, epoch, begin + share * replica)

        def on(order: Any, seed: Any, epoch: Any, begin: Any) -> int:
            step(data.batch_of(tf.slice(order, [begin], [share]), seed, epoch))
            return 0

        def one(begin: Any, *given: Any) -> tuple[Any, ...]:
            order, seed, epoch, _ = given
            self.strategy.run(part, (order, seed, epoch, begin))
            return begin + size, *given

        def many(order: Any, seed: Any, epoch: Any, first: Any, end: Any) -> None:
            with self.strategy.scope():
                given = [first, order, seed, epoch, end]
                tf.while_loop(lambda begin, *rest: begin < rest[-1], one, given, parallel_iterations=1)

        return many


class Streaming(Feed):
    """Batches that each host reads: `Streamed` from files, or for a TPU from the memory of the host."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.check_shares()
        self._at: tuple[int, int, int, int | None] | None = None
        self._iterator: Any = None

    def check_shares(self) -> None:
        """Check as `Feed.check_shares` does."""
        if self.data.batch_size % self.replicas:
            raise ValueError(
                f"{self.replicas} replicas cannot share a batch of {self.data.batch_size} examples equally: choose a "
                f"batch_size that they divide."
            )

    def run_all(self, variant: Any) -> None:
        """Run all batches of an epoch, except for those that several hosts, or a TPU, cannot share."""
        steps = self.data.steps_per_epoch
        if not isinstance(self.data, Streamed):
            steps = tf.nest.flatten(self.data.arrays)[0].shape[0] // self.data.batch_size
        self.run(0, self.data.seed, 0, steps, variant)

    def run(self, epoch: int, seed: int, first: int, count: int, variant: Any, augment: int | None = None) -> None:
        """Run as `Feed.run` does; consecutive steps use one iterator.

        Raises ``ValueError`` for data from files with another seed of the augmentation.
        """
        if isinstance(self.data, Streamed) and augment not in (None, seed):
            raise ValueError(
                f"data from files draws order and augmentation from one seed ({seed}), not also from {augment}: use "
                "one seed, or data in memory (keras_lth.datasets.ordered)."
            )
        if self._at != (epoch, seed, first, augment):
            self._iterator = iter(
                self.strategy.distribute_datasets_from_function(
                    lambda context: self._of_host(epoch, seed, first, context, augment)
                )
            )
        if variant not in self._compiled:
            self._compiled[variant] = _compiled(self._many(self.variants(variant)))
        self._compiled[variant](self._iterator, tf.constant(count))
        self._at = epoch, seed, first + count, augment

    def _of_host(self, epoch: int, seed: int, first: int, context: Any, augment: int | None) -> Any:
        """Each element is the part of one replica; the parts of a batch are consecutive."""
        hosts, host = context.num_input_pipelines, context.input_pipeline_id
        if isinstance(self.data, Streamed):
            batches = self.data.stream(epoch, seed, first, hosts=hosts, host=host)
        else:
            batches = _rows(self.data, epoch, seed, first, hosts, host, augment)
        if self.replicas > hosts:
            batches = batches.rebatch(self.data.batch_size // self.replicas)
        options = tf.data.Options()
        # An iterator dropped with steps left waits for the tuning thread, which sleeps for up to a minute.
        options.autotune.enabled = False
        return batches.with_options(options)

    def _many(self, step: Step) -> Any:
        if self.jit_compile and self.replicas == 1:
            step = tf.function(step, jit_compile=True)

        def many(iterator: Any, count: Any) -> None:
            with self.strategy.scope():
                for _ in tf.range(count):
                    self.strategy.run(step, (next(iterator),))

        return many


def feed_for(model: keras.Model, data: Any, variants: Callable[[Any], Step], jit_compile: bool) -> Feed:
    """Return `Gathered` if the examples can stay on the device, else `Streaming`."""
    kind = Gathered if isinstance(data, Ordered) and not on_tpu(model) else Streaming
    return kind(model, data, variants, jit_compile)


def on_tpu(model: keras.Model) -> bool:
    """Return whether ``model`` was made under a TPUStrategy."""
    return isinstance(model.distribute_strategy, tf.distribute.TPUStrategy)


def convolves_on_cpu(model: keras.Model) -> bool:
    """Return whether ``model`` has convolutions that run on a CPU.

    On a CPU, XLA turns their gradients into matrix products only outside a loop; inside one a step of ResNet-20 takes
    twenty times as long. Any layer with a kernel of four or more axes counts.
    """
    convolves = any(isinstance(layer, _CONVOLUTIONS) for layer in model._flatten_layers())
    convolves = convolves or any(len(weight.shape) > 3 for weight in model.trainable_weights)
    return convolves and not tf.config.list_logical_devices("GPU")


def _compiled(many: Callable[..., None], **options: bool) -> Any:
    function = tf.function(many, **options)
    # Each training has its own functions; TensorFlow would warn that a shared one is traced too often.
    function._omit_frequent_tracing_warning = True
    return function


def _rows(data: Ordered, epoch: int, seed: int, first: int, hosts: int, host: int, augment: int | None = None) -> Any:
    """One host's part of the batches of an epoch of `Ordered` data, from a step on; whole batches only."""
    share = data.batch_size // hosts
    order = data.order(epoch, seed)
    whole = order[: len(order) // data.batch_size * data.batch_size].reshape(-1, hosts, share)[first:, host]
    batch = tf.constant(seed if augment is None else augment, tf.int64), tf.constant(epoch, tf.int64)
    return tf.data.Dataset.from_tensor_slices(whole).map(lambda rows: data.batch_of(rows, *batch)).prefetch(2)
