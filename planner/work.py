"""What a predictor knows of one operator call: the work it does, whoever counted it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Protocol


class Work(Protocol):
    """One operator call, as `layergraph.work` counts it.

    `kind` is a type of operator, with a variant behind a slash where several algorithms run
    ("conv/1x1"). Bytes are of activations read, of weights, and of what is made. What multiplies
    matrices does `batch` products of (`rows`, `inner`) by (`inner`, `columns`), `steps` times one
    after the other; what multiplies nothing passes over `rows` lines of `columns` elements, with
    `batch` and `inner` 1, or all four are 0. `window` and `stride` are a filter's elements and
    the product of its strides.
    """

    @property
    def kind(self) -> str: ...
    @property
    def flops(self) -> float: ...
    @property
    def read_bytes(self) -> float: ...
    @property
    def weight_bytes(self) -> float: ...
    @property
    def made_bytes(self) -> float: ...
    @property
    def batch(self) -> float: ...
    @property
    def rows(self) -> float: ...
    @property
    def inner(self) -> float: ...
    @property
    def columns(self) -> float: ...
    @property
    def steps(self) -> float: ...
    @property
    def window(self) -> float: ...
    @property
    def stride(self) -> float: ...


def is_size(number: float) -> bool:
    """Whether it is finite and at least 0."""
    return math.isfinite(number) and number >= 0


@dataclass(frozen=True, slots=True)
class OperatorWork:
    """One operator call as plain data: what a `Work` is where layers themselves are not known.

    Raises ValueError for a field that is not a finite number of at least 0.
    """

    kind: str
    flops: float
    read_bytes: float = 0.0
    weight_bytes: float = 0.0
    made_bytes: float = 0.0
    batch: float = 0.0
    rows: float = 0.0
    inner: float = 0.0
    columns: float = 0.0
    steps: float = 1.0
    window: float = 1.0
    stride: float = 1.0

    def __post_init__(self) -> None:
        for name in SIZES:
            value = getattr(self, name)
            if not is_size(value):
                raise ValueError(f"{name} is a number from 0, not {value!r}")
        if not self.window or not self.stride:
            raise ValueError("window and stride are at least 1")


# All but the kind.
SIZES = tuple(field.name for field in fields(OperatorWork)[1:])
