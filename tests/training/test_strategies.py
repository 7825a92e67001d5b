"""Strategies by name, and what is said of arguments that do not belong together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from keras_lth.training import strategies
from tests.two_devices import result_of

TWO = ["localhost:5000", "localhost:5001"]


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    return result_of(Path(__file__).with_name("tpu_program.py"))


def test_one_device_and_all_of_this_machine() -> None:
    assert strategies.make("none") is tf.distribute.get_strategy()
    mirrored = strategies.make("mirrored", devices=["CPU:0"])
    assert isinstance(mirrored, tf.distribute.MirroredStrategy)
    assert mirrored.num_replicas_in_sync == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "horovod"}, "strategy must be one of none, mirrored, multiworker, tpu, not 'horovod'"),
        ({"name": "none", "tpu": "local"}, "tpu='local' needs strategy 'tpu', not 'none'"),
        ({"name": "mirrored", "workers": TWO}, "workers and index need strategy 'multiworker', not 'mirrored'"),
        ({"name": "tpu", "index": 0}, "workers and index need strategy 'multiworker', not 'tpu'"),
        ({"name": "none", "devices": ["CPU:0"]}, "devices needs strategy 'mirrored', not 'none'"),
        ({"name": "multiworker", "workers": TWO}, "index must be 0 … 1, one for each worker, not None"),
        ({"name": "multiworker", "workers": TWO, "index": 2}, "index must be 0 … 1, one for each worker, not 2"),
        (
            {"name": "multiworker", "workers": [TWO[0], TWO[0]], "index": 1},
            "two workers have the same address: localhost:5000, localhost:5000",
        ),
        ({"name": "multiworker", "workers": ["localhost", "b:1"], "index": 0}, "host:port, not 'localhost'"),
        ({"name": "multiworker"}, "needs the workers' addresses and an index, or TF_CONFIG"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is set at last is taken back with it.
    monkeypatch.setenv("TF_CONFIG", "")
    with pytest.raises(ValueError) as raised:
        strategies.make(**arguments)
    assert message in str(raised.value)


def config(cluster: Any = None, task: Any = None) -> str:
    return json.dumps({"cluster": cluster or {"worker": TWO}, "task": task or {"type": "worker", "index": 0}})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"cluster": {}}', "KeyError: 'worker'"),
        (json.dumps({"cluster": {"worker": TWO}}), "KeyError: 'task'"),
        (config(task={"type": "ps", "index": 0}), "task {'type': 'ps', 'index': 0} is not one of the 2 workers"),
        (config(task={"type": "worker", "index": 2}), "is not one of the 2 workers"),
        (config(task={"type": "worker", "index": "one"}), "invalid literal"),
    ],
)
def test_a_malformed_tf_config_is_named(text: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(
        ValueError, match=r"^TF_CONFIG must look like \{'cluster': \{'worker': \['host:port', …\]\}"
    ) as raised:
        strategies.make("multiworker")
    assert reason in str(raised.value)


def test_tf_config_names_who_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", config({"worker": ["localhost:1", "localhost:2"]}, {"type": "worker", "index": 1}))
    with pytest.raises(
        RuntimeError, match=r"worker 1 \(localhost:2\) did not meet the others at localhost:1 within 1 s"
    ):
        strategies.make("multiworker", timeout=1.0)


def test_a_tpu_that_does_not_answer(said: dict[str, Any]) -> None:
    assert said["silent"].startswith(f"RuntimeError: TPU '{said['address']}' cannot be reached: ")
    assert f"no answer from {said['address'].removeprefix('grpc://')} after 1 s" in said["silent"]
    assert said["unknown"].startswith("RuntimeError: TPU 'no-such-tpu' cannot be reached: ")
    for message in (said["silent"], said["unknown"]):
        assert "is it READY, and does it run the same version of TensorFlow?" in message


def test_a_machine_without_a_tpu(said: dict[str, Any]) -> None:
    assert said["local"].startswith("RuntimeError: TPU 'local' cannot be reached: ")
    assert "Does this machine have a TPU" in said["local"]


def test_a_device_that_is_not_there(said: dict[str, Any]) -> None:
    assert said["device"] == "ValueError: there is no device GPU:7 here; available: CPU:0"
