"""Find what a running ``fit`` does not pass to callbacks: its data, and the other callbacks.

Keras gives a callback the model and the counts, but never the training data. To seek an ``ordered`` dataset at a rewind
we look up the stack frame of the ``fit`` that runs this model. If a user's own loop hides that frame, pass the dataset
to the callback as an argument.
"""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Any


def fit_argument(model: Any, name: str, default: Any = None) -> Any:
    """Return the argument ``name`` of the running ``model.fit`` call, or ``default`` outside one."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fit" and name in frame.f_locals and frame.f_locals.get("self") is model:
            return frame.f_locals[name]
        frame = frame.f_back
    return default


def leave_epoch(model: Any) -> None:
    """Finish an interrupted epoch of the running ``model.fit``, as Keras finishes one whose batches ran out.

    Keras itself does not. A ``PyDataset`` would then refuse the next epoch, its workers would return batches of the
    last one, and part of finite data would be left over.
    """
    running = fit_argument(model, "epoch_iterator")
    if running is None:
        return
    adapter = running.data_adapter
    if adapter.num_batches is None:
        adapter.on_epoch_end()  # endless data continues where it is
        return
    running.reset()
    workers = getattr(adapter, "enqueuer", None)
    while workers is not None and not workers.ready_queue.empty():
        workers.ready_queue.get_nowait()


def in_other_fit(callback: Any) -> bool:
    """Return whether another callback with the same ``directory`` is in a running ``fit``, in any thread.

    Keras does not report exceptions to callbacks, so this looks for a live stack frame.
    """
    folder = os.path.realpath(callback.directory)
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_code.co_name == "fit" and "callbacks" in frame.f_locals:
                listed = frame.f_locals["callbacks"]
                listed = getattr(listed, "callbacks", listed) or ()
                for other in listed if isinstance(listed, (list, tuple)) else (listed,):
                    used = getattr(other, "directory", None)
                    if other is not callback and used is not None and os.path.realpath(used) == folder:
                        return True
            frame = frame.f_back
    return False


def seekable(data: Any) -> Any | None:
    """Return ``data`` if its order can be sought (it has ``seek``, ``seed`` and ``steps_per_epoch``), else None."""
    return data if all(hasattr(data, name) for name in ("seek", "seed", "steps_per_epoch")) else None
