"""Compare sparse products of one shape with TensorFlow's dense product and with other sparse products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import peers
import rows
from cases import Call, Product, both, name_of
from turns import Effort, in_turns

OURS = "keras_lth"
SINGLE = (1, 1)
BLOCKS = ((64, 64), (32, 32), (16, 16), (8, 8), (4, 4), (1, 16), SINGLE)
# The forward product against TensorFlow's dense one: block, sparsity, floor.
FORWARD: tuple[tuple[tuple[int, int], float, float | None], ...] = (
    ((16, 16), 0.80, 4.3),
    ((16, 16), 0.90, 8.5),
    ((16, 16), 0.95, 15),
    ((32, 32), 0.80, 4.3),
    ((32, 32), 0.90, 8.5),
    ((32, 32), 0.95, 15),
    ((64, 64), 0.90, None),
    ((8, 8), 0.90, 8),
    ((1, 16), 0.90, 7),
    ((4, 4), 0.90, 6),
    (SINGLE, 0.90, 4),
    (SINGLE, 0.95, 8),
    (SINGLE, 0.98, 18),
)
SWEEP = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
# dX and dW by 16×16 blocks: the least share of the forward product's efficiency.
OF_FORWARD = {"dX": 0.9, "dW": 0.8}
MKL_FLOOR = 3.0
THREADS_FLOOR = 1.8


class Shape(NamedTuple):
    m: int = 128
    inputs: int = 4096
    outputs: int = 4096


class Line(NamedTuple):
    """One of our calls and the milliseconds of everything measured with it."""

    work: str
    product: str
    case: dict[str, Any]
    ms: dict[str, float]

    def json(self) -> dict[str, Any]:
        return {"work": self.work, "product": self.product, **self.case, "ms": self.ms}


def measure(shape: Shape, threads: int, effort: Effort, log: Callable[[str], None]) -> list[Line]:
    """Every line of `FORWARD`; both gradients of its 16×16 blocks and of its single weights."""
    dense = peers.Dense(*shape)
    lines = []
    for block, sparsity, _ in FORWARD:
        case = Product(*shape, block, sparsity)
        case.check()
        about = {"block": name_of(block), "sparsity": sparsity, "flops": case.flops, "dense_flops": dense.flops}

        def line(name: str, calls: dict[str, Call], case: Product = case, about: dict[str, Any] = about) -> None:
            log(f"{case.name}, {name}")
            lines.append(Line(f"{case.name}, {name}", name, about, in_turns(calls, effort)))

        ours = {
            "forward": case.forward(threads),
            "dX": case.input_gradient(threads),
            "dW": case.weight_gradient(threads),
        }
        line("forward", {OURS: ours["forward"], peers.DENSE: dense.forward, **peers.forward(case)})
        if block not in ((16, 16), SINGLE):
            continue
        theirs = {
            "dX": {peers.DENSE: dense.input_gradient, **peers.input_gradient(case)},
            "dW": {peers.DENSE: dense.weight_gradient, **peers.weight_gradient(case)},
        }
        for name, calls in theirs.items():
            line(name, {OURS: ours[name], f"{OURS}, forward": ours["forward"], **calls})
        dense_both = both(dense.input_gradient, dense.weight_gradient)
        calls = {OURS: both(ours["dX"], ours["dW"]), peers.DENSE: dense_both, **peers.both_gradients(case)}
        line("dX and dW", calls)
    return lines


def judge(lines: Sequence[Line]) -> list[rows.Row]:
    """The lines that have a floor, and those that are printed beside them."""
    result = []
    floors = {(name_of(block), sparsity): floor for block, sparsity, floor in FORWARD}
    for line in lines:
        single = line.case["block"] == "unstructured"
        floor = floors[line.case["block"], line.case["sparsity"]]
        if line.product != "forward" and not (single and line.product in OF_FORWARD):
            floor = None
        result.append(rows.faster(line.work, line.ms[OURS], peers.DENSE, line.ms[peers.DENSE], floor))
        if line.product in OF_FORWARD and not single:
            forward = line.ms[f"{OURS}, forward"]
            peer = "our forward product, as many operations"
            result.append(rows.faster(line.work, line.ms[OURS], peer, forward, OF_FORWARD[line.product]))
    result += [
        rows.faster(line.work, line.ms[OURS], peers.MKL_BSR, line.ms[peers.MKL_BSR], MKL_FLOOR)
        for line in lines
        if peers.MKL_BSR in line.ms and line.product == "forward" and line.case["sparsity"] == 0.9
    ]
    others = [
        rows.faster(line.work, line.ms[OURS], name, ms, 1.0)
        for line in lines
        for name, ms in line.ms.items()
        if not name.startswith(OURS) and name != peers.DENSE
    ]
    for name in dict.fromkeys(row.peer for row in others):
        closest = min((row for row in others if row.peer == name), key=lambda row: row.ratio)
        work = f"the closest of {sum(row.peer == name for row in others)} lines: {closest.work}"
        result.append(rows.faster(work, closest.ours, name, closest.theirs, 1.0))
    return result


def peers_table(lines: Sequence[Line]) -> str:
    """Every line beside every peer, ms; the ratio to ours; our rate as a share of the dense product's."""
    names = list(dict.fromkeys(name for line in lines for name in line.ms if not name.startswith(OURS)))

    def cell(line: Line, name: str) -> str:
        if name not in line.ms:
            return "–"
        return f"{rows.number(line.ms[name])} ({rows.number(line.ms[name] / line.ms[OURS])} ×)"

    body = [
        [
            line.work,
            rows.number(line.ms[OURS]),
            f"{100 * efficiency(line):.0f} %",
            *(cell(line, name) for name in names),
        ]
        for line in lines
    ]
    return rows.markdown(["work", "ours, ms", "of the dense rate", *names], body)


def efficiency(line: Line) -> float:
    """Useful operations a second over those of TensorFlow's dense product in the same turns."""
    return line.case["flops"] / line.ms[OURS] / (line.case["dense_flops"] / line.ms[peers.DENSE])


def scaling(shape: Shape, threads: int, effort: Effort, log: Callable[[str], None]) -> list[rows.Row]:
    """All threads against one, for the products that train a layer."""
    if threads == 1:
        return []
    result = []
    for block in ((32, 32), (16, 16), SINGLE):
        case = Product(*shape, block, 0.9)
        for name, call in {
            "forward": case.forward,
            "dX": case.input_gradient,
            "dW": case.weight_gradient,
        }.items():
            work = f"{threads} threads: {case.name}, {name}"
            log(work)
            ms = in_turns({"all": call(threads), "one": call(1)}, effort)
            floor = THREADS_FLOOR * threads / 2
            result.append(rows.faster(work, ms["all"], "ours, 1 thread", ms["one"], floor))
    return result


def sweep(shape: Shape, threads: int, effort: Effort, log: Callable[[str], None]) -> list[dict[str, Any]]:
    """The forward product of every block over `SWEEP`, each beside the dense one in the same turns."""
    dense = peers.Dense(*shape)
    points = []
    for block in BLOCKS:
        for sparsity in SWEEP:
            case = Product(*shape, block, sparsity)
            log(f"{case.name}, forward")
            ms = in_turns({OURS: case.forward(threads), peers.DENSE: dense.forward}, effort)
            ratio = ms[peers.DENSE] / ms[OURS]
            share = ratio * case.flops / dense.flops
            points.append(
                {"block": name_of(block), "sparsity": sparsity, "ms": ms, "ratio": ratio, "efficiency": share}
            )
    return points


def wins_from(points: Sequence[dict[str, Any]]) -> float | None:
    """The sparsity from which a block is faster than the dense product and stays so; None if it never is.

    Between two measured sparsities the logarithm of the ratio is taken to be linear in that of the density.
    """
    ordered = sorted(points, key=lambda point: point["sparsity"])
    if ordered[-1]["ratio"] < 1:
        return None
    last = max((i for i, point in enumerate(ordered) if point["ratio"] < 1), default=None)
    if last is None:
        return float(ordered[0]["sparsity"])
    below, above = ordered[last], ordered[last + 1]
    low, high = math.log(below["ratio"]), math.log(above["ratio"])
    from_density, to_density = math.log(1 - below["sparsity"]), math.log(1 - above["sparsity"])
    return 1 - math.exp(from_density + (to_density - from_density) * -low / (high - low))


def sweep_table(points: Sequence[dict[str, Any]]) -> str:
    """Times faster than the dense product, a line a block, and the sparsity from which it is."""
    sparsities = sorted({point["sparsity"] for point in points})
    body = []
    for name in dict.fromkeys(point["block"] for point in points):
        line = {point["sparsity"]: point for point in points if point["block"] == name}
        wins = wins_from(list(line.values()))
        text = "never" if wins is None else f"{100 * wins:.0f} %"
        body.append([name, *(rows.number(line[sparsity]["ratio"]) for sparsity in sparsities), text])
    return rows.markdown(["block", *(f"{100 * s:g} %" for s in sparsities), "faster from"], body)
