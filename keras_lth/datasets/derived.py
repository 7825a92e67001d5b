"""Data sets derived from others: parts of them, noise in their labels, corrupted pixels, normalised pixels.

Every function takes `Splits` and returns new ones. What is drawn is a function of the seed and of the function's name:
raw words of Philox, whose bits NumPy guarantees, so the same seed chooses the same examples everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_lth.arguments import real, round_half_up, whole
from keras_lth.datasets.images import Pair, Splits
from keras_lth.names import check_known

# What `derived` takes. Names of steps leave out options with these values, so they must never change.
OPTIONS: Mapping[str, Any] = {
    "subset": None,
    "part": None,
    "per_class": None,
    "holdout": None,
    "balanced": False,
    "shrink": None,
    "pixels": None,
    "labels": None,
    "label_noise": None,
    "normalise": None,
    "seed": 0,
}
# Mean and deviation of the channels, as the papers' code has them: SynFlow's (H. Tanaka et al. 2020) for MNIST, CIFAR
# and TinyImageNet, torchvision's for ImageNet, which open_lth uses for CIFAR-10 too. Fashion-MNIST's are those of its
# training pixels.
NORMS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    "cifar100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
    "tiny_imagenet": ((0.480, 0.448, 0.397), (0.276, 0.269, 0.282)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
PIXELS = ("permuted", "shuffled", "gaussian")
# Images whose pixels are shuffled at a time.
_CHUNK = 1000


def derived(splits: Splits, **options: Any) -> Splits:
    """Derive a data set as the key `data_options` of a config describes it.

    Args:
        splits: the data.
        options: the functions to apply, in this order: `subset` (n), `part` ("1/2"), `per_class` (n), `holdout`
            (fraction; `balanced` draws it class by class), `shrink` (n), `pixels` ("permuted", "shuffled", "gaussian"),
            `labels` ("permuted"), `label_noise` (fraction), `normalise` (True: by the training examples' own mean and
            deviation; a name of `NORMS`; or {"mean": …, "std": …}). `seed` is the seed of all of them.

    Raises:
        ValueError: an option that cannot work on any data, or on this; names it, and says what would work.
    """
    check_options(options)
    given = {**OPTIONS, **options}
    seed = given["seed"]
    if given["subset"] is not None:
        splits = subset(splits, given["subset"], seed=seed)
    if given["part"] is not None:
        splits = disjoint(splits, given["part"], seed=seed)
    if given["per_class"] is not None:
        splits = per_class(splits, given["per_class"], seed=seed)
    if given["holdout"] is not None:
        splits = held_out(splits, given["holdout"], seed=seed, balanced=given["balanced"])
    if given["shrink"] is not None:
        splits = shrunk(splits, given["shrink"])
    if given["pixels"] is not None:
        splits = corrupted_pixels(splits, given["pixels"], seed=seed)
    if given["labels"] is not None:
        splits = permuted_labels(splits, seed=seed)
    if given["label_noise"] is not None:
        splits = noisy_labels(splits, given["label_noise"], seed=seed)
    how = given["normalise"]
    if how in (None, False):
        return splits
    return normalised(splits) if how is True else normalised(splits, *_norm(how))


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for options of `derived` that cannot work on any data; say what would."""
    for key in options:
        check_known("data_options", key, OPTIONS)
    given = {**OPTIONS, **options}
    for key in ("subset", "per_class", "shrink"):
        if given[key] is not None:
            whole(given[key], key, 1)
    if given["part"] is not None:
        _part(given["part"])
    whole(given["seed"], "seed", 0)
    for key in ("holdout", "label_noise"):
        if given[key] is not None:
            _share(given[key], key)
    _one_of("balanced", given["balanced"], (True, False))
    _one_of("pixels", given["pixels"], (None, *PIXELS))
    _one_of("labels", given["labels"], (None, "permuted"))
    if given["balanced"] and given["holdout"] is None:
        raise ValueError("balanced=True says how examples are held out: set holdout too, such as holdout=0.1")
    if not isinstance(given["normalise"], bool | None):
        _norm(given["normalise"])


def subset(splits: Splits, n: int, *, seed: int = 0) -> Splits:
    """Keep n training examples, in their order. With one seed a smaller subset is part of a larger one.

    Raises:
        ValueError: n is not a whole number from 1 to the number of training examples.
    """
    count = len(splits.train[1])
    if whole(n, "subset", 1) > count:
        raise ValueError(f"subset={n} of {count} training examples: use at most {count}")
    return replace(splits, train=_rows(splits.train, np.sort(_order(count, seed, "subset")[:n])))


def disjoint(splits: Splits, part: str, *, seed: int = 0) -> Splits:
    """Keep one of several disjoint parts of the training examples, in their order.

    Args:
        splits: the data.
        part: "1/2" is the first of two parts, "2/2" the other. Sizes differ by at most one example.
        seed: of the order in which examples are dealt; the same for all parts.

    Raises:
        ValueError: another form of part, or more parts than examples.
    """
    number, parts = _part(part)
    count = len(splits.train[1])
    if parts > count:
        raise ValueError(f"part={part!r} of {count} training examples: use at most {count} parts")
    return replace(splits, train=_rows(splits.train, np.sort(_order(count, seed, "part")[number - 1 :: parts])))


def per_class(splits: Splits, n: int, *, seed: int = 0) -> Splits:
    """Keep n training examples of each class, in their order.

    Raises:
        ValueError: n is not a whole number from 1 to the size of the smallest class; names that class.
    """
    whole(n, "per_class", 1)
    counts = _counts(splits)
    if n > counts.min():
        few = int(counts.argmin())
        remedy = f"use at most {counts[few]}" if counts[few] else "a class without examples cannot be sampled"
        raise ValueError(f"per_class={n}, but class {few} has {counts[few]} training examples: {remedy}")
    chosen = _first_of_each(splits, np.full(splits.classes, n), seed, "per_class")
    return replace(splits, train=_rows(splits.train, np.flatnonzero(chosen)))


def held_out(splits: Splits, fraction: float, *, seed: int = 0, balanced: bool = False) -> Splits:
    """Move a fraction of the training examples to the part "holdout"; both keep their order.

    The thesis holds out 10 % for early stopping (3.3.6) and trains on the other 90 %.

    Args:
        splits: the data; nothing may be held out yet.
        fraction: in (0, 1); round(fraction · n) examples, halves up.
        seed: ≥ 0.
        balanced: hold out round(fraction · n_c) examples of each class c.

    Raises:
        ValueError: fraction is outside (0, 1), holds out no example, or leaves a class without training examples.
    """
    share = _share(fraction, "holdout")
    if splits.holdout is not None:
        raise ValueError("these splits have a hold-out already: hold out once")
    counts = _counts(splits)
    if balanced:
        chosen = _first_of_each(splits, np.array([round_half_up(share, int(c)) for c in counts]), seed, "holdout")
    else:
        chosen = np.zeros(counts.sum(), bool)
        chosen[_order(len(chosen), seed, "holdout")[: round_half_up(share, len(chosen))]] = True
    if not chosen.any():
        most = int(counts.max() if balanced else counts.sum())
        what = "of the largest class" if balanced else "training examples"
        raise ValueError(f"holdout={fraction} of {most} {what} holds out none: use at least {1 / most:.2g}")
    left = np.bincount(splits.train[1][~chosen], minlength=splits.classes)
    lost = np.flatnonzero((left == 0) & (counts > 0))
    if len(lost):
        few, each = int(lost[0]), int(counts[lost[0]])
        # The largest share, to two digits, that leaves a class of this size one example if it is drawn by class.
        works = np.floor(100 * (int(counts[counts > 0].min()) - 1) / int(counts[counts > 0].min())) / 100
        remedy = f"use balanced=True with at most {works:g}" if works > 0 else "leave that class out"
        raise ValueError(f"holdout={fraction} leaves no training example of class {few}, which has {each}: {remedy}")
    kept, held = _rows(splits.train, np.flatnonzero(~chosen)), _rows(splits.train, np.flatnonzero(chosen))
    return replace(splits, train=kept, holdout=held)


def noisy_labels(splits: Splits, fraction: float, *, seed: int = 0) -> Splits:
    """Give a fraction of the training examples a wrong label, uniform over the other classes.

    Test and held-out labels stay true. (open_lth draws from all classes, so of its fraction 1/classes stays right.)

    Raises:
        ValueError: fraction is outside (0, 1) or changes no label, or there is one class.
    """
    count, classes = len(splits.train[1]), splits.classes
    changed = round_half_up(_share(fraction, "label_noise"), count)
    if changed == 0:
        raise ValueError(f"label_noise={fraction} of {count} labels changes none: use at least {1 / count:.2g}")
    if classes < 2:
        raise ValueError("label_noise needs at least two classes, got 1")
    rows = _order(count, seed, "label_noise")[:changed]
    labels = splits.train[1].copy()
    moved = 1 + _words(changed, seed, "label_noise", "labels") % np.uint64(classes - 1)
    labels[rows] = (labels[rows] + moved.astype(np.int64)) % classes
    return replace(splits, train=(splits.train[0], labels))


def permuted_labels(splits: Splits, *, seed: int = 0) -> Splits:
    """Permute all training labels, so that they say nothing of the images; classes keep their sizes.

    A sanity check of methods that look at data (J. Su et al., "Sanity-checking pruning methods", NeurIPS 2020). Test
    and held-out labels stay true.
    """
    x, y = splits.train
    return replace(splits, train=(x, y[_order(len(y), seed, "labels")]))


def shrunk(splits: Splits, n: int) -> Splits:
    """Average the pixels of all images, in every part, over squares of n × n: a small network trains n² times faster.

    Raises:
        ValueError: n below 1, examples that are not images (height, width, channels), or sides that n does not divide.
    """
    shape = splits.train[0].shape[1:]
    whole(n, "shrink", 1)
    if len(shape) != 3 or shape[0] % n or shape[1] % n:
        raise ValueError(f"shrink={n} needs images whose height and width it divides, not examples of shape {shape}")
    height, width, channels = shape

    def changed(part: str, x: np.ndarray) -> np.ndarray:
        squares = x.reshape(len(x), height // n, n, width // n, n, channels)
        return squares.mean(axis=(2, 4), dtype=np.float32)

    return _each_part(splits, changed)


def corrupted_pixels(splits: Splits, how: str, *, seed: int = 0) -> Splits:
    """Corrupt the pixels of all images, in every part, as C. Zhang et al., "Understanding deep learning requires
    rethinking generalization", ICLR 2017, section 2.1. Channels of a pixel stay together.

    Args:
        splits: images of shape (n, height, width, channels), or examples of another shape, whose values are permuted.
        how: "permuted": one permutation of the pixels, the same in all images; "shuffled": another one in each image;
            "gaussian": normal values with the mean and deviation of all training pixels.
        seed: ≥ 0.

    Raises:
        ValueError: another word.
    """
    _one_of("pixels", how, PIXELS)
    x = splits.train[0]
    mean, std = float(x.mean(dtype=np.float64)), float(x.std(dtype=np.float64))

    def changed(part: str, x: np.ndarray) -> np.ndarray:
        pixels = _as_pixels(x)
        if how == "permuted":
            made = pixels[:, _order(pixels.shape[1], seed, "pixels")]
        elif how == "shuffled":
            made = _shuffled(pixels, seed, part)
        else:
            words = np.random.Generator(np.random.Philox(key=_key(seed, "gaussian", part)))
            made = words.standard_normal(pixels.shape, np.float32) * np.float32(std) + np.float32(mean)
        return made.reshape(x.shape)

    return _each_part(splits, changed)


def normalised(splits: Splits, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Splits:
    """Compute (x − mean)/std in every part, for each index of the last axis.

    A model can do this itself, by its options mean and std; then a crop of `augment` pads with black, as the papers'
    code does, and not with the mean.

    Args:
        splits: the data.
        mean, std: one number for each channel, such as ``*NORMS["cifar10"]``; computed from the training part if
            both are omitted.

    Raises:
        ValueError: one without the other, another number of channels, or a deviation that is not above 0.
    """
    if (mean is None) != (std is None):
        raise ValueError("normalised needs mean and std, or neither")
    x = splits.train[0]
    axes = tuple(range(x.ndim - 1))
    made_mean = x.mean(axes, np.float64) if mean is None else np.asarray(mean, np.float64)
    made_std = x.std(axes, np.float64) if std is None else np.asarray(std, np.float64)
    channels = x.shape[-1]
    if made_mean.shape != (channels,) or made_std.shape != (channels,):
        raise ValueError(
            f"mean and std must be one number for each of the {channels} channels, got {made_mean.tolist()} and "
            f"{made_std.tolist()}"
        )
    if not (made_std > 0).all():
        raise ValueError(f"std must be above 0 in every channel, got {made_std.tolist()}: give mean and std")
    shift, scale = made_mean.astype(np.float32), made_std.astype(np.float32)
    return _each_part(splits, lambda _, x: (x - shift) / scale)


def _norm(how: Any) -> tuple[Sequence[float], Sequence[float]]:
    """The mean and deviation that the option `normalise` names."""
    if isinstance(how, str) and how in NORMS:
        return NORMS[how]
    if isinstance(how, Mapping) and set(how) == {"mean", "std"}:
        mean, std = (tuple(real(number, f"normalise.{key}") for number in how[key]) for key in ("mean", "std"))
        if len(mean) == len(std) and all(number > 0 for number in std):
            return mean, std
    raise ValueError(
        f"normalise must be True (computed), one of {', '.join(NORMS)}, or {{'mean': (…), 'std': (…)}} with as many "
        f"numbers and deviations above 0, not {how!r}"
    )


def _share(value: Any, name: str) -> float:
    share = real(value, name)
    if not 0 < share < 1:
        raise ValueError(f"{name} must be a fraction above 0 and below 1, such as 0.1, not {value!r}")
    return share


def _one_of(name: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}")


def _key(seed: int, *what: str) -> int:
    text = "/".join(map(str, ("datasets", whole(seed, "seed", 0), *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def _part(part: Any) -> tuple[int, int]:
    number, _, parts = str(part).partition("/")
    if not (number.isdigit() and parts.isdigit() and 1 <= int(number) <= int(parts)):
        raise ValueError(f"part must be such as '1/2', the first of two disjoint parts, not {part!r}")
    return int(number), int(parts)


def _words(count: int, seed: int, *what: str) -> np.ndarray:
    return np.random.Philox(key=_key(seed, *what)).random_raw(count)


def _order(count: int, seed: int, *what: str) -> np.ndarray:
    """A permutation of 0 … count − 1."""
    return np.argsort(_words(count, seed, *what), kind="stable")


def _rows(pair: Pair, rows: np.ndarray) -> Pair:
    return pair[0][rows], pair[1][rows]


def _counts(splits: Splits) -> np.ndarray:
    return np.bincount(splits.train[1], minlength=splits.classes)


def _first_of_each(splits: Splits, wanted: np.ndarray, seed: int, what: str) -> np.ndarray:
    """Which training examples are among the first ``wanted[c]`` of their class c, in an order of the seed."""
    labels = splits.train[1]
    order = _order(len(labels), seed, what)
    chosen = np.zeros(len(labels), bool)
    for label, count in enumerate(wanted):
        chosen[order[labels[order] == label][:count]] = True
    return chosen


def _as_pixels(x: np.ndarray) -> np.ndarray:
    """Images as (n, pixels, channels), other examples as (n, values, 1)."""
    return x.reshape(len(x), -1, x.shape[-1] if x.ndim > 2 else 1)


def _shuffled(pixels: np.ndarray, seed: int, part: str) -> np.ndarray:
    made, words = np.empty_like(pixels), np.random.Philox(key=_key(seed, "shuffled", part))
    for begin in range(0, len(pixels), _CHUNK):
        some = pixels[begin : begin + _CHUNK]
        order = np.argsort(words.random_raw(some.shape[:2]), axis=1, kind="stable")
        made[begin : begin + _CHUNK] = np.take_along_axis(some, order[..., np.newaxis], 1)
    return made


def _each_part(splits: Splits, change: Callable[[str, np.ndarray], np.ndarray]) -> Splits:
    """Change x of each part."""

    def made(part: str, pair: Pair) -> Pair:
        return change(part, pair[0]), pair[1]

    held = splits.holdout
    return replace(
        splits, train=made("train", splits.train), test=made("test", splits.test),
        holdout=None if held is None else made("holdout", held),
    )  # fmt: skip
