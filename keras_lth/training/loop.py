"""The loop does what ``fit`` does, on ``ordered`` data, with exact stops and many steps in one compiled call.

Keras' ``fit`` passes each batch from Python to the step. Here the examples stay on the device, and one call runs all
steps up to the next point at which a callback must see the model. The callbacks are Keras' own and see what they see in
``fit`` with ``steps_per_execution``, but a callback may request a stop (`steps_until_stop`), and a call ends exactly
there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_lth import surgery
from keras_lth.datasets.files import Streamed
from keras_lth.datasets.order import Ordered
from keras_lth.surgery.hooks import own_loop
from keras_lth.tickets import Snapshot
from keras_lth.training.agreement import agree
from keras_lth.training.building import build
from keras_lth.training.evaluation import Evaluation, numbers_of
from keras_lth.training.resume import Inside, Resuming
from keras_lth.training.steps import TrainSteps, uses_jit

__all__ = ["Loop", "fit", "train"]

Data = Ordered | Streamed
# Long enough that starting a call costs nothing, short enough that a SIGTERM is seen at once.
STEPS_PER_CALL = 500


class Loop:
    """The compiled steps of one compiled model on one ``ordered`` dataset, or one from files.

    Raises ``TypeError`` for other data, and ``ValueError`` for a model that is not built or compiled, or a batch that
    the replicas cannot share.
    """

    def __init__(self, model: keras.Model, data: Data, *, jit_compile: bool | None = None) -> None:
        given: Any = data
        if not isinstance(given, Ordered | Streamed):
            made = "keras_lth.datasets.ordered or from_files"
            raise TypeError(f"training needs data from {made}, not {type(given).__name__}")
        surgery.check_built(model)
        if not model.compiled:
            raise ValueError("training needs a compiled model: call model.compile(...) first")
        self.model = model
        self.data = data
        self.jit_compile = jit_compile
        self._traced: Any = None
        self._steps: TrainSteps | None = None
        # Slots and metrics are created here: a compiled loop cannot create variables, and a resumed run sets them.
        build(model, data)

    def run(self, step: int, count: int, seed: int, augment: int | None = None) -> None:
        """Run ``count`` steps from ``step``, all in one epoch, in the data order of ``seed``.

        ``augment``: the seed of the augmentation; by default ``seed``.
        """
        epoch, first = divmod(step, self.data.steps_per_epoch)
        self._current().run(epoch, seed, first, count, augment)

    def _current(self) -> TrainSteps:
        """The compiled steps; compiled again if ``fit``'s own function was."""
        # Runs a masked model's hooks before training; a new identity of the function shows that it was traced again.
        with own_loop(self.model):
            self.model.make_train_function()
        function = self.model.train_function
        if self._steps is None or function is not self._traced:
            self._traced = function
            self._steps = TrainSteps(self.model, self.data, uses_jit(self.model, self.jit_compile))
        return self._steps


def fit(
    model: keras.Model,
    data: Data,
    *,
    epochs: int = 1,
    validation_data: Any = None,
    validation_freq: int = 1,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    verbose: int = 0,
    initial_epoch: int = 0,
    steps_per_call: int = STEPS_PER_CALL,
    jit_compile: bool | None = None,
    checkpoints: Any = None,
    checkpoint_every: float = 60.0,
) -> keras.callbacks.History:
    """Train as ``model.fit`` does on the same data: the same steps, the same callbacks, the same end.

    Args:
      model: built and compiled.
      data: from `datasets.ordered` or `from_files`; training begins at its position, even in the middle of an epoch.
      epochs: the epoch to train up to.
      validation_data: `ordered` data, data from files, or arrays (x, y) or (x, y, sample_weight).
      validation_freq: epochs between validations.
      callbacks: as in ``fit``; batch hooks run once per call.
      verbose: 0, or 1 and 2 as in ``fit``.
      initial_epoch: the number of the first epoch.
      steps_per_call: maximum number of steps between two batch hooks.
      jit_compile: True, False, or None: XLA if the model supports it, except for convolutions on a CPU, which are
          faster without.
      checkpoints: a folder. If a run is killed, the same program started again resumes from its last commit there, even
          inside an epoch, and ends with the same bits as a run that was never killed. On SIGTERM the run commits and
          raises ``SystemExit(143)``.
      checkpoint_every: seconds between commits; 0 commits after every call.

    Returns:
      The ``History``, including epochs before resuming.

    Raises:
      TypeError, ValueError: data that is not `ordered`, a model not built or compiled, a batch that the replicas
        cannot share, a folder of another run.
    """
    surgery.check_model(model)
    loop = Loop(model, data, jit_compile=jit_compile)
    validation = None if validation_data is None else Evaluation(model, validation_data, data.batch_size, jit_compile)
    listed = keras.callbacks.CallbackList(
        list(callbacks), add_history=True, add_progbar=verbose != 0, model=model, verbose=verbose, epochs=epochs,
        steps=data.steps_per_epoch, data=data, neighbours=list(callbacks), exact_steps=True,
        validation_freq=0 if validation is None else validation_freq,
    )  # fmt: skip
    history = next(one for one in listed.callbacks if isinstance(one, keras.callbacks.History))
    model.stop_training = False
    hosts = surgery.hosts_of(model)
    resume = Resuming(checkpoints, checkpoint_every, model, data, listed.callbacks)
    call = {
        "epochs": epochs, "initial_epoch": initial_epoch, "validation": validation is not None and validation_freq,
        "steps_per_call": steps_per_call, "checkpoints": checkpoints is not None, "jit": uses_jit(model, jit_compile),
    }  # fmt: skip
    with hosts.together():
        agree(model, data, listed.callbacks, call)
    with own_loop(model), hosts.together(), resume as resuming:
        listed.on_train_begin()
        begin = resuming.start(initial_epoch, model._initial_epoch)
        logs: dict[str, Any] = dict(begin.logs)
        for epoch in range(begin.epoch, epochs):
            if begin.inside is not None and epoch == begin.epoch:
                seed, step, start = begin.inside
            else:
                model.reset_metrics()
                listed.on_epoch_begin(epoch)
                seed, step = data.position
                start = step
            end = (step // data.steps_per_epoch + 1) * data.steps_per_epoch
            while step < end and not model.stop_training:
                count = min(end - step, steps_per_call, *_wanted(listed.callbacks))
                listed.on_train_batch_begin(step - start)
                loop.run(step, count, seed)
                step += count
                logs = numbers_of(model.get_metrics_result())
                listed.on_train_batch_end(step - start - 1, logs)
                if step < end and not model.stop_training:
                    resuming.commit_if_due(epoch, Inside(seed, step, start), logs)
            data.seek(end, seed)
            logs = numbers_of(model.get_metrics_result())
            if validation is not None and (epoch + 1) % validation_freq == 0:
                logs |= {f"val_{name}": value for name, value in validation.run(listed).items()}
            listed.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
            resuming.commit_if_due(epoch + 1, logs=logs)
        if isinstance(model.optimizer, keras.optimizers.Optimizer) and epochs > 0:
            model.optimizer.finalize_variable_values(model.trainable_weights)
        listed.on_train_end(logs)
        resuming.finish(epochs, logs)
    return history


def train(
    model: keras.Model,
    data: Data,
    *,
    to: int,
    snapshot: Snapshot | None = None,
    masks: Mapping[str, Any] | None = None,
    seed: int | None = None,
    steps_per_call: int = STEPS_PER_CALL,
    jit_compile: bool | None = None,
) -> Snapshot:
    """Train from a state at step s to the state at step ``to``, with the noise of ``seed``.

    Two trainings from one state that differ in the seed from step k on share their first k steps bit by bit
    (Frankle, thesis, section 4.1.1).

    Args:
      model: built and compiled; it holds the result afterwards.
      data: from `datasets.ordered` or `from_files`.
      to: the last step; steps are counted from the start of the training, over all epochs.
      snapshot: the state to start from; None is the model's own. Its optimizer part is restored if it has one, else the
          slots are fresh.
      masks: masks to set first; None keeps the model's.
      seed: the seed of the data order; None is the data's own.
      steps_per_call: steps in one compiled call.
      jit_compile: as in `fit`.

    Returns:
      The state at step ``to``.

    Raises:
      ValueError: a state after step ``to``, or of another architecture.
    """
    if masks is not None:
        surgery.mask(model, masks)
    if snapshot is not None:
        surgery.rewind(model, snapshot, masks, restore_optimizer=snapshot.has_slots)
    loop = Loop(model, data, jit_compile=jit_compile)
    step = surgery.step_of(model)
    if step > to:
        raise ValueError(f"the state is at step {step}, after to={to}: use a later to")
    chosen = data.seed if seed is None else seed
    with surgery.hosts_of(model).together():
        agree(model, data, (), {"to": to, "seed": chosen, "step": step, "steps_per_call": steps_per_call})
        while step < to:
            rest = data.steps_per_epoch - step % data.steps_per_epoch
            count = min(rest, to - step, steps_per_call)
            loop.run(step, count, chosen)
            step += count
    return surgery.snapshot(model)


def _wanted(callbacks: Iterable[keras.callbacks.Callback]) -> list[int]:
    """The steps after which callbacks want to see the model."""
    asked = (getattr(one, "steps_until_stop", None) for one in callbacks)
    return [steps for one in asked if one is not None and (steps := one()) is not None]
