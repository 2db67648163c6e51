"""What each kind of operator computes: operations, and the matrix product behind them.

By shapes alone. Arguments are the operator's own, with a TensorSpec where a tensor stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from layergraph.nodes import TensorSpec

# Torch resamples to maps of at most this height and width together in another order
# (UpSampleKernel.cpp).
_SMALL_MAP = 128

Arguments: TypeAlias = dict[str, Any]
Specs: TypeAlias = list[TensorSpec]


@dataclass(frozen=True, slots=True)
class Computation:
    """Operations, and `batch` products of (rows, inner) by (inner, columns), in `steps` turns.

    What multiplies nothing passes over memory in lines: `rows` of them, of `columns` elements
    each, `batch` and `inner` 1; without lines the four are 0. `window` and `stride` are a filter's
    elements and the product of its strides, 1 where there is none.
    """

    flops: float
    batch: float = 0.0
    rows: float = 0.0
    inner: float = 0.0
    columns: float = 0.0
    steps: float = 1.0
    window: float = 1.0
    stride: float = 1.0


def computation(kind: str, arguments: Arguments, read: Specs, made: Specs) -> Computation:
    """What a call of an operator of this kind (of `ops.KINDS`) computes."""
    return _BY_KIND[kind](arguments, read, made)


def elements(spec: TensorSpec) -> int:
    """How many numbers a tensor holds."""
    return math.prod(spec.shape)


def is_small_map(made: TensorSpec) -> bool:
    """Whether torch resamples to a map of this size with channels last."""
    return sum(made.shape[-2:]) <= _SMALL_MAP


def product_of_sides(value: Any, dimensions: int) -> int:
    """Of a window or stride: a single number stands for the same in every dimension."""
    sides = (value,) if isinstance(value, int) else tuple(value)
    return math.prod(sides * max(dimensions, 1) if len(sides) == 1 else sides)


def _product(batch: float, rows: float, inner: float, columns: float) -> Computation:
    return Computation(2.0 * batch * rows * inner * columns, batch, rows, inner, columns)


def _conv(a: Arguments, _read: Specs, made: Specs) -> Computation:
    weight: TensorSpec = a["weight"]
    groups, columns = a["groups"], weight.shape[0]
    window = math.prod(weight.shape[2:])
    rows = elements(made[0]) / max(columns, 1)
    inner = math.prod(weight.shape[1:])
    return Computation(
        2.0 * elements(made[0]) * inner,
        *(groups, rows, inner, columns / groups),
        window=window,
        stride=product_of_sides(a["stride"], len(weight.shape) - 2),
    )


def _transposed_conv(a: Arguments, _read: Specs, _made: Specs) -> Computation:
    source: TensorSpec = a["input"]
    weight: TensorSpec = a["weight"]
    groups, inner = a["groups"], weight.shape[0]
    columns = math.prod(weight.shape[1:])
    return Computation(
        2.0 * elements(source) * columns,
        *(groups, elements(source) / max(inner, 1), inner / groups, columns),
        window=math.prod(weight.shape[2:]),
        stride=product_of_sides(a["stride"], len(weight.shape) - 2),
    )


def _linear(a: Arguments, read: Specs, made: Specs) -> Computation:
    if "equation" in a:
        return _einsum(str(a["equation"]), read, made)
    if "weight" in a:
        columns, inner = (1, *a["weight"].shape)[-2:]
        return _product(1, elements(made[0]) / max(columns, 1), inner, columns)
    # The matrices are the last two of addmm(bias, a, b), the first two of matmul(a, b).
    left: TensorSpec = a.get("mat1") or a.get("batch1") or read[0]
    right: TensorSpec = a.get("mat2") or a.get("batch2") or read[1]
    inner = left.shape[-1] if left.shape else 1
    columns = right.shape[-1] if len(right.shape) > 1 else 1
    batch = math.prod(right.shape[:-2])
    return _product(batch, elements(made[0]) / max(batch * columns, 1), inner, columns)


def _einsum(equation: str, read: Specs, made: Specs) -> Computation:
    sizes: dict[str, int] = {}
    terms = equation.replace(" ", "").split("->")[0].split(",")
    for term, spec in zip(terms, read, strict=False):
        # An ellipsis stands for batch dimensions, which the result has as well.
        letters, dims = term.replace("...", ""), spec.shape
        sizes.update(zip(reversed(letters), reversed(dims), strict=False))
    result = equation.partition("->")[2]
    summed = math.prod(size for letter, size in sizes.items() if letter not in result)
    columns = made[0].shape[-1] if made[0].shape else 1
    return _product(1, elements(made[0]) / max(columns, 1), summed, columns)


def _attention(a: Arguments, _read: Specs, made: Specs) -> Computation:
    query: TensorSpec = a["query"]
    keys: int = a["key"].shape[-2]
    flops = 2.0 * keys * (elements(query) + elements(made[0]))
    batch = math.prod(query.shape[:-2])
    return Computation(flops, batch, query.shape[-2], query.shape[-1], keys)


def _recurrent(a: Arguments, _read: Specs, _made: Specs) -> Computation:
    source: TensorSpec = a["input"]
    params: tuple[TensorSpec, ...] = a.get("params") or (a["w_ih"], a["w_hh"])
    matrices = [spec for spec in params if len(spec.shape) == 2]
    # A cell takes one step, for a batch; the others take a sequence of them.
    inputs = math.prod(source.shape[:-1])
    length = 1
    if "params" in a and len(source.shape) > 1:
        length = source.shape[1 if len(source.shape) == 3 and a.get("batch_first") else 0]
    # One pair of matrices per layer and direction: that of the inputs, which all steps share,
    # and that of the state, which every step multiplies anew.
    pairs = max(len(matrices) // 2, 1)
    inner = sum(spec.shape[1] for spec in matrices[1::2]) / pairs
    columns = sum(spec.shape[0] for spec in matrices[1::2]) / pairs
    return Computation(
        2.0 * inputs * sum(map(elements, matrices)),
        *(1, inputs / max(length, 1), inner, columns),
        steps=length * pairs,
    )


def _lines(flops: float, total: int, columns: int, window: int = 1, stride: int = 1) -> Computation:
    """Of a pass over `total` elements, in lines of `columns`."""
    columns = max(columns, 1)
    return Computation(flops, 1, total / columns, 1, columns, window=window, stride=stride)


def _last(spec: TensorSpec) -> int:
    return spec.shape[-1] if spec.shape else 1


def _pool(a: Arguments, read: Specs, made: Specs) -> Computation:
    window, source, total = a.get("kernel_size"), elements(read[0]), elements(made[0])
    if window is None:
        # A line is what becomes one element, or is made of a line.
        if total < source:
            return _lines(float(source), source, source // max(total, 1))
        if "scale_factors" in a and len(made[0].shape) == 4 and is_small_map(made[0]):
            # A line is a pixel's channels then, which lie a whole map apart before and after.
            return _lines(float(total), total, made[0].shape[1])
        return _lines(float(total), total, _last(made[0]))
    dimensions = len(read[0].shape) - 2
    size = product_of_sides(window, dimensions)
    stride = product_of_sides(a.get("stride") or window, dimensions)
    return _lines(float(total * size), total, _last(made[0]), size, stride)


def _normalised(a: Arguments, _read: Specs, made: Specs) -> Computation:
    total = elements(made[0])
    if "normalized_shape" in a:
        columns = math.prod(a["normalized_shape"])
    else:
        columns = math.prod(made[0].shape[2:])
    return _lines(5.0 * total, total, columns)


def _softmax(_a: Arguments, _read: Specs, made: Specs) -> Computation:
    return _lines(5.0 * elements(made[0]), elements(made[0]), _last(made[0]))


def _looked_up(_a: Arguments, _read: Specs, made: Specs) -> Computation:
    return _lines(0.0, elements(made[0]), _last(made[0]))


def _elementwise(_a: Arguments, read: Specs, made: Specs) -> Computation:
    total = sum(map(elements, made))
    return _lines(float(total), total, min((_run(spec, made[0]) for spec in read), default=total))


def _run(spec: TensorSpec, made: TensorSpec) -> int:
    """Elements of `made` that follow each other and take equally many of `spec`, or a single one.

    Where a tensor is stretched to the shape of another, that is the inner loop.
    """
    shape = (1,) * (len(made.shape) - len(spec.shape)) + spec.shape
    run, stretched = 1, None
    for mine, whole in zip(reversed(shape), reversed(made.shape), strict=True):
        if whole != 1:
            if stretched not in (None, mine != whole):
                break
            stretched = mine != whole
        run *= whole
    return run


def _moved(a: Arguments, read: Specs, made: Specs) -> Computation:
    if "tensors" in a and read and made:
        # A concatenation copies as many lines as there are pieces before the dimension.
        before = math.prod(made[0].shape[: _axis(a.get("dim"), len(made[0].shape))])
        pieces = max(before * len(read), 1)
        total = elements(made[0])
        return Computation(0.0, 1, pieces, 1, total / pieces)
    total = sum(map(elements, made))
    # A copy that joins dimensions copies the lines that it reads.
    joins = len(read) == 1 and elements(read[0]) == total
    lines = read if joins else made
    return _lines(0.0, total, _last(lines[0]) if lines else 1)


def _axis(dim: Any, dimensions: int) -> int:
    return dim % dimensions if isinstance(dim, int) and dimensions else 0


_BY_KIND: dict[str, Callable[[Arguments, Specs, Specs], Computation]] = {
    "conv": _conv,
    "depthwise_conv": _conv,
    "transposed_conv": _transposed_conv,
    "linear": _linear,
    "attention": _attention,
    "recurrent": _recurrent,
    "norm": _normalised,
    "pool": _pool,
    "softmax": _softmax,
    "embedding": _looked_up,
    "elementwise": _elementwise,
    "move": _moved,
}
