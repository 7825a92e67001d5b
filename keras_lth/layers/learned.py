"""Masks that are learned, in place on any model: supermasks, edge-popup, movement, straight-through magnitudes.

While masks are learned, a layer computes with a kernel that a rule makes of its weights and of scores, and the gradient
passes straight through the choice (thesis, 6.2.3). `Learning.finish` makes of it an ordinary masked model.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import surgery
from keras_lth.arguments import real, round_half_up, whole
from keras_lth.layers.reading import Reading
from keras_lth.masks import Masks
from keras_lth.seeds import seed_of
from keras_lth.selection import keep_counts, uniform
from keras_lth.surgery.holders import trace_again
from keras_lth.surgery.paths import entries
from keras_lth.surgery.roles import Filter

__all__ = ["EdgePopup", "Learning", "Movement", "Rule", "StraightThrough", "Supermask", "learn_masks"]

_HELD = "_keras_lth_learned"


class Rule(ABC):
    """How a mask is learned.

    Attributes:
        frozen: whether the weights are constants, biases and normalisation too, so that only scores are trained.
        density: the share of each layer that remains; None where the scores decide.
    """

    frozen: bool = True
    density: float | None = None

    def weights(self, path: str, weight: np.ndarray) -> np.ndarray:
        """Return the weights to begin with."""
        return weight

    @abstractmethod
    def scores(self, path: str, weight: np.ndarray) -> np.ndarray | None:
        """Return the scores to begin with, of the weight's shape; None: the weights themselves are the scores."""

    @abstractmethod
    def kernel(self, weight: Any, scores: Any, kept: Any, draw: Any) -> Any:
        """Return what the layer computes with.

        Args:
            weight: tensor.
            scores: tensor of its shape; None if the weights are the scores.
            kept: int32 scalar, how many remain.
            draw: a function that samples U(0, 1) of the weight's shape in training; None in inference.
        """

    @abstractmethod
    def strength(self, weight: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return what ranks the weights when the masks are settled, at least 0."""


def _share(value: Any) -> float:
    share = real(value, "density")
    if not 0 < share <= 1:
        raise ValueError(f"density must lie in (0, 1], not {value!r}")
    return share


@dataclass(frozen=True)
class Supermask(Rule):
    """Learn the probability of each weight; weights stay as they are (H. Zhou et al., "Deconstructing", 2019, 5).

    In training a weight remains with the probability sigmoid(score), drawn at each step; in inference, and at the end,
    if that is above one half. The paper draws in inference too.

    Args:
        initial: probability at the beginning, in (0, 1).
        rescale: multiply each kernel by n / (number that remains), the paper's dynamic weight rescaling.
    """

    initial: float = 0.5
    rescale: bool = False

    def __post_init__(self) -> None:
        if not 0 < real(self.initial, "initial") < 1:
            raise ValueError(f"initial must lie in (0, 1), not {self.initial!r}")

    def scores(self, path: str, weight: np.ndarray) -> np.ndarray:
        """The logit of ``initial``."""
        return np.full(weight.shape, math.log(self.initial / (1 - self.initial)), np.float32)

    def kernel(self, weight: Any, scores: Any, kept: Any, draw: Any) -> Any:
        """The weights that were drawn, or that are more probable than not."""
        chance = tf.sigmoid(scores)
        mask = _through(
            tf.cast(chance > (0.5 if draw is None else draw()), weight.dtype), tf.cast(chance, weight.dtype)
        )
        scale = tf.cast(tf.size(mask), mask.dtype) / tf.maximum(tf.reduce_sum(mask), 1) if self.rescale else 1.0
        return weight * mask * scale

    def strength(self, weight: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """1 where the probability is above one half."""
        return (scores > 0).astype(np.float32)


@dataclass(frozen=True)
class EdgePopup(Rule):
    """Learn a score for each weight; the highest |scores| of each layer remain (V. Ramanujan et al., 2020).

    Args:
        density: of each layer, in (0, 1]; the paper's k %.
        init: weights to begin with: "signed", the sign of the model's weights times the standard deviation of He
            normal; "kaiming", He normal; both scaled by 1/√density, as in the paper; None leaves the model's weights.
        seed: of weights and scores.
    """

    density: float = 0.5
    init: str | None = "signed"
    seed: int = 0

    def __post_init__(self) -> None:
        _share(self.density)
        whole(self.seed, "seed")
        if self.init not in ("signed", "kaiming", None):
            raise ValueError(f'init must be "signed", "kaiming" or None, not {self.init!r}')

    def weights(self, path: str, weight: np.ndarray) -> np.ndarray:
        """Signed constants, or scaled He normal."""
        deviation = math.sqrt(2 / (_fan_in(weight) * self.density))
        if self.init == "signed":
            return np.where(weight < 0, -deviation, deviation).astype(weight.dtype)
        if self.init is None:
            return weight
        normal = np.random.default_rng(seed_of(self.seed, "weights", path)).normal(size=weight.shape)
        return (deviation * normal).astype(weight.dtype)

    def scores(self, path: str, weight: np.ndarray) -> np.ndarray:
        """Kaiming uniform with a = √5, as in the released code: U(±1/√fan_in)."""
        drawn = uniform(seed_of(self.seed, "scores"), path, weight.shape)
        return ((2 * drawn - 1) / math.sqrt(_fan_in(weight))).astype(np.float32)

    def kernel(self, weight: Any, scores: Any, kept: Any, draw: Any) -> Any:
        """The weights of the highest |scores|; the gradient passes through |·| too, as in the released code."""
        sizes = tf.abs(scores)
        return weight * tf.cast(_through(_highest(sizes, kept), sizes), weight.dtype)

    def strength(self, weight: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The |scores|."""
        return np.abs(scores)


@dataclass(frozen=True)
class Movement(Rule):
    """Train weights, and scores that grow where a weight moves away from 0 (V. Sanh et al., 2020).

    The highest scores of each layer remain. `keras_lth.GradualPruning` on the model lets the density follow a schedule.

    Args:
        density: at the beginning, in (0, 1].
    """

    density: float = 1.0
    frozen = False

    def __post_init__(self) -> None:
        _share(self.density)

    def scores(self, path: str, weight: np.ndarray) -> np.ndarray:
        """Zeros."""
        return np.zeros(weight.shape, np.float32)

    def kernel(self, weight: Any, scores: Any, kept: Any, draw: Any) -> Any:
        """The weights of the highest scores."""
        return weight * tf.cast(_through(_highest(scores, kept), scores), weight.dtype)

    def strength(self, weight: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The scores, above their least."""
        return scores.astype(np.float64) - scores.min()


@dataclass(frozen=True)
class StraightThrough(Rule):
    """Keep the largest magnitudes of each layer, and train all weights: a pruned one may come back.

    The gradient is that of the masked kernel, and reaches all weights.

    Args:
        density: at the beginning, in (0, 1].
    """

    density: float = 0.1
    frozen = False

    def __post_init__(self) -> None:
        _share(self.density)

    def scores(self, path: str, weight: np.ndarray) -> None:
        """None: the weights are the scores."""
        return

    def kernel(self, weight: Any, scores: Any, kept: Any, draw: Any) -> Any:
        """The weights of the largest magnitude; the gradient passes to all."""
        return _through(weight * tf.cast(_highest(tf.abs(weight), kept), weight.dtype), weight)

    def strength(self, weight: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The magnitudes."""
        return np.abs(weight)


class Learning:
    """A model while its masks are learned: what `learn_masks` returns.

    Attributes:
        rule: how.
    """

    def __init__(self, model: keras.Model, rule: Rule, held: Mapping[str, _Held], frozen: list[Any]) -> None:
        self.model, self.rule = model, rule
        self._held, self._frozen = dict(held), frozen

    def masks(self) -> Masks:
        """Return the masks as they are now: exactly round-half-up(density × n) of each layer, or what scores decide."""
        strength = {path: self.rule.strength(*held.values()) for path, held in self._held.items()}
        if self.rule.density is None:
            return Masks({path: array > 0 for path, array in strength.items()})
        counts = {path: int(held.kept.numpy()) for path, held in self._held.items()}
        return keep_counts(strength, Masks.ones(strength), counts)

    def set_density(self, density: float) -> None:
        """Let ``density`` of each layer remain from the next step on.

        Raises:
            ValueError: outside (0, 1], or a rule whose scores decide.
        """
        if self.rule.density is None:
            raise ValueError(f"{type(self.rule).__name__} has no density: its scores decide")
        for held in self._held.values():
            held.kept.assign(max(1, round_half_up(_share(density), math.prod(held.weight.shape))))

    def finish(self) -> Masks:
        """Make of the model an ordinary masked one, in place, whose weights train again; compile it again.

        With a rule that rescales, the factor is multiplied into the weights.
        """
        masks = self.masks()
        for path, held in self._held.items():
            _restore(held)
            if getattr(self.rule, "rescale", False):
                held.weight.assign(held.weight.numpy() * np.float32(masks[path].size / max(1, int(masks[path].sum()))))
        for variable in self._frozen:
            variable.trainable = True
        trace_again(held.weight for held in self._held.values())
        return Masks(surgery.mask(self.model, masks))


@dataclass
class _Held:
    """What is held of one weight while its mask is learned."""

    layer: Any
    weight: Any
    scores: Any
    kept: Any
    rule: Rule
    noise: Any

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        weight = np.asarray(self.weight.numpy())
        return weight, weight if self.scores is None else np.asarray(self.scores.numpy())

    def kernel(self, training: bool) -> Any:
        def draw() -> Any:
            # Philox by name: XLA's own choice takes several times as long on a CPU, and draws other numbers.
            return tf.random.stateless_uniform(self.weight.shape, self.noise.next(), alg="philox")

        scores = None if self.scores is None else self.scores.value
        return self.rule.kernel(self.weight.value, scores, self.kept, draw if training else None)


class _Learned(keras.layers.Layer):
    """What a layer does otherwise than its class while masks are learned."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Compute with the kernels that the rule makes."""
        training = kwargs.get("training", getattr(self._get_call_context(), "training", None))
        # Before the scope, in which the seed of the noise could not move.
        kernels = [(held.weight, held.kernel(bool(training))) for held in vars(self)[_HELD]]
        with Reading([(weight, _always(kernel)) for weight, kernel in kernels]) as scope:
            outputs = super().call(*args, **kwargs)
        scope.settle(self)
        return outputs


def learn_masks(
    model: keras.Model, rule: Rule, *, include: Filter = None, exclude: Filter = None, also: Filter = None
) -> Learning:
    """Let the masks of ``model`` be learned, in place: each prunable weight gets scores that train beside it.

    Compile the model afterwards, train it in any loop, and call ``finish`` on the result::

        learning = lth.layers.learn_masks(model, lth.layers.Supermask())
        model.compile(...); model.fit(...)
        masks = learning.finish()                  # an ordinary masked model
        model.compile(...); model.fit(...)         # whose weights train

    Until then ``save`` writes the weights without the scores.

    Args:
        model: a built model without masks.
        rule: `Supermask`, `EdgePopup`, `Movement`, `StraightThrough`.
        include, exclude, also: which weights, as in `keras_lth.prunable`.

    Raises:
        ValueError: a model with masks or stored kernels, whose masks are learned already, or with recurrent cells among
            the weights, which would draw another mask at each time step.
    """
    weights = surgery.prunable(model, include, exclude, also)
    if surgery.masks_of(model):
        raise ValueError("the model has masks: call keras_lth.unmask(model) before its masks are learned")
    layers: dict[int, tuple[Any, list[_Held]]] = {}
    held: dict[str, _Held] = {}
    owners = {str(entry.path): entry.layer for entry in entries(model)}
    for path in weights:
        layer = owners[str(path)]
        if isinstance(layer, _Learned):
            raise ValueError(f"the masks of {path!r} are learned already: call finish() on what learn_masks returned")
        if hasattr(layer, "state_size"):
            raise ValueError(f"{path!r} belongs to a recurrent cell, whose mask cannot be learned: exclude it")
    with model.distribute_strategy.scope():
        for path, variable in weights.items():
            one = _Held(owners[str(path)], variable, *_variables(str(path), owners[str(path)], variable, rule))
            held[str(path)] = one
            layers.setdefault(id(one.layer), (one.layer, []))[1].append(one)
    learned = {id(one.scores) for one in held.values()}
    frozen = [v for v in model.trainable_variables if id(v) not in learned] if rule.frozen else []
    for variable in frozen:
        variable.trainable = False
    for layer, of in layers.values():
        vars(layer)[_HELD] = of
        kind: Any = type(layer)
        object.__setattr__(layer, "__class__", _learned_class(kind))
    trace_again(weights.values())
    return Learning(model, rule, held, frozen)


def _variables(path: str, layer: Any, weight: Any, rule: Rule) -> tuple[Any, Any, Rule, Any]:
    """Scores, number that remain, the rule, and noise, made on the layer."""
    value = np.asarray(weight.numpy())
    weight.assign(rule.weights(path, value))
    first = rule.scores(path, value)
    count = value.size if rule.density is None else max(1, round_half_up(rule.density, value.size))
    name = path.rpartition("/")[2]
    layer._tracker.unlock()
    try:
        scores = None
        if first is not None:
            scores = layer.add_weight(
                name=f"{name}_scores", shape=first.shape, initializer=lambda shape, dtype=None: first, dtype="float32"
            )
        kept = layer.add_weight(
            name=f"{name}_kept", shape=(), initializer=lambda shape, dtype=None: tf.constant(count), dtype="int32",
            trainable=False,
        )  # fmt: skip
        noise = keras.random.SeedGenerator(seed_of(0, "supermask", path))
        setattr(layer, f"{name}_noise", noise)
    finally:
        layer._tracker.lock()
    return scores, kept, rule, noise


def _restore(held: _Held) -> None:
    """Give a layer its class back, and drop what was made on it."""
    layer = held.layer
    if isinstance(layer, _Learned):
        cls: Any = type(layer)
        # Its own `__class__` is a property, which hides the class itself.
        vars(object)["__class__"].__set__(layer, cls.__bases__[1])
        layer.__dict__.pop(_HELD, None)
    for made in (held.scores, held.kept):
        if made is not None:
            layer._untrack_variable(made)
    layer._tracker.unlock()
    layer._tracker.untrack(held.noise)
    layer._tracker.lock()
    for name in [name for name, value in vars(layer).items() if value is held.noise]:
        del vars(layer)[name]


@functools.cache
def _learned_class(cls: Any) -> Any:
    # Whoever asks the layer itself for its class, to save or to clone it, hears of the one that it had.
    asked = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__class__": property(lambda _: cls)}
    return type(cls.__name__, (_Learned, cls), asked)


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


@tf.custom_gradient
def _through(hard: Any, soft: Any) -> Any:
    """The value of ``hard`` with the gradient of ``soft``."""
    return tf.identity(hard), lambda upstream: (tf.zeros_like(hard), upstream)


def _highest(scores: Any, kept: Any) -> Any:
    """1 where a score is among the ``kept`` highest or equal to the last of them, else 0."""
    # Bit by bit, the greatest integer that `kept` of the scores reach. XLA would compile `top_k` again for each number
    # that remains, and its sort takes several times as long.
    wide = scores if scores.dtype == tf.float64 else tf.cast(scores, tf.float32)
    kind, size = (tf.int64, 64) if wide.dtype == tf.float64 else (tf.int32, 32)
    keys, count = _turned(tf.bitcast(wide, kind)), tf.cast(kept, tf.int32)

    def step(place: Any, low: Any) -> Any:
        high = low + tf.bitwise.left_shift(tf.ones([], kind), place)
        reached = tf.reduce_sum(tf.cast(keys >= high, tf.int32)) >= count
        return place - 1, tf.where(reached, high, low)

    first = tf.constant(size - 1, kind), tf.constant(kind.min, kind)
    least = tf.while_loop(lambda place, _: place >= 0, step, first, maximum_iterations=size)[1]
    return tf.cast(wide >= tf.bitcast(_turned(least), wide.dtype), scores.dtype)


def _turned(bits: Any) -> Any:
    """The bits of floats as integers of the same order, and back: of a negative one, all but the sign are inverted."""
    return tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, tf.constant(bits.dtype.max, bits.dtype)), bits)


def _fan_in(weight: np.ndarray) -> int:
    return math.prod(weight.shape[:-1])
