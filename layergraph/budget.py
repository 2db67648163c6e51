"""What running a graph would take, in whole numbers, before anything is allocated for it.

Bounds from declared shapes, never too low: Python's integers do not overflow. For estimates to
regress on see `work`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from layergraph.errors import InvalidGraph
from layergraph.graph import DTYPE_BYTES, MAX_NODES, LayerGraph, Node, Ref, TensorSpec
from layergraph.ops import Operator

Specs: TypeAlias = Sequence[TensorSpec]
Arguments: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that one graph may take of the side that runs it.

    live_bytes: activations and workspace alive at once, weights apart. tensor_bytes: the largest
    tensor, a weight included. flops: operations of one run of all layers. nodes: operator calls.
    constant_bytes: constants that travel inside the graph.
    """

    live_bytes: int = 8 << 30
    tensor_bytes: int = 8 << 30
    flops: int = 10**13
    nodes: int = 20_000
    constant_bytes: int = 1 << 20


# For a model of one's own.
UNBOUNDED = Budget(1 << 62, 1 << 62, 1 << 80, MAX_NODES, 1 << 62)


@dataclass(frozen=True, slots=True)
class Cost:
    """Upper bounds for one operator call: operations, and bytes beside its arguments and results.

    Workspace is what torch 2.x's CPU kernels were seen to take (columns of a convolution, scores
    of attention, conversions); tests/fuzz_operators.py holds it against the allocator.
    """

    flops: int
    workspace_bytes: int


def place(index: int, node: Node) -> str:
    """How a message names a node."""
    return f"node {index}, {node.op} at {node.module or 'the model'}"


def check_declared(graph: LayerGraph, budget: Budget) -> None:
    """Raises InvalidGraph for too many nodes, constants too large, or any tensor too large."""
    if len(graph.nodes) > budget.nodes:
        raise InvalidGraph(f"{len(graph.nodes):,} nodes, more than {budget.nodes:,}")
    constant_bytes = sum(len(constant.data) for constant in graph.constants)
    if constant_bytes > budget.constant_bytes:
        raise InvalidGraph(
            f"inline constants of {constant_bytes:,} bytes, more than {budget.constant_bytes:,}"
        )
    given = [("an input", spec) for spec in graph.inputs]
    given += [(f"weight {weight.name}", weight.spec) for weight in graph.weights]
    given += [
        (f"{place(index, node)}: a result", spec)
        for index, node in enumerate(graph.nodes)
        for spec in node.outputs
        if spec is not None
    ]
    for what, spec in given:
        if spec.reach_bytes > budget.tensor_bytes:
            raise InvalidGraph(
                f"{what} is {spec}, {spec.reach_bytes:,} bytes, more than {budget.tensor_bytes:,}"
            )


def check_costs(
    graph: LayerGraph, operators: Sequence[Operator], costs: Sequence[Cost], budget: Budget
) -> None:
    """Raises InvalidGraph where a run takes more operations, or memory at once, than allowed."""
    flops = 0
    for index, cost in enumerate(costs):
        flops += cost.flops
        if flops > budget.flops:
            raise InvalidGraph(
                f"{place(index, graph.nodes[index])}: {flops:,} operations up to here,"
                f" more than {budget.flops:,} in one run"
            )
    for number, live in enumerate(_live_bytes(graph, operators, costs)):
        if live > budget.live_bytes:
            where = place(number - 1, graph.nodes[number - 1]) if number else "the inputs"
            raise InvalidGraph(
                f"{where}: {live:,} bytes alive at once, more than {budget.live_bytes:,}"
            )


def _live_bytes(
    graph: LayerGraph, operators: Sequence[Operator], costs: Sequence[Cost]
) -> Iterable[int]:
    """Bytes of the inputs, then bytes alive while each node runs.

    Each value counts whole: where a range starts, what were views of one tensor arrive as many.
    """
    sizes = [0 if spec is None else spec.nbytes for spec in graph.values]
    ends = _ends(graph, operators, sizes)
    dying: list[list[int]] = [[] for _ in range(len(graph.nodes) + 1)]
    for value, end in enumerate(ends):
        dying[end].append(value)
    live = sum(sizes[: len(graph.inputs)])
    yield live
    for index, node in enumerate(graph.nodes):
        first = graph.first_output[index]
        live += sum(sizes[first : first + len(node.outputs)])
        yield live + costs[index].workspace_bytes
        live -= sum(sizes[value] for value in dying[index])


def _ends(graph: LayerGraph, operators: Sequence[Operator], sizes: Sequence[int]) -> list[int]:
    """The node after which each value's memory is free; one beyond the last for results.

    A small view keeps the whole of a large tensor, so that one lives as long as the view.
    """
    last = len(graph.nodes)
    ends = [0] * len(graph.inputs)
    holds: list[int | None] = [None] * len(graph.inputs)
    for index, node in enumerate(graph.nodes):
        for argument in node.arguments():
            if isinstance(argument, Ref):
                ends[argument.value] = index
        ends.extend([index] * len(node.outputs))
        for number, source in enumerate(_viewed(operators[index], node)):
            made = graph.first_output[index] + number
            # A view as large as what it shows is counted instead of it.
            larger = source is not None and sizes[source] > sizes[made]
            holds.append(source if larger or source is None else holds[source])
    for argument in graph.outputs:
        if isinstance(argument, Ref):
            ends[argument.value] = last
    for value in reversed(range(len(ends))):
        held = holds[value]
        if held is not None:
            ends[held] = max(ends[held], ends[value])
    return ends


# Operators whose results may share memory with an argument though their schemas do not say so.
_SILENT_VIEWS = frozenset(
    f"aten.{name}"
    for name in (
        "type_as.default", "einsum.default", "broadcast_tensors.default",
        "meshgrid.default", "meshgrid.indexing",
    )
)  # fmt: skip


def is_view(operator: Operator) -> bool:
    """Whether a result may be a window on an argument's memory."""
    return operator.is_view or operator.name in _SILENT_VIEWS


def _viewed(operator: Operator, node: Node) -> Sequence[int | None]:
    """For each result the value that it may be a view of."""
    if not is_view(operator):
        return [None] * len(node.outputs)
    read = [a.value if isinstance(a, Ref) else None for a in node.arguments() if _is_tensor(a)]
    if "tensors" not in {parameter.name for parameter in operator.parameters}:
        return (read[:1] or [None]) * len(node.outputs)
    return [*read, *[None] * len(node.outputs)][: len(node.outputs)]


def _is_tensor(argument: object) -> bool:
    return hasattr(argument, "value") or hasattr(argument, "index")


def cost(operator: Operator, arguments: Arguments, made: Specs) -> Cost:
    """The bounds for a call with arguments by schema name, tensors as TensorSpec."""
    read = list(_specs(tuple(arguments.values())))
    bound = _BY_KIND.get(operator.kind, _passed)
    return bound(operator, arguments, read, made)


def _specs(value: Any) -> Iterable[TensorSpec]:
    if isinstance(value, TensorSpec):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _specs(item)


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
    indices = list(_specs((a.get("indices"), a.get("index"))))
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
