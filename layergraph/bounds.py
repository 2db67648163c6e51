"""Upper bounds of what one operator call takes, in whole numbers, from shapes alone.

For estimates to regress on see `work`; those may be too low, these must not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from layergraph.binding import specs_in
from layergraph.nodes import DTYPE_BYTES, TensorSpec
from layergraph.ops import Operator

Specs: TypeAlias = Sequence[TensorSpec]
Arguments: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cost:
    """Upper bounds for one operator call: operations, and bytes beside its arguments and results.

    Workspace is what torch 2.x's CPU kernels were seen to take (columns of a convolution, scores
    of attention, conversions); tests/fuzz_operators.py holds it against the allocator.
    """

    flops: int
    workspace_bytes: int


def cost(operator: Operator, arguments: Arguments, made: Specs) -> Cost:
    """The bounds for a call with arguments by schema name, tensors as TensorSpec."""
    read = list(specs_in(tuple(arguments.values())))
    bound = _BY_KIND.get(operator.kind, _passed)
    return bound(operator, arguments, read, made)


def _volume(sizes: Iterable[int]) -> int:
    """Elements, empty dimensions taken as 1: kernels loop over the others anyway."""
    return math.prod(max(size, 1) for size in sizes)


def _count(*specs: TensorSpec) -> int:
    return sum(_volume(spec.shape) for spec in specs)


def _item_bytes(specs: Iterable[TensorSpec]) -> int:
    # Kernels compute in no less than 32 bits.
    return max([4, *(DTYPE_BYTES[spec.dtype] for spec in specs)])


def _sides(value: int | Sequence[int], dimensions: int) -> list[int]:
    """A single number stands for as many equal ones."""
    sides = [value] if isinstance(value, int) else list(value)
    return sides * dimensions if len(sides) == 1 else sides


def _conv(_operator: Operator, a: Arguments, read: Specs, made: Specs) -> Cost:
    weight, source = a["weight"], a["input"]
    inner, size = _volume(weight.shape[1:]), _item_bytes(read)
    total = _count(*made)
    columns = total // max(weight.shape[0], 1) * inner * max(a["groups"], 1)
    if isinstance(a["padding"], str):
        dimensions = len(weight.shape) - 2
        reach = zip(weight.shape[2:], _sides(a["dilation"], dimensions), strict=False)
        added = [(side - 1) * dilation for side, dilation in reach]
        pairs = zip(source.shape[-dimensions:], added, strict=False)
        columns += _volume(source.shape[:-dimensions]) * _volume(s + more for s, more in pairs)
    # Vectorised kernels reorder what they read and write, in blocks of channels.
    return Cost(2 * total * inner, (columns + 2 * _count(*read, *made)) * size)


def _transposed_conv(_operator: Operator, a: Arguments, read: Specs, made: Specs) -> Cost:
    weight, source, size = a["weight"], a["input"], _item_bytes(read)
    columns = _count(source) // max(weight.shape[0], 1) * _volume(weight.shape[1:])
    flops = 2 * _count(source) * _volume(weight.shape[1:]) + _count(*made)
    return Cost(flops, (columns * max(a["groups"], 1) + 2 * _count(*read, *made)) * size)


def _linear(_operator: Operator, a: Arguments, read: Specs, made: Specs) -> Cost:
    size = _item_bytes(read)
    if "equation" in a:
        return _einsum(a["equation"], read, made, size)
    left, right = (read[0], read[1]) if len(read) == 2 or "weight" in a else (read[1], read[2])
    inner = left.shape[-1] if left.shape else 1
    rows = left.shape[-2] if len(left.shape) > 1 else 1
    columns = right.shape[-1] if len(right.shape) > 1 else 1
    # Stretched operands of a batch become dense first.
    batch = _volume(made[0].shape[:-2]) if "other" in a else 0
    stretched = batch * _volume((inner,)) * (_volume((rows,)) + _volume((columns,)))
    return Cost(
        2 * _count(*made) * max(inner, 1), (stretched + _count(left, right) + _count(*made)) * size
    )


def _einsum(equation: str, read: Specs, made: Specs, size: int) -> Cost:
    """Every index runs over its whole extent, at worst in one product of all operands."""
    extents: dict[str, int] = {}
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    broadcast = 1
    for term, spec in zip(terms, read, strict=False):
        before, _, after = term.partition("...")
        head, tail = len(before), len(spec.shape) - len(after)
        ends = (
            *zip(before, spec.shape, strict=False),
            *zip(after, spec.shape[tail:], strict=False),
        )
        for letter, extent in ends:
            extents[letter] = max(extents.get(letter, 1), extent)
        broadcast = max(broadcast, _volume(spec.shape[head:tail]) if "..." in term else 1)
    whole = max(_volume(extents.values()) * broadcast, _count(*read, *made))
    pairs = max(len(read) - 1, 1)
    # Two operands meet in one batched product; more of them leave products in between.
    between = whole if len(read) > 2 else 0
    return Cost(2 * whole * pairs, (2 * between + 2 * _count(*read, *made)) * size)


def _attention(_operator: Operator, a: Arguments, read: Specs, made: Specs) -> Cost:
    key, value, size = a["key"], a["value"], _item_bytes(read)
    batch = _volume(made[0].shape[:-2])
    scores = batch * _volume((*made[0].shape[-2:-1], key.shape[-2]))
    features = max(key.shape[-1], 1) + max(value.shape[-1], 1)
    heads = batch * max(key.shape[-2], 1) * features
    return Cost(2 * scores * features, (3 * scores + heads + 2 * _count(*read, *made)) * size)


# A step of a recurrent layer takes as long as so many operations, however little it computes.
_STEP_FLOPS = 1 << 16


def _recurrent(_operator: Operator, a: Arguments, read: Specs, made: Specs) -> Cost:
    source, size = a["input"], _item_bytes(read)
    matrices = [spec for spec in a.get("params", read) if len(spec.shape) == 2]
    rows = _volume(source.shape[:-1])
    steps = max(source.shape[:-1], default=1) if "params" in a else 1
    flops = 2 * rows * _count(*matrices) + steps * len(matrices) * _STEP_FLOPS
    gates = rows * sum(max(spec.shape) for spec in matrices)
    return Cost(flops, (gates + 2 * _count(*read, *made)) * size)


def _reduced(operator: Operator, a: Arguments, read: Specs, made: Specs) -> Cost:
    """Pools, norms and softmaxes: some passes, with a few copies in a wider type."""
    window = 4
    if a.get("kernel_size") is not None:
        found = re.search(r"(\d)d", operator.name)
        window = _volume(_sides(a["kernel_size"], int(found[1]) if found else 3))
        window = min(window, _count(read[0]))
    elif operator.name.split(".")[1] in _HEAVY:
        window = 64
    total, largest = _count(*read, *made), max(map(_count, [*read, *made]))
    return Cost(total + window * total, 4 * _item_bytes([*read, *made]) * largest)


# Logarithms of lengths, and neighbourhoods of pixels.
_HEAVY = frozenset({
    "topk", "sort", "argsort", "fft_rfft", "fft_irfft", "fft_fft", "fft_ifft", "stft",
    "grid_sampler", "upsample_nearest1d", "upsample_nearest2d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d",
})  # fmt: skip


def _looked_up(_operator: Operator, a: Arguments, _read: Specs, made: Specs) -> Cost:
    """Only as many rows of the table are read as the indices say."""
    indices = list(specs_in((a.get("indices"), a.get("index"))))
    total = _count(*made, *indices)
    return Cost(4 * total, 2 * _item_bytes([*made, *indices]) * total)


def _passed(operator: Operator, a: Arguments, read: Specs, made: Specs) -> Cost:
    """Elementwise operators and moves: a pass, or as many as they say, and two copies at most."""
    if operator.is_view:
        return Cost(_count(*made), 0)
    total = _count(*read, *made)
    largest = max(map(_count, [*read, *made]), default=0)
    turns = len(_sides(a["shifts"], 1)) if "shifts" in a else 1
    turns = a["n"] if operator.name == "aten.diff.default" else turns
    return Cost(max(turns, 1) * total, 2 * _item_bytes([*read, *made]) * largest)


_BY_KIND = {
    "conv": _conv,
    "transposed_conv": _transposed_conv,
    "linear": _linear,
    "attention": _attention,
    "recurrent": _recurrent,
    "norm": _reduced,
    "pool": _reduced,
    "softmax": _reduced,
    "embedding": _looked_up,
}
