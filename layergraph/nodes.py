"""What a graph is made of: tensors' types and shapes, arguments, operator calls, layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

MAX_RANK = 16
DTYPE_BYTES: Mapping[str, int] = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
    "complex64": 8, "complex128": 16,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Element type and shape of a dense tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return DTYPE_BYTES[self.dtype] * math.prod(self.shape)

    @property
    def reach_bytes(self) -> int:
        """`nbytes` with empty dimensions taken as 1: some kernels loop over the others anyway."""
        return DTYPE_BYTES[self.dtype] * math.prod(max(size, 1) for size in self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Ref:
    """An argument that is the value with this number: an input, or a node's output."""

    value: int


@dataclass(frozen=True, slots=True)
class WeightRef:
    """An argument that is `graph.weights[index]`."""

    index: int


@dataclass(frozen=True, slots=True)
class ConstantRef:
    """An argument that is `graph.constants[index]`."""

    index: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A torch enumeration: kind is "dtype", "memory_format", "layout" or "device".

    The device is always the one that executes, so its name is empty.
    """

    kind: str
    name: str


Argument: TypeAlias = (
    Ref
    | WeightRef
    | ConstantRef
    | Symbol
    | bool
    | int
    | float
    | str
    | tuple["Argument", ...]
    | None
)


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter or buffer: its name in the model, and the SHA-256 of its contiguous bytes.

    `trainable` is whether it requires a gradient. Nothing is trained here, but torch multiplies
    matrices in another order, and rounds otherwise, where a weight does.
    """

    name: str
    spec: TensorSpec
    digest: bytes
    trainable: bool = False


@dataclass(frozen=True, slots=True)
class Constant:
    """A small input-independent tensor that travels inside the graph."""

    spec: TensorSpec
    data: bytes


@dataclass(frozen=True, slots=True)
class Node:
    """One operator call. Its outputs take the next value numbers; None marks an absent one."""

    op: str
    args: tuple[Argument, ...]
    kwargs: tuple[tuple[str, Argument], ...]
    outputs: tuple[TensorSpec | None, ...]
    module: str

    def arguments(self) -> Iterator[Argument]:
        """Every leaf argument, depth first."""
        yield from leaves((*self.args, *(value for _, value in self.kwargs)))


@dataclass(frozen=True, slots=True)
class Layer:
    """The unit of planning: nodes [start, stop), and the weights that they use."""

    name: str
    start: int
    stop: int
    weights: tuple[int, ...]


def leaves(arguments: Sequence[Argument]) -> Iterator[Argument]:
    """Every argument that is not a list, depth first."""
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from leaves(argument)
        else:
            yield argument
