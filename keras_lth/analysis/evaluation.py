"""The error of a Keras model as a function of given weights."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lth import surgery
from keras_lth.analysis.connectivity import interpolate
from keras_lth.analysis.line import Line
from keras_lth.analysis.predictions import Predictions
from keras_lth.analysis.statistics import Reestimation
from keras_lth.arguments import is_whole
from keras_lth.masks import align
from keras_lth.surgery.metrics import MODES, direction, is_accuracy, rehearse, reported
from keras_lth.surgery.paths import entries

# Examples a step: what is fastest on a CPU, where activations of convolutions should stay in its caches.
_BATCH, _BATCH_OF_CONVOLUTIONS = 1000, 100


class Evaluator:
    """``evaluator(weights) -> error``, within ``with Evaluator(…) as evaluator:``.

    The error comes from the accuracy among the model's compiled metrics, or from the metric named ``metric``
    (``"loss"`` too). It is the metric itself if less is better, else 1 − the metric. ``mode`` says which is better; by
    default the metric itself does (see `keras_lth.surgery.metrics.direction`).

    On arrays, `Line` runs the model's ``test_step`` in one traced function for all weights. Datasets and models that
    run eagerly go through ``model.evaluate``. For a model made under a strategy, on arrays, evaluation is that of
    `keras_lth.training`, which replicas and hosts share. At the end of the ``with`` block the model's own weights,
    statistics and seeds are restored bit for bit, and its metrics are reset. Its masks hold throughout. An evaluator
    can be entered again, and keeps what is traced.

    Args:
        model: built and compiled. If it has masks, weights that are not 0 where it is pruned are refused.
        data: ``(x, y)`` or ``(x, y, sample_weight)`` arrays, or a finite ``tf.data.Dataset`` of batches.
        metric: name of the compiled metric.
        mode: ``"min"`` or ``"max"``, for a metric whose direction is unknown.
        batch_size: examples per batch, for arrays; by default 1000, and 100 for convolutions on a CPU.
        train_data: if given, batch-norm statistics are re-estimated on it for each set of weights; see
            ``Reestimation``.

    Raises ``ValueError`` for a model that is not built or compiled, data of another kind, or an unknown metric.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Any,
        *,
        metric: str | None = None,
        mode: str = "auto",
        batch_size: int | None = None,
        train_data: Any = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f'mode must be "auto", "max" or "min", not {mode!r}.')
        if not model.built:
            raise ValueError(
                "The model is not built: first call model.build(input_shape), or call the model on a batch."
            )
        if not getattr(model, "compiled", False):
            raise ValueError('The model is not compiled: first call model.compile(loss=…, metrics=["accuracy"]).')
        self.model, self.metric, self.mode = model, metric, mode
        self.measure = "error"
        size = _best_batch(model) if batch_size is None else batch_size
        self._data = Batches(data, size, "data")
        self._size = size
        self._line: Line | None = None
        self._traced: list[int] = []
        self._together: Any = None
        with model.distribute_strategy.scope():
            distributed = tf.distribute.has_strategy()
        if distributed and train_data is not None:
            raise ValueError(
                'statistics="reestimate" runs on one device: use a model created outside any strategy, or '
                "another treatment of statistics."
            )
        if distributed and not isinstance(data, tf.data.Dataset):
            from keras_lth.training.evaluation import Evaluation

            self._together = Evaluation(model, tuple(data), size, None)
        self._direct = not (distributed or model.run_eagerly or isinstance(data, tf.data.Dataset))
        self._train = None if train_data is None else Batches(train_data, size, "train_data")
        self._own: dict[str, np.ndarray] = {}
        self._whole = contextlib.ExitStack()
        self._reestimation: Reestimation | None = None
        self._outputs: Any = None

    @property
    def reestimates(self) -> bool:
        """Return whether batch-norm statistics are re-estimated."""
        return self._train is not None

    def __enter__(self) -> Evaluator:
        # Values of the model itself, in its own dtypes: what __exit__ puts back.
        # Any weights are assigned, also where nothing is stored.
        self._whole.enter_context(surgery.whole(self.model, run=True))
        self._own = {path: np.array(v.numpy()) for path, v in surgery.variables(self.model).items()}
        if self._train is not None:
            self._reestimation = Reestimation(self.model)
        return self

    def __exit__(self, *exception: object) -> None:
        self._reestimation = None
        self._assign(self._own)
        self._whole.close()
        self.model.reset_metrics()

    def __call__(self, weights: Mapping[str, np.ndarray]) -> float:
        """Return the error of the network with these weights (every variable of the model except seeds)."""
        return self._at(self._fitting(weights))

    def along(
        self, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], alphas: Sequence[float]
    ) -> list[float]:
        """Return the error at ``alpha · first + (1 − alpha) · second`` for each alpha in [0, 1]; see `interpolate`."""
        if not (self._direct and self._train is None):
            return [self(interpolate(first, second, alpha)) for alpha in alphas]
        return [self._error(logs) for logs in self._trace()(self._fitting(first), self._fitting(second), alphas)]

    def predictions(self, weights: Mapping[str, np.ndarray]) -> Predictions | None:
        """Return what the network with these weights says of each example.

        Returns None for a model that does not name one class per example, or whose loss is not one function of the
        labels and the outputs.
        """
        loss = _loss_of(self.model)
        if loss is None or len(getattr(self.model, "outputs", [None])) != 1:
            return None
        self._assign(self._fitting(weights))
        if self._outputs is None:
            self._outputs = tf.function(lambda x: self.model(x, training=False), reduce_retracing=True, autograph=False)
        found = []
        with self._data as batches:
            for data in batches:
                x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
                out = self._outputs(x)
                if not tf.is_tensor(out) or out.shape.rank != 2 or out.shape[-1] < 2 or not tf.is_tensor(y):
                    return None
                losses = np.asarray(loss(y, out), np.float64).reshape(len(out), -1).mean(axis=1)
                found.append((_classes(y), np.argmax(out, axis=-1), losses))
        return Predictions(*map(np.concatenate, zip(*found, strict=True)))

    def _at(self, weights: dict[str, np.ndarray]) -> float:
        if self._reestimation is not None and self._train is not None:
            self._assign(weights)
            # The same dropout noise at every point, and no lasting change except the statistics.
            self._assign({path: value for path, value in self._own.items() if path not in weights})
            with self._train as batches:
                weights = weights | self._reestimation(batches)
        if self._direct:
            return self._error(self._trace()(weights, weights, [1.0])[0])
        self._assign(weights)
        if self._together is not None:
            return self._error(self._together.run())
        with self._data as batches:
            logs = self.model.evaluate(batches, verbose=0, return_dict=True)
        return self._error(logs)

    def _trace(self) -> Line:
        """What is traced for the model as it is: layers that store their kernels have other variables when whole."""
        self.model.make_test_function()  # heals a masked model
        variables = surgery.variables(self.model)
        known = [id(variable) for variable in variables.values()]
        if self._line is None or self._traced != known:
            self._line, self._traced = Line(self.model, variables, self._data.tensors, self._size), known
        return self._line

    def check(self, weights: Mapping[str, np.ndarray], name: str) -> None:
        """Refuse weights that this model's masks would change. Raises ``ValueError`` that names the path."""
        weights = self._fitting(weights)
        for path, mask in surgery.masks_of(self.model).items():
            lost = int(np.count_nonzero(np.asarray(weights[path])[~mask]))
            if lost:
                raise ValueError(
                    f"The {name} network has {lost} non-zero weights in {path} where the model's mask is off, which "
                    f"the mask would set to 0: evaluate on a model without masks (keras_lth.unmask), or with "
                    "masks that fit."
                )

    def rehearse(self) -> None:
        """Evaluate one batch, so that data that cannot be evaluated is an error now. The model does not change.

        Raises ``ValueError`` for an unknown metric, one of unknown direction, or examples that the model does not
        accept.
        """
        if self._together is not None:
            self._judge(reported(self.model))
            return
        with self._data as batches:
            names = rehearse(self.model, batches.take(1))
        self._judge(names)
        if self._train is not None:
            with self, self._train as batches:
                Reestimation(self.model)(batches.take(1))

    def _fitting(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        whole = surgery.shapes(self.model)
        shapes = {e.path: whole[e.path] for e in entries(self.model) if not e.seed}
        aligned = align(weights, shapes, what="weights")
        missing = [path for path in shapes if path not in aligned]
        if missing:
            raise ValueError(f"The weights lack {', '.join(missing)}.")
        return aligned

    def _assign(self, values: Mapping[str, np.ndarray]) -> None:
        variables = surgery.variables(self.model)
        for path, value in values.items():
            variables[path].assign(value)

    def _error(self, logs: Mapping[str, float]) -> float:
        name, less = self._judge(list(logs))
        self.measure = name if less else f"1 − {name}"
        return float(logs[name]) if less else 1 - float(logs[name])

    def _judge(self, names: list[str]) -> tuple[str, bool]:
        """The log from which the error is computed, and whether less of it is better."""
        name = self.metric or next((name for name in names if is_accuracy(name)), None)
        if name is None or name not in names:
            wanted = "no accuracy" if name is None else f"no metric {name!r}"
            raise ValueError(
                f"The model reports {wanted}, only {', '.join(names)}: compile it with "
                f'metrics=["accuracy"], or pass metric="loss" or another of these.'
            )
        return name, direction(self.model, name, self.mode) == "min"


class Batches:
    """Finite data as one ``tf.data.Dataset``, read from its beginning in each ``with Batches(…) as dataset``."""

    def __init__(self, data: Any, batch_size: int, name: str) -> None:
        if not is_whole(batch_size, 1):
            raise ValueError(f"batch_size must be an integer ≥ 1, not {batch_size!r}.")
        self.check(data, name)
        self.tensors = None if isinstance(data, tf.data.Dataset) else _tensors(tuple(data))
        self._dataset = data if self.tensors is None else _batched(self.tensors, batch_size)
        self._position: tuple[int, int] | None = None

    @staticmethod
    def check(data: Any, name: str) -> None:
        """Raise ``ValueError`` that names ``name``, unless ``data`` is arrays of one length or a finite dataset."""
        if isinstance(data, tf.data.Dataset):
            if int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
                raise ValueError(f"{name} is an endless dataset: limit it, for example with dataset.take(steps).")
            return
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            length = f" of length {len(data)}" if isinstance(data, (tuple, list)) else ""
            raise ValueError(
                f"{name} must be (x, y) or (x, y, sample_weight) arrays, or a finite tf.data.Dataset of batches, not a "
                f"{type(data).__name__}{length}."
            )
        shapes = [tuple(np.shape(leaf)) for leaf in keras.tree.flatten(tuple(data)) if leaf is not None]
        if any(not shape for shape in shapes) or len({shape[0] for shape in shapes}) != 1 or shapes[0][0] == 0:
            raise ValueError(f"The arrays of {name} need the same length ≥ 1 on their first axis, not shapes {shapes}.")

    def __enter__(self) -> Any:
        # An ordered dataset continues from its position: read a whole epoch, then restore the position.
        if hasattr(self._dataset, "seek") and hasattr(self._dataset, "position"):
            self._position = self._dataset.position
            self._dataset.seek(0)
        return self._dataset

    def __exit__(self, *exception: object) -> None:
        if self._position is not None:
            seed, step = self._position
            self._dataset.seek(step, seed=seed)


def _tensors(data: tuple[Any, ...]) -> Any:
    data = data if len(data) == 2 or data[2] is not None else data[:2]
    with tf.init_scope(), tf.device("CPU:0"):
        return keras.tree.map_structure(_tensor, data)


def _batched(tensors: Any, batch_size: int) -> Any:
    """Slices of whole arrays: one copy of the data, no work per example."""
    n = int(keras.tree.flatten(tensors)[0].shape[0])

    def take(start: Any) -> Any:
        stop = tf.minimum(start + batch_size, n)
        return keras.tree.map_structure(lambda array: array[start:stop], tensors)

    options = tf.data.Options()
    # Each evaluation makes two iterators; rewriting so small a graph takes longer than it saves.
    options.experimental_optimization.apply_default_optimizations = False
    options.autotune.enabled = False
    return tf.data.Dataset.range(0, n, batch_size).map(take).prefetch(2).with_options(options)


def _tensor(value: Any) -> Any:
    tensor = value if tf.is_tensor(value) else tf.convert_to_tensor(np.asarray(value))
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def _best_batch(model: keras.Model) -> int:
    from keras_lth.training.feeds import convolves_on_cpu

    return _BATCH_OF_CONVOLUTIONS if convolves_on_cpu(model) else _BATCH


def _loss_of(model: keras.Model) -> Any:
    """The loss as a function of labels and outputs that returns one value for each example; None for several losses."""
    given = getattr(model, "loss", None)
    if not isinstance(given, (str, keras.losses.Loss)) and not callable(given):
        return None
    found = keras.losses.get(given)
    return found.call if isinstance(found, keras.losses.Loss) else found


def _classes(y: Any) -> np.ndarray:
    """The right classes as integers: of one-hot labels the greatest."""
    labels = np.asarray(y)
    return labels.argmax(axis=-1) if labels.ndim == 2 and labels.shape[-1] > 1 else labels.reshape(len(labels))
