"""Layers to measure, as data: one small graph each, and how their sizes are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from layergraph.nodes import Argument, TensorSpec, WeightRef
from layergraph.symbols import DTYPES

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
    `rectified`: its inputs are maps as behind a convolution and a ReLU, half of them 0, and
    `smooth` ones or not.
    """

    type: str
    inputs: tuple[Shape, ...]
    weights: tuple[Shape, ...]
    calls: tuple[Call, ...]
    flops: float
    dtype: str = "float32"
    constants: tuple[Shape, ...] = field(default=())
    rectified: bool = False
    smooth: bool = False


def example(spec: TensorSpec, probe: Probe) -> torch.Tensor:
    """What a probe reads as an input of this type and shape: numbers in no order, or a map.

    Some operators branch on them, so that they take another time in order.
    """
    generator = torch.Generator().manual_seed(0)
    if spec.dtype != "float32":
        # Of a table all rows, as far as there are so many: few would be in a cache the next time.
        rows = probe.weights[0][0] if probe.weights else 50
        return torch.randint(rows, spec.shape, generator=generator).to(DTYPES[spec.dtype])
    shape = spec.shape
    if probe.smooth:
        shape = (*shape[:2], *(-(-side // 2) for side in shape[2:]))
    # Of both signs: torch leaves exponentials out where a whole vector is positive.
    noise = torch.rand(shape, generator=generator) - 0.5
    if probe.smooth:
        noise = torch.nn.functional.interpolate(noise, spec.shape[2:], mode="bilinear")
    return noise.relu_() if probe.rectified else noise


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
