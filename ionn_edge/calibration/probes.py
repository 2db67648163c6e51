"""Layers to measure, as data: one small graph each, and how their sizes are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from layergraph.nodes import Argument, WeightRef

Shape = tuple[int, ...]
Point = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One operator call; Ref counts the probe's inputs, then what its calls before this made."""

    op: str
    args: tuple[Argument, ...]
    outputs: tuple[Shape, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Probe:
    """One layer to measure: shapes of its inputs, weights and constants, and its calls.

    `type` is the layer's type by its usual name, as in a table of layers; `flops` a rough size.
    `rectified`: half of its inputs' numbers are 0, as behind a ReLU.
    """

    type: str
    inputs: tuple[Shape, ...]
    weights: tuple[Shape, ...]
    calls: tuple[Call, ...]
    flops: float
    dtype: str = "float32"
    constants: tuple[Shape, ...] = field(default=())
    rectified: bool = False


def size(shape: Shape) -> int:
    """How many numbers a tensor of this shape holds."""
    return torch.Size(shape).numel()


def between(u: float, least: int, most: int) -> int:
    """Where `u` in [0, 1) lies between the two, in logarithms."""
    return min(most, int(least * ((most + 1) / least) ** u))


def one_of(u: float, *choices: int) -> int:
    """The choice at `u` in [0, 1)."""
    return choices[int(u * len(choices))]


def channels(u: float, least: int, most: int, aligned: float) -> int:
    """Three times in four whole vectors, as kernels want them, and half of these round numbers
    (16, 32, 48, 64, 96, 128, 192, ...), as designers choose them: their rows can lie so far apart
    that caches cannot hold them together."""
    count = between(u, least, most)
    if aligned > 0.75:
        return count
    if aligned < 0.375 and count > 48:
        return count >> (shift := count.bit_length() - 2) << shift
    return max(16, count // 16 * 16)


def weighted(count: int) -> tuple[WeightRef, ...]:
    """References to the first so many weights."""
    return tuple(WeightRef(index) for index in range(count))
