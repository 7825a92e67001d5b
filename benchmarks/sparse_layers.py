"""Whole training steps: a dense Keras model, the sparse one that `lth.sparsify` makes of it, and PyTorch, in turns.

Each side is trained in every way that there is, ``fit`` with several steps per execution and the loop of
`keras_lth.training`, with XLA and without; the fastest way of each side then takes turns with that of the others, and
the ratios of neighbouring turns are reported: their median and quartiles. The loop with XLA is left out where a network
has convolutions, which XLA computes twenty times slower inside a loop. Such networks are timed as Keras has them and
after `lth.fuse`, which is part of `lth.sparsify`. TensorFlow uses oneDNN, also on processors where it would not do so
by itself. The floor is the sparse step with one weight left in each kernel: everything but products. The rate is 0, so
that weights stay normal numbers however many steps are timed; the update's work is the same.

    python benchmarks/sparse_layers.py --out docs/results/benchmarks
    python benchmarks/sparse_layers.py --only=vgg,mlp --torch=/path/to/python
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import keras
import nets
import numpy as np
import timing
from rows import markdown, number
from turns import PAUSE_SECONDS

import keras_lth as lth
from keras_lth import models, surgery
from keras_lth.ops import SparseStructure

L = keras.layers
Turn = Callable[[int], float]  # some steps → seconds
WAYS = {
    "fit": {"loop": False, "jit": False},
    "fit, XLA": {"loop": False, "jit": True},
    "loop": {"loop": True, "jit": False},
    "loop, XLA": {"loop": True, "jit": True},
}
TORCH, TORCH_MASKED = "PyTorch", "PyTorch, masks"
FLOOR = "floor"


def log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def network(net: nets.Net) -> keras.Model:
    """Keras' model of a net, built; logits."""
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input(net.shape)
    if net.kind == "resnet_20":
        return models.resnet_20(net.shape, nets.CLASSES, seed=0)
    if net.kind == "transformer":
        width, heads, inner, blocks = net.sizes
        for _ in range(blocks):
            y = L.LayerNormalization()(x)
            x = x + L.MultiHeadAttention(heads, width // heads)(y, y)
            y = L.Dense(inner, activation="relu")(L.LayerNormalization()(x))
            x = x + L.Dense(width)(y)
        x = L.GlobalAveragePooling1D()(x)
    widths = net.sizes if net.kind == "mlp" else []
    if net.kind == "conv":
        for size in net.sizes[0]:
            if size == "M":
                x = L.MaxPooling2D()(x)
                continue
            x = L.Conv2D(size, 3, padding="same", use_bias=not net.norm)(x)
            x = L.ReLU()(L.BatchNormalization()(x) if net.norm else x)
        x, widths = L.Flatten()(x), net.sizes[1]
    for width in widths:
        x = L.Dense(width, activation="relu")(x)
    return keras.Model(inputs, L.Dense(nets.CLASSES, name="head")(x))


def as_product(path: str, kernel: np.ndarray) -> np.ndarray:
    """A kernel as it lies in its product: those of attention have an axis of heads."""
    if kernel.ndim != 3:
        return kernel
    return kernel.reshape(-1, kernel.shape[-1]) if "output" in path else kernel.reshape(kernel.shape[0], -1)


def masks_of(model: keras.Model, sparsity: float, block: int) -> dict[str, np.ndarray]:
    """The largest weights, or blocks, of each kernel; with blocks the head stays dense.

    By layer: over the whole network, the magnitudes of a new one say nothing but how its layers were initialised.
    """
    weights = {path: np.asarray(v) for path, v in surgery.prunable(model).items()}
    if block > 1:
        weights = {path: w for path, w in weights.items() if not path.startswith("head")}
    scores = {path: as_product(path, np.abs(w)) for path, w in weights.items()}
    chosen = lth.select(scores, density=1 - sparsity, scope="layer", structure=(block, block) if block > 1 else None)
    return {path: chosen[path].reshape(w.shape) for path, w in weights.items()}


def one_left(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Masks that keep one weight of each kernel."""
    left = {path: np.zeros(mask.shape, bool) for path, mask in masks.items()}
    for mask in left.values():
        mask.flat[0] = True
    return left


def make_sparse(model: keras.Model, masks: Mapping[str, np.ndarray], block: int) -> Any:
    """The report of `lth.sparsify`; None, and a masked model in its place, in a version that has none."""
    if not hasattr(lth, "sparsify"):
        lth.mask(model, masks)
        return None
    return lth.sparsify(model, masks, only_if_faster=False, **({"block": (block, block)} if block > 1 else {}))


class Bench:
    """One net and its data: steps of it in any way."""

    def __init__(self, net: nets.Net) -> None:
        self.net = net
        random = np.random.default_rng(0)
        self.x = random.standard_normal((net.epoch * net.batch, *net.shape), np.float32)
        self.y = random.integers(0, nets.CLASSES, len(self.x)).astype(np.int32)

    def ways(self) -> list[str]:
        return [name for name in WAYS if not (self.net.convolves and name == "loop, XLA")]

    def model(self, jit: bool) -> keras.Model:
        model = network(self.net)
        model.compile(
            getattr(keras.optimizers, self.net.optimizer)(learning_rate=0.0, **self.net.options),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit,
            steps_per_execution=self.net.epoch,
        )
        return model

    def turn(self, way: str, prepare: Callable[[keras.Model], Any]) -> Turn:
        """Trains a new model that ``prepare`` has changed; compiled and warm."""
        model = self.model(WAYS[way]["jit"])
        prepare(model)
        run = (self._loop if WAYS[way]["loop"] else self._fit)(model, WAYS[way]["jit"])
        run(self.net.epoch)
        return run

    def _fit(self, model: keras.Model, _: bool) -> Turn:
        import tensorflow as tf

        batches = [array.reshape(self.net.epoch, self.net.batch, *array.shape[1:]) for array in (self.x, self.y)]
        data = tf.data.Dataset.from_tensor_slices(tuple(batches)).repeat().prefetch(2)
        # The thread that tunes tf.data's buffers can let the end of a fit wait as long as the fit has taken.
        untuned = tf.data.Options()
        untuned.autotune.enabled = False
        data = data.with_options(untuned)

        def run(steps: int) -> float:
            begin = time.perf_counter()
            model.fit(data, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
            return time.perf_counter() - begin

        return run

    def _loop(self, model: keras.Model, jit: bool) -> Turn:
        data = lth.datasets.ordered(self.x, self.y, batch_size=self.net.batch, seed=1)
        loop = lth.training.Loop(model, data, jit_compile=jit)

        def run(steps: int) -> float:
            begin = time.perf_counter()
            for step in range(0, steps, self.net.epoch):
                loop.run(step, min(self.net.epoch, steps - step), 1)
            np.asarray(model.trainable_variables[0])  # waits for the last step
            return time.perf_counter() - begin

        return run


class Peer:
    """PyTorch, in a process of its own that waits for its turns."""

    def __init__(self, python: str, threads: int) -> None:
        command = [python, str(Path(__file__).with_name("steps_torch.py")), str(threads)]
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, text=True, env=environment, **pipes)
        self.version = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def turn(self, name: str, batch: int, density: float | None) -> Turn:
        key = self._ask(build=name, batch=batch, density=density)
        return lambda steps: self._ask(run=key, steps=steps)


def fastest(turns: Mapping[str, Turn], steps: int) -> str:
    """The way with the least time of two turns each."""
    seconds = {way: min(turn(steps), turn(steps)) for way, turn in turns.items()}
    log("    " + ", ".join(f"{way} {1e3 * s / steps:.2f} ms" for way, s in seconds.items()))
    return min(seconds, key=seconds.__getitem__)


def in_turns(turns: Mapping[str, Turn], rounds: int, turn_seconds: float, epoch: int) -> dict[str, list[float]]:
    """Milliseconds of a step of each, in every round; the order is turned round every time."""
    steps, ms = {}, {name: [] for name in turns}
    for name, turn in turns.items():
        each = turn(epoch) / epoch
        steps[name] = epoch * max(1, round(turn_seconds / each / epoch))
    for turned in range(rounds):
        for name in list(turns)[:: 1 if turned % 2 else -1]:
            time.sleep(PAUSE_SECONDS)
            ms[name].append(1e3 * turns[name](steps[name]) / steps[name])
    return ms


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """How many times faster, round by round: the median and the quartiles."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {"median": statistics.median(ratios), "quartile 1": quartiles[0], "quartile 3": quartiles[2]}


def memory(net: nets.Net, masks: Mapping[str, np.ndarray], block: int) -> dict[str, int]:
    """Bytes of a training, dense and sparse: variables, slots, and the indices of what is stored."""

    def held(model: keras.Model) -> tuple[int, int]:
        model.optimizer.build(model.trainable_variables)
        parts = model.variables, model.optimizer.variables
        weights, slots = (sum(np.asarray(v.value).nbytes for v in part) for part in parts)
        return weights, slots

    bench = Bench(replace(net, epoch=1))
    dense, sparse = (bench.model(False) for _ in range(2))
    report = make_sparse(sparse, masks, block)
    indices = 0
    for row in [] if report is None else report.rows:
        if row.block is not None:
            structure = SparseStructure.from_mask(as_product(row.path, masks[row.path]), row.block)
            indices += sum(array.nbytes for array in structure.indices)
    (weights, slots), (stored, their_slots) = held(dense), held(sparse)
    return {
        "dense weights": weights, "dense slots": slots, "sparse weights": stored, "sparse slots": their_slots,
        "sparse indices": indices,
    }  # fmt: skip


class Side:
    """Models of one kind, in the ways asked for; those of a dense one serve all lines of a net."""

    def __init__(self, bench: Bench, ways: list[str], prepare: Callable[[keras.Model], Any]) -> None:
        turns = {way: bench.turn(way, prepare) for way in ways}
        self.way = fastest(turns, bench.net.epoch) if len(turns) > 1 else ways[0]
        self.turn = turns[self.way]


def measure(name: str, net: nets.Net, peer: Peer | None, rounds: int, turn_seconds: float) -> list[dict[str, Any]]:
    """The lines of one net."""
    bench, ways = Bench(net), Bench(net).ways()
    log(f"{net.title}: dense")
    sides = {"dense": Side(bench, ways, lambda model: None)}
    # What XLA compiles is not fused.
    plain = [way for way in ways if not WAYS[way]["jit"]]
    if net.convolves:
        log("  fused")
        sides["dense, fused"] = Side(bench, plain, lth.fuse)
    others: dict[str, Turn] = {} if peer is None else {TORCH: peer.turn(name, net.batch, None)}
    lines = []
    for sparsity, block in net.sparsities:
        log(f"  {100 * sparsity:g} %, blocks of {block}")
        masks = masks_of(network(net), sparsity, block)
        here = {**sides, "sparse": Side(bench, ways, functools.partial(make_sparse, masks=masks, block=block))}
        one = functools.partial(make_sparse, masks=one_left(masks), block=1)
        here[FLOOR] = Side(bench, [here["sparse"].way], one)
        turns = {kind: side.turn for kind, side in here.items()} | others
        if peer is not None:
            turns[TORCH_MASKED] = peer.turn(name, net.batch, 1 - sparsity)
        ms = in_turns(turns, rounds, turn_seconds, net.epoch)
        line = {
            "net": net.title, "optimizer": net.optimizer, "batch": net.batch, "sparsity": sparsity, "block": block,
            "ms": {kind: statistics.median(each) for kind, each in ms.items()},
            "ways": {kind: side.way for kind, side in here.items()},
            "faster": ratio(ms["dense"], ms["sparse"]),
        }  # fmt: skip
        if net.convolves:
            line["faster, fused"] = ratio(ms["dense, fused"], ms["sparse"])
            line["fusing the dense one"] = ratio(ms["dense"], ms["dense, fused"])
        if sparsity == 0.95:
            line["bytes"] = memory(net, masks, block)
        log("    " + ", ".join(f"{kind} {value:.2f} ms" for kind, value in line["ms"].items()))
        lines.append(line)
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """A line for each net and sparsity."""

    def cell(line: dict[str, Any], kind: str) -> str:
        if kind not in line["ms"]:
            return ""
        way = line["ways"].get(kind)
        return number(line["ms"][kind]) + (f" ({way})" if way and kind != FLOOR else "")

    def times(line: dict[str, Any], name: str) -> str:
        if name not in line:
            return ""
        return "{} × ({} to {})".format(*(number(line[name][key]) for key in ("median", "quartile 1", "quartile 3")))

    head = ["network", "zeros", "dense, ms", "sparse, ms", "faster", "dense, fused", "faster"]
    head += ["no products (sparse)", TORCH, TORCH_MASKED]
    body = []
    for line in lines:
        blocks = f", {line['block']}×{line['block']}" if line["block"] > 1 else ""
        body.append(
            [
                f"{line['net']}, {line['optimizer']}, batch {line['batch']}",
                f"{100 * line['sparsity']:g} %{blocks}",
                cell(line, "dense"),
                cell(line, "sparse"),
                times(line, "faster"),
                cell(line, "dense, fused"),
                times(line, "faster, fused"),
                *(cell(line, kind) for kind in (FLOOR, TORCH, TORCH_MASKED)),
            ]
        )
    return markdown(head, body, left=2)


def memory_table(lines: list[dict[str, Any]]) -> str:
    """Megabytes of weights and slots, dense beside sparse."""
    body = []
    for line in lines:
        if "bytes" in line:
            of = {kind: count / 1e6 for kind, count in line["bytes"].items()}
            dense, sparse = (sum(mb for kind, mb in of.items() if kind.startswith(k)) for k in ("dense", "sparse"))
            body.append([line["net"], line["optimizer"], *map(number, (*of.values(), dense, sparse, dense / sparse))])
    head = ["at 95 %, MB", "optimizer", "dense: weights", "slots", "sparse: weights", "slots", "indices"]
    return markdown([*head, "dense", "sparse", "less, ×"], body, left=2) if body else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(nets.NETS), help="nets, with commas: %(default)s")
    parser.add_argument("--quick", action="store_true", help="tiny batches, two rounds: shows that everything runs")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--turn", type=float, default=1.0, help="seconds of a turn, at least an epoch of the data")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--torch", default=sys.executable, help="a Python that has PyTorch; '' leaves it out")
    parser.add_argument("--out", type=Path, help="folder for sparse_layers.md and sparse_layers.json")
    arguments = parser.parse_args()
    unknown = set(arguments.only.split(",")) - set(nets.NETS)
    if unknown:
        parser.error(f"--only names no net: {', '.join(sorted(unknown))}; there are {', '.join(nets.NETS)}")

    rounds, turn = (2, 0.01) if arguments.quick else (arguments.rounds, arguments.turn)
    about = {**timing.machine(), "keras": keras.__version__, "rounds": rounds}
    if not hasattr(lth, "sparsify"):
        log("this version has no lth.sparsify: masked models stand in for sparse ones")
    peer = Peer(arguments.torch, arguments.threads) if arguments.torch else None
    if peer is not None and peer.version is None:
        log(f"{arguments.torch} has no PyTorch: its columns are left out (pip install torch, or --torch=PYTHON)")
        peer = None
    about["PyTorch"] = peer.version if peer else None
    lines = []
    for name in arguments.only.split(","):
        net = nets.NETS[name]
        if arguments.quick:
            net = replace(net, batch=4, epoch=2, sparsities=net.sparsities[-1:])
        lines += measure(name, net, peer, rounds, turn)
        if arguments.out:
            # After each net: a run that is stopped leaves what it has.
            arguments.out.mkdir(parents=True, exist_ok=True)
            timing.write(str(arguments.out / "sparse_layers.json"), {"machine": about, "lines": lines})
            (arguments.out / "sparse_layers.md").write_text(text(about, lines))
    print(text(about, lines))


def text(about: Mapping[str, Any], lines: list[dict[str, Any]]) -> str:
    said = (
        f"{about['processor']}, {about['cores']} cores; milliseconds of a training step, medians of {about['rounds']} "
        f"turns; in brackets the fastest way, or the quartiles of the ratio."
    )
    return "\n\n".join(filter(None, [said, table(lines), memory_table(lines)])) + "\n"


if __name__ == "__main__":
    main()
