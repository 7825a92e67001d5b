"""Distribution strategies by name: where a training runs.

``none``: one device · ``mirrored``: all devices of this machine · ``multiworker``: several machines, each running the
same program · ``tpu``: a TPU or a slice of a pod, driven by this program.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import tensorflow as tf

from keras_lth.training.rendezvous import meet, reach

__all__ = ["NAMES", "make"]

NAMES = ("none", "mirrored", "multiworker", "tpu")


def make(
    name: str,
    *,
    tpu: str | None = None,
    devices: Sequence[str] | None = None,
    workers: Sequence[str] = (),
    index: int | None = None,
    timeout: float = 300.0,
) -> tf.distribute.Strategy:
    """Return the strategy ``name``; create models in its ``scope()``. Call it before anything else in TensorFlow.

    Args:
      name: one of `NAMES`.
      tpu: the name or grpc address of a TPU, or ``"local"`` for those of this machine.
      devices: for ``mirrored``, such as ``["GPU:0", "GPU:1"]``; None means all GPUs, or all logical CPUs if there is
          none.
      workers: for ``multiworker``, ``host:port`` of every worker, in the same order on each; TF_CONFIG by default.
      index: the index of this process in ``workers``.
      timeout: seconds to wait for the other workers, or for the TPU.

    Raises:
      ValueError: an unknown name, or arguments that do not belong together.
      RuntimeError: the workers or the TPU could not be reached in time, or refused; says what to check.
    """
    if name not in NAMES:
        raise ValueError(f"strategy must be one of {', '.join(NAMES)}, not {name!r}")
    if tpu is not None and name != "tpu":
        raise ValueError(f"tpu={tpu!r} needs strategy 'tpu', not {name!r}")
    if (workers or index is not None) and name != "multiworker":
        raise ValueError(f"workers and index need strategy 'multiworker', not {name!r}")
    if devices is not None and name != "mirrored":
        raise ValueError(f"devices needs strategy 'mirrored', not {name!r}")
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_given(devices) if devices else _devices())
    if name == "multiworker":
        return _multiworker(workers, index, timeout)
    return _tpu(tpu or "local", timeout)


def _devices() -> list[str]:
    gpus = tf.config.list_logical_devices("GPU")
    return [device.name for device in gpus or tf.config.list_logical_devices("CPU")]


def _given(devices: Sequence[str]) -> list[str]:
    there = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    missing = [name for name in devices if name.rpartition("/")[2].removeprefix("device:").upper() not in there]
    if missing:
        raise ValueError(f"there is no device {', '.join(missing)} here; available: {', '.join(there)}")
    return list(devices)


def _multiworker(workers: Sequence[str], index: int | None, timeout: float) -> tf.distribute.Strategy:
    cluster, own = _cluster(workers, index)
    if len(set(cluster)) < len(cluster):
        raise ValueError(f"two workers have the same address: {', '.join(cluster)}")
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": cluster}, "task": {"type": "worker", "index": own}})
    meet(cluster, own, timeout)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _cluster(workers: Sequence[str], index: int | None) -> tuple[list[str], int]:
    """The addresses of all workers, and the index of this process."""
    if workers:
        if index is None or not 0 <= index < len(workers):
            raise ValueError(f"index must be 0 … {len(workers) - 1}, one for each worker, not {index}")
        return list(workers), index
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise ValueError("strategy 'multiworker' needs the workers' addresses and an index, or TF_CONFIG")
    try:
        config = json.loads(text)
        cluster, task = list(config["cluster"]["worker"]), config["task"]
        if task["type"] != "worker" or not 0 <= int(task["index"]) < len(cluster):
            raise ValueError(f"task {task} is not one of the {len(cluster)} workers")
        return cluster, int(task["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"TF_CONFIG must look like {{'cluster': {{'worker': ['host:port', …]}}, 'task': {{'type': 'worker', "
            f"'index': 0}}}}: {type(error).__name__}: {error}"
        ) from error


def _tpu(tpu: str, timeout: float) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        if tpu != "local":
            silent = reach([address for job in resolver.cluster_spec().as_dict().values() for address in job], timeout)
            if silent:
                raise OSError(f"no answer from {', '.join(silent)} after {timeout:.0f} s")
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except Exception as error:  # whatever TensorFlow raises, add what to check
        here = "Does this machine have a TPU, and does its TensorFlow support it (pip install tensorflow-tpu)?"
        there = (
            "Is this the name of a TPU in this project and zone (gcloud compute tpus tpu-vm list), is it READY, and "
            "does it run the same version of TensorFlow?"
        )
        advice = here if tpu == "local" else there
        raise RuntimeError(
            f"TPU {tpu!r} cannot be reached: {type(error).__name__}: {str(error).splitlines()[0]}. {advice}"
        ) from error
