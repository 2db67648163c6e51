"""What running a graph would take, in whole numbers, before anything is allocated for it.

From declared shapes alone, by Python's integers, which do not overflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from layergraph.bounds import Cost
from layergraph.errors import InvalidGraph
from layergraph.graph import MAX_NODES, LayerGraph
from layergraph.nodes import Node, Ref
from layergraph.ops import Operator


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
