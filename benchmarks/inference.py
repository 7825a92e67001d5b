"""Inference of a pruned network, NumPy in and NumPy out: `lth.export.compile` beside engines that run it dense.

An MLP 784-1000-1000-1000-10 and VGG-16 for 32×32 images with batch normalisation, at batch 1 and 64. Every engine is
checked against Keras, then all take turns in one process. TensorFlow runs a traced function with and without XLA; ONNX
Runtime (from tf2onnx) and LiteRT (ai-edge-litert, XNNPACK) where they are installed:

    pip install onnxruntime tf2onnx ai-edge-litert
    python benchmarks/inference.py --out docs/results/benchmarks/inference.json
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import numpy as np
import tensorflow as tf
import timing
import turns
from rows import Row, faster, table, verdict

import keras_lth as lth

PEERS = {"ONNX Runtime": ("onnxruntime", "tf2onnx"), "LiteRT": ("ai-edge-litert",)}
TENSORFLOW, XLA = "TensorFlow", "TensorFlow, XLA"
FLOOR = 2.0  # beside the fastest
BATCHES = (1, 64)


def mlp() -> keras.Model:
    stack = [keras.layers.Dense(1000, "relu", kernel_initializer="he_normal") for _ in range(3)]
    return keras.Sequential([keras.Input((784,)), *stack, keras.layers.Dense(10)], name="mlp")


def vgg_16() -> keras.Model:
    x = inputs = keras.Input((32, 32, 3))
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        x = keras.layers.MaxPooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)), name="vgg_16")


def pruned(build: Callable[[], keras.Model], density: float, scope: str) -> keras.Model:
    """By magnitude, of each layer alike or of all weights together."""
    keras.utils.set_random_seed(0)
    model = build()
    masks = lth.select(lth.criteria.Magnitude()(model), density=density, scope=scope)
    lth.mask(model, masks)
    return model


def of_tensorflow(model: keras.Model, shape: tuple[int, ...], jit: bool) -> Callable[[np.ndarray], np.ndarray]:
    function = tf.function(
        lambda x: model(x, training=False), input_signature=[tf.TensorSpec(shape, tf.float32)], jit_compile=jit
    )
    return lambda x: function(x).numpy()


def of_onnx(model: keras.Model, shape: tuple[int, ...], threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime
    import tf2onnx

    signature = [tf.TensorSpec(shape, tf.float32)]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    converted, _ = tf2onnx.convert.from_function(function, input_signature=signature)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(converted.SerializeToString(), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def of_litert(model: keras.Model, shape: tuple[int, ...], threads: int) -> Callable[[np.ndarray], np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    interpreter = Interpreter(model_content=content, num_threads=threads)
    given, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(given, shape)
    interpreter.allocate_tensors()

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given, x)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(result))

    return run


def installed(packages: tuple[str, ...]) -> str | None:
    """The versions of packages; None unless all are there."""
    try:
        return ", ".join(f"{name} {version(name)}" for name in packages)
    except PackageNotFoundError:
        return None


def peers() -> dict[str, str]:
    """Versions of what is measured; of what is not installed, how to install it."""
    return {"TensorFlow": tf.__version__} | {
        peer: installed(packages) or f"not measured: pip install {' '.join(packages)}"
        for peer, packages in PEERS.items()
    }


def measure(name: str, model: keras.Model, batch: int, threads: int, effort: turns.Effort) -> list[Row]:
    """Ours beside each engine; the last line is the fastest one, with the floor."""
    x = np.random.default_rng(batch).standard_normal((batch, *model.input_shape[1:])).astype(np.float32)
    shape = x.shape
    calls: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "ours": lth.export.compile(model),
        TENSORFLOW: of_tensorflow(model, shape, False),
        XLA: of_tensorflow(model, shape, True),
    }
    if installed(PEERS["ONNX Runtime"]):
        calls["ONNX Runtime"] = of_onnx(model, shape, threads)
    if installed(PEERS["LiteRT"]):
        calls["LiteRT"] = of_litert(model, shape, threads)
    wanted = model.predict(x, verbose=0)
    for peer, call in calls.items():
        error = float(np.abs(call(x) - wanted).max() / np.abs(wanted).max())
        if not error < 1e-4:
            raise RuntimeError(f"{name}, batch {batch}: {peer} differs from Keras by {error:.1e} of the largest value")
    ms = turns.in_turns({peer: lambda call=call: call(x) for peer, call in calls.items()}, effort)
    ours = ms.pop("ours")
    fastest = min(ms, key=lambda peer: ms[peer])
    work = f"{name}, batch {batch}"
    return [faster(work, ours, peer, time, FLOOR if peer == fastest else None) for peer, time in ms.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    os.environ["KERAS_LTH_THREADS"] = str(arguments.threads)
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    machine, effort, rows = timing.machine(), turns.Effort(turns=arguments.turns, turn_ms=80, slow_ms=400), []
    sparsity = f"{1 - arguments.density:.0%}".replace("%", " %")
    networks = [("MLP", mlp, "layer"), ("VGG-16", vgg_16, "layer"), ("VGG-16", vgg_16, "global")]
    for name, build, scope in networks:
        model = pruned(build, arguments.density, scope)
        where = "of each layer" if scope == "layer" else "of all weights"
        for batch in arguments.batches:
            rows += measure(f"{name}, {sparsity} {where}", model, batch, arguments.threads, effort)
    print(f"{machine}; {arguments.threads} threads; {peers()}")
    print(table(rows))
    print(verdict(rows))
    if arguments.out:
        result = {"machine": machine, "threads": arguments.threads, "versions": peers()}
        timing.write(str(arguments.out), {**result, "rows": [row.json() for row in rows]})


if __name__ == "__main__":
    main()
