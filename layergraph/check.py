"""Whether a graph may run here: known operators, fitting arguments, honest shapes.

The graph may come from a peer. Nothing is allocated for it: what it declares is held against a
budget in whole numbers; then every shape is recomputed with fake tensors, and compared.
"""

from __future__ import annotations

from layergraph.binding import bind, resolve
from layergraph.bounds import Cost, cost
from layergraph.budget import Budget, check_costs, check_declared, place
from layergraph.errors import InvalidGraph, UnsupportedOperator
from layergraph.graph import LayerGraph
from layergraph.nodes import Node, Ref, TensorSpec
from layergraph.ops import FIRST_RESULT_ONLY, OPERATORS, Operator
from layergraph.shapes import made_by

DEFAULT_BUDGET = Budget()


def check_graph(graph: LayerGraph, budget: Budget = DEFAULT_BUDGET) -> None:
    """Accepts a graph that this side can run within `budget`, and allocates nothing.

    Every operator is in the table, its arguments fit its schema and its validator, and the
    shapes that follow from the inputs are the declared ones. Raises UnsupportedOperator for an
    operator that is missing, InvalidGraph for everything else, with the node and the quantity.
    """
    check_arguments(graph, budget)
    _check_shapes(graph)


def check_arguments(graph: LayerGraph, budget: Budget) -> None:
    """The part of `check_graph` before torch sees anything: all of it but what the results are."""
    check_declared(graph, budget)
    operators = [_operator(index, node) for index, node in enumerate(graph.nodes)]
    nodes = enumerate(zip(graph.nodes, operators, strict=True))
    costs = [_check_node(graph, index, node, operator) for index, (node, operator) in nodes]
    check_costs(graph, operators, costs, budget)
    _check_by_products(graph)


def _check_by_products(graph: LayerGraph) -> None:
    unknown = {
        graph.first_output[index] + number
        for index, node in enumerate(graph.nodes)
        if node.op in FIRST_RESULT_ONLY
        for number in range(1, len(node.outputs))
    }
    used = {"the model": graph.outputs}
    used.update((place(i, node), tuple(node.arguments())) for i, node in enumerate(graph.nodes))
    for where, arguments in used.items():
        if any(isinstance(a, Ref) and a.value in unknown for a in arguments):
            raise InvalidGraph(f"{where} uses a result whose shape cannot be known beforehand")


def _operator(index: int, node: Node) -> Operator:
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise UnsupportedOperator(
            f"{node.op} at {node.module or 'the model'} is not in the operator table"
        )
    if not operator.returns_many and (len(node.outputs) != 1 or node.outputs[0] is None):
        raise InvalidGraph(
            f"{place(index, node)}: {len(node.outputs)} outputs declared, it makes one"
        )
    return operator


def _check_node(graph: LayerGraph, index: int, node: Node, operator: Operator) -> Cost:
    try:
        arguments = bind(operator, node)
        resolved = {name: resolve(graph, value) for name, value in arguments.items()}
        if operator.check is not None:
            operator.check(resolved)
    except ValueError as error:
        raise InvalidGraph(f"{place(index, node)}: {error}") from None
    return cost(operator, resolved, [spec for spec in node.outputs if spec is not None])


def _check_shapes(graph: LayerGraph) -> None:
    for index, got in enumerate(made_by(graph)):
        node = graph.nodes[index]
        if got != node.outputs:
            raise InvalidGraph(
                f"{place(index, node)}: declares {_specs(node.outputs)}, makes {_specs(got)}"
            )


def _specs(specs: tuple[TensorSpec | None, ...]) -> str:
    return ", ".join(map(str, specs))
