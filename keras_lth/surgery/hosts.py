"""What the replicas and hosts of a strategy must agree on.

With several workers each host runs the same program. They differ in one way: the first one, the chief, writes files. A
decision that one of them makes from its own clock, files or signals must become the decision of all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth.masks import Masks
from keras_lth.surgery.paths import variables
from keras_lth.surgery.stored import on_whole
from keras_lth.surgery.variable_mask import mask_of

__all__ = ["Hosts", "check_replicas", "hosts_of"]


class Hosts:
    """The processes that train together under ``strategy``; all of them must make each call below.

    Attributes:
      count: the number of processes.
      index: the index of this process.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self.count, self.index = 1, 0
        # One process drives all hosts of a TPU.
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver: Any = strategy.cluster_resolver
            self.count, self.index = resolver.cluster_spec().num_tasks("worker"), int(resolver.task_id)

    @property
    def chief(self) -> bool:
        """Return whether this process writes files."""
        return self.index == 0

    def gather(self, numbers: Any) -> np.ndarray:
        """Return the int32 vectors of all hosts, shape (count, n)."""
        mine = np.asarray(numbers, np.int32).reshape(1, -1)
        if self.count == 1:
            return mine
        with tf.init_scope():
            value = _gathering(self._strategy)(tf.constant(mine))
            rows = self._strategy.experimental_local_results(value)[0].numpy()
        return rows[:: len(rows) // self.count]  # all replicas of a host have the same value

    def any(self, flag: bool) -> bool:
        """Return whether any host says yes."""
        return bool(self.gather([int(flag)]).any())

    def of_chief(self, number: int) -> int:
        """Return the chief's number, below 2**31."""
        return int(self.gather([number])[0, 0])

    def tell(self, data: bytes) -> bytes:
        """Return the chief's bytes, fewer than 2**31."""
        if self.count == 1:
            return data
        size = self.of_chief(len(data))
        # Few different lengths, because each is compiled separately.
        words = np.zeros(max(1024, 1 << max(0, -(-size // 4) - 1).bit_length()), np.int32)
        if self.chief:
            words.view(np.uint8)[:size] = np.frombuffer(data, np.uint8)
        return self.gather(words)[0].tobytes()[:size]

    def first(self, act: Callable[[], Any]) -> Any:
        """Call ``act`` on the chief, then on the others, and return its result; for files that all hosts read.

        Raises what ``act`` raises; on the other hosts ``RuntimeError`` if the chief failed.
        """
        if self.count == 1:
            return act()
        result, failure = None, None
        if self.chief:
            try:
                result = act()
            except Exception as error:
                failure = error
        if self.of_chief(int(failure is not None)):
            raise failure or RuntimeError("worker 0 failed; see its output for the reason")
        return result if self.chief else act()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Turn, inside, the death of another host into a ``RuntimeError`` that says what to do."""
        try:
            yield
        except tf.errors.OpError as error:
            if self.count == 1:
                raise
            raise RuntimeError(
                f"worker {self.index} of {self.count} stops: another worker was lost, or failed "
                f"({type(error).__name__}: {error.message.splitlines()[0]}). Start all workers again with the same "
                "command: the run resumes from its last commit."
            ) from error

    def check_same(self, digest: bytes, what: str) -> None:
        """Raise ``RuntimeError`` if the hosts have different ``what``, compared by digest."""
        rows = self.gather(np.frombuffer(hashlib.sha256(digest).digest(), np.int32))
        differ = [i for i in range(self.count) if (rows[i] != rows[0]).any()]
        if differ:
            raise RuntimeError(
                f"{what} of worker {', '.join(map(str, differ))} differ from worker 0's: do all workers run the "
                "same program, "
                "config, data and versions, and see the same workdir?"
            )

    def chosen_once(self, shapes: Mapping[str, tuple[int, ...]], choose: Callable[[], Masks]) -> Masks:
        """Return the masks that the chief chooses; ``shapes`` are the shapes of the masks, in order."""
        if self.count == 1:
            return choose()
        size = sum(int(np.prod(shape)) for shape in shapes.values())
        bits = np.zeros(size, bool)
        if self.chief:
            masks = choose()
            bits = np.concatenate([np.asarray(masks[path]).ravel() for path in shapes])
        words = np.packbits(np.pad(bits, (0, -size % 32))).view(np.int32)
        got = np.unpackbits(np.ascontiguousarray(self.gather(words)[0]).view(np.uint8))[:size].astype(bool)
        out, begin = {}, 0
        for path, shape in shapes.items():
            end = begin + int(np.prod(shape))
            out[path] = got[begin:end].reshape(shape)
            begin = end
        return Masks(out)


@cache
def _gathering(strategy: tf.distribute.Strategy) -> Callable[[Any], Any]:
    """Compiled once, because `Strategy.gather` traces again at every call."""

    def of_replica(row: Any) -> Any:
        # Placed on the device of the replica, which a tensor from outside is not.
        return tf.distribute.get_replica_context().all_gather(tf.identity(row), axis=0)

    return tf.function(lambda row: strategy.run(of_replica, (row,)))


def hosts_of(model: keras.Model) -> Hosts:
    """Return the hosts of the strategy under which ``model`` was made."""
    return Hosts(model.distribute_strategy)


@on_whole
def check_replicas(model: keras.Model) -> None:
    """Compare the masks of all replicas and hosts, by their SHA-256.

    Raises ``RuntimeError`` that names the first weight whose masks differ between replicas, or the workers that differ.
    """
    masked = {path: mask_of(variable) for path, variable in variables(model).items()}
    whole = hashlib.sha256()
    for path, mask in masked.items():
        if mask is None:
            continue
        copies = getattr(mask.mask, "values", None) or (mask.mask,)
        digests = [hashlib.sha256(np.asarray(copy.numpy(), bool).tobytes()).digest() for copy in copies]
        if len(set(digests)) > 1:
            raise RuntimeError(f"the replicas hold different masks of {path}")
        whole.update(path.encode() + digests[0])
    hosts_of(model).check_same(whole.digest(), "masks")
