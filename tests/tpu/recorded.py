"""The compiled calls of a training loop, recorded instead of run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import tensorflow as tf

from keras_lth.training import feeds


class Call(NamedTuple):
    """A trace and the arguments it was called with."""

    traced: Any
    arguments: list[Any]


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """Inside, what a loop would hand to XLA is appended to the list, and nothing is run."""
    found: list[Call] = []

    class Recording:
        """Stands for the module ``tf`` where the loop compiles its calls."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tf, name)

        def function(self, body: Any, *, jit_compile: bool | None = None, autograph: bool = True) -> Any:
            compiled = tf.function(body, jit_compile=jit_compile, autograph=autograph)

            def call(*arguments: Any) -> Any:
                traced = compiled.get_concrete_function(*arguments)
                if jit_compile:
                    found.append(Call(traced, tf.nest.flatten(arguments)))
                return None if tf.executing_eagerly() else compiled(*arguments)

            return call

    with mock.patch.object(feeds, "tf", Recording()):
        yield found
