"""Run by test_strategies.py in a process of its own: what is said where no TPU answers, or no such device is."""

from __future__ import annotations

import socket

from keras_lth.training import strategies
from tests.two_devices import report


def said(**arguments: object) -> str:
    name = str(arguments.pop("name"))
    try:
        strategies.make(name, **arguments)
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def main() -> None:
    with socket.create_server(("localhost", 0)) as server:
        silent = f"grpc://localhost:{server.getsockname()[1]}"
    report(
        {
            "address": silent,
            "silent": said(name="tpu", tpu=silent, timeout=1.0),
            "unknown": said(name="tpu", tpu="no-such-tpu", timeout=1.0),
            "local": said(name="tpu", tpu="local", timeout=1.0),
            "device": said(name="mirrored", devices=["GPU:7"]),
        }
    )


if __name__ == "__main__":
    main()
