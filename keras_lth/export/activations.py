"""Activations in NumPy: functions of (x, out) that write `out`, which may be x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_lth.export.graph import Array

__all__ = ["ACTIVATIONS"]


def _relu(
    x: Array, out: Array, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> None:
    if negative_slope == 0 and threshold == 0:
        np.clip(x, 0, max_value, out=out) if max_value is not None else np.maximum(x, 0, out=out)
        return
    below = negative_slope * (x - threshold)
    above = x if max_value is None else np.minimum(x, max_value)
    np.copyto(out, np.where(x >= threshold, above, below))


def _sigmoid(x: Array, out: Array) -> None:
    np.multiply(x, 0.5, out=out)  # as a tanh it cannot overflow
    np.tanh(out, out=out)
    np.multiply(out, 0.5, out=out)
    np.add(out, 0.5, out=out)


def _silu(x: Array, out: Array) -> None:
    gate = np.empty_like(x)
    _sigmoid(x, gate)
    np.multiply(x, gate, out=out)


def _erf(x: Array) -> Array:
    """Within 3e-7: the quotient of polynomials that XLA and Eigen use for float32."""
    near = np.clip(x, -4, 4)
    square = near * near
    above, below = (np.zeros_like(square) for _ in range(2))
    for factor in (
        -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
        -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
    ):  # fmt: skip
        above = above * square + np.float32(factor)
    for factor in (
        -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
        -1.42647390514189e-02,
    ):  # fmt: skip
        below = below * square + np.float32(factor)
    return near * above / below


def _gelu(x: Array, out: Array, approximate: bool = False) -> None:
    if approximate:
        inner = np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x * x * x))
    else:
        inner = _erf(x * np.float32(np.sqrt(0.5)))
    np.multiply(0.5 * x, 1 + inner, out=out)


def _elu(x: Array, out: Array, alpha: float = 1.0, scale: float = 1.0) -> None:
    below = np.float32(scale * alpha) * np.expm1(np.minimum(x, 0))
    np.copyto(out, np.where(x > 0, np.float32(scale) * x, below))


def _softplus(x: Array, out: Array) -> None:
    np.logaddexp(x, np.float32(0), out=out)


def _softsign(x: Array, out: Array) -> None:
    np.divide(x, 1 + np.abs(x), out=out)


def _hard_sigmoid(x: Array, out: Array) -> None:
    np.copyto(out, np.clip(x / np.float32(6) + np.float32(0.5), 0, 1))


def _hard_silu(x: Array, out: Array) -> None:
    np.multiply(x, np.clip(x / np.float32(6) + np.float32(0.5), 0, 1), out=out)


def _softmax(x: Array, out: Array, axis: int = -1) -> None:
    np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    np.exp(out, out=out)
    np.divide(out, out.sum(axis=axis, keepdims=True), out=out)


def _log_softmax(x: Array, out: Array, axis: int = -1) -> None:
    np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    np.subtract(out, np.log(np.exp(out).sum(axis=axis, keepdims=True)), out=out)


ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "elu": _elu,
    "exponential": lambda x, out: np.exp(x, out=out),
    "gelu": _gelu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "log_softmax": _log_softmax,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "softmax": _softmax,
    "softplus": _softplus,
    "softsign": _softsign,
    "tanh": lambda x, out: np.tanh(x, out=out),
}
