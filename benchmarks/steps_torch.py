"""PyTorch's training steps of the networks in `nets.py`: a process that `sparse_layers.py` starts and asks for turns.

A request is a line of JSON: ``{"build": net, "batch": …, "density": d}`` with d null for a dense one, or
``{"run": key, "steps": n}``. The answer is a line, too: the key, or the seconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import nets
import torch
from torch import nn
from torch.nn.utils import prune


class Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, relu: bool = True) -> None:
        super().__init__()
        self.body, self.shortcut, self.relu = body, shortcut or nn.Identity(), relu

    def forward(self, x: Any) -> Any:
        y = self.body(x) + self.shortcut(x)
        return torch.relu(y) if self.relu else y


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.parts = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.parts)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


class Mean(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Any) -> Any:
        return x.mean(self.axes)


def mlp(inputs: int, widths: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return [*layers, nn.Linear(inputs, nets.CLASSES)]


def convolution(inputs: int, outputs: int, norm: bool, size: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=not norm)
    return [conv, nn.BatchNorm2d(outputs)] if norm else [conv]


def network(net: nets.Net) -> nn.Module:
    if net.kind == "mlp":
        return nn.Sequential(*mlp(net.shape[0], net.sizes))
    if net.kind == "conv":
        layers: list[nn.Module] = []
        channels, side = net.shape[2], net.shape[0]
        for size in net.sizes[0]:
            if size == "M":
                layers.append(nn.MaxPool2d(2))
                side //= 2
            else:
                layers += [*convolution(channels, size, net.norm), nn.ReLU()]
                channels = size
        return nn.Sequential(*layers, nn.Flatten(), *mlp(channels * side**2, net.sizes[1]))
    if net.kind == "resnet_20":
        layers, before = [*convolution(3, 16, True), nn.ReLU()], 16
        for channels in (16, 32, 64):
            for block in range(3):
                stride = 2 if block == 0 and channels > 16 else 1
                body = [
                    *convolution(before, channels, True, 3, stride),
                    nn.ReLU(),
                    *convolution(channels, channels, True),
                ]
                shortcut = nn.Sequential(*convolution(before, channels, True, 1, stride)) if stride == 2 else None
                layers.append(Residual(nn.Sequential(*body), shortcut))
                before = channels
        return nn.Sequential(*layers, Mean(2, 3), nn.Linear(64, nets.CLASSES))
    width, heads, inner, blocks = net.sizes
    layers = []
    for _ in range(blocks):
        feed = [nn.LayerNorm(width), nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width)]
        layers.append(Residual(nn.Sequential(nn.LayerNorm(width), Attention(width, heads)), relu=False))
        layers.append(Residual(nn.Sequential(*feed), relu=False))
    return nn.Sequential(*layers, Mean(1), nn.Linear(width, nets.CLASSES))


def steps(net: nets.Net, batch: int, density: float | None, channels_last: bool) -> Callable[[int], float]:
    """Seconds of some steps of a new model; with a density, masks multiply its weights in every step."""
    torch.manual_seed(0)
    model = network(net)
    if density is not None:
        kernels = [(one, "weight") for one in model.modules() if isinstance(one, (nn.Linear, nn.Conv2d))]
        prune.global_unstructured(kernels, prune.L1Unstructured, amount=1 - density)
    shape = (net.shape[2], *net.shape[:2]) if len(net.shape) == 3 else net.shape
    x, y = torch.randn(batch, *shape), torch.randint(nets.CLASSES, (batch,))
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    kind = getattr(torch.optim, net.optimizer)
    optimizer = kind(model.parameters(), lr=0.0, fused=True, **net.options)
    loss_of = nn.CrossEntropyLoss()

    def run(count: int) -> float:
        begin = time.perf_counter()
        for _ in range(count):
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()
            optimizer.step()
        loss.item()
        return time.perf_counter() - begin

    run(2)
    return run


def main() -> None:
    held: list[Callable[[int], float]] = []
    for line in sys.stdin:
        asked = json.loads(line)
        if "run" in asked:
            answer: Any = held[asked["run"]](asked["steps"])
        else:
            net = nets.NETS[asked["build"]]
            layouts = (False, True) if len(net.shape) == 3 else (False,)
            ways = [steps(net, asked["batch"], asked["density"], layout) for layout in layouts]
            held.append(min(ways, key=lambda run: min(run(2), run(2))))
            answer = len(held) - 1
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps(torch.__version__), flush=True)
    main()
