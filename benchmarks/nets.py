"""The networks of `sparse_layers.py` as numbers that Keras and PyTorch build from. Imports neither."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Net:
    """A network, how it is trained, and the sparsities that it is timed at.

    ``kind`` and ``sizes``: "mlp" (widths), "conv" (channels with "M" where pooled, then dense widths; with batch norm
    if ``norm``), "resnet_20" (), "transformer" (width, heads, inner width, blocks). A sparsity with a block side is one
    of whole blocks. ``epoch``: batches of data that there are.
    """

    title: str
    kind: str
    sizes: Any
    shape: tuple[int, ...]
    optimizer: str
    batch: int
    sparsities: tuple[tuple[float, int], ...]
    epoch: int
    norm: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def convolves(self) -> bool:
        """Whether there are convolutions, so that `lth.fuse` has layers to change."""
        return len(self.shape) == 3


_VGG = [64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"]


def single(*sparsities: float) -> tuple[tuple[float, int], ...]:
    return tuple((sparsity, 1) for sparsity in sparsities)


NETS = {
    "mlp": Net("MLP 784-1000³-10", "mlp", [1000] * 3, (784,), "Adam", 128, single(0.9, 0.95, 0.99), 50),
    "mlp_wide": Net(
        "MLP 3072-1024-512-10", "mlp", [1024, 512], (3072,), "SGD", 100, single(0.9, 0.95, 0.99), 50,
        options={"momentum": 0.9, "nesterov": True},
    ),
    "lenet": Net("LeNet-300-100", "mlp", [300, 100], (784,), "Adam", 60, single(0.9, 0.965), 200),
    "vgg": Net(
        "VGG-16, 32×32", "conv", (_VGG, []), (32, 32, 3), "SGD", 128, single(0.9, 0.95, 0.98), 5, True,
        {"momentum": 0.9},
    ),
    "resnet": Net(
        "ResNet-20", "resnet_20", (), (32, 32, 3), "SGD", 128, single(0.9, 0.95), 10, True, {"momentum": 0.9}
    ),
    "conv4": Net(
        "Conv-4", "conv", ([64, 64, "M", 128, 128, "M"], [256, 256]), (32, 32, 3), "Adam", 60, single(0.95), 10
    ),
    "transformer": Net(
        "2 transformer blocks, 512 wide", "transformer", (512, 8, 2048, 2), (128, 512), "Adam", 16,
        (*single(0.9, 0.95), (0.9, 16)), 10,
    ),
}  # fmt: skip
CLASSES = 10
