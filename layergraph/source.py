"""The Python function that runs one range of layers, and its text.

The text holds only names made here; operators, numbers and strings from the graph are objects in
its namespace, never text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from layergraph.bfloat16 import by_either, product_weight
from layergraph.binding import bind
from layergraph.errors import InvalidGraph, UnsupportedOperator
from layergraph.graph import LayerGraph
from layergraph.nodes import Argument, ConstantRef, Node, Ref, Symbol, WeightRef
from layergraph.ops import OPERATORS, Operator
from layergraph.symbols import symbol_value

# Of the live tensors and the range's weights.
RangeFunction: TypeAlias = Callable[
    [Sequence[torch.Tensor], Sequence[torch.Tensor]], tuple[torch.Tensor, ...]
]


class Source:
    """The text of one range's function and the objects that its names stand for."""

    def __init__(
        self,
        graph: LayerGraph,
        constants: list[torch.Tensor],
        device: torch.device,
        roundable: frozenset[int] = frozenset(),
    ) -> None:
        self._graph = graph
        self._constants = constants
        self._device = device
        self._roundable = roundable
        # Bare, but for what torch's C code asks its caller's globals for: it imports Python
        # modules on first use.
        self._names: dict[str, Any] = {"__builtins__": {"__import__": __import__}}
        self._functions: dict[tuple[str, bool], str] = {}
        self.weights: dict[int, None] = {}
        self.nodes = 0

    def build(self, start: int, stop: int) -> RangeFunction:
        graph = self._graph
        taken, given = graph.cuts[start], graph.cuts[stop]
        nodes = range(
            graph.layers[start].start if start < len(graph.layers) else len(graph.nodes),
            graph.layers[stop].start if stop < len(graph.layers) else len(graph.nodes),
        )
        self.nodes = len(nodes)
        dead_after = self._dead_after(nodes, taken, given)
        body: list[str] = []
        for index in nodes:
            body.append(self._call(index, graph.nodes[index]))
            if dead_after[index]:
                body.append(f"del {', '.join(f'v{value}' for value in dead_after[index])}")
        body.append(f"return ({_list([f'v{value}' for value in given])})")
        head = ["def run(live, weights):"]
        if taken:
            head.append(f" ({_list([f'v{value}' for value in taken])}) = live")
        head.append(" del live")
        if self.weights:
            head.append(f" ({_list([f'w{index}' for index in self.weights])}) = weights")
        text = "\n".join([*head, *(f" {line}" for line in body)])
        exec(compile(text, f"<layers {start} to {stop}>", "exec"), self._names)
        function: RangeFunction = self._names["run"]
        return function

    def _dead_after(
        self, nodes: range, taken: Sequence[int], given: Sequence[int]
    ) -> dict[int, list[int]]:
        """Values to drop after each node: last used there, or never used at all."""
        last: dict[int, int] = {}
        for index in nodes:
            first = self._graph.first_output[index]
            for value in range(first, first + len(self._graph.nodes[index].outputs)):
                last[value] = index
            for argument in self._graph.nodes[index].arguments():
                if isinstance(argument, Ref):
                    last[argument.value] = index
        dead: dict[int, list[int]] = {index: [] for index in nodes}
        kept = set(given)
        for value, index in last.items():
            if value not in kept:
                dead[index].append(value)
        assert all(value in last or value in kept for value in taken)
        return dead

    def _call(self, index: int, node: Node) -> str:
        operator = OPERATORS.get(node.op)
        if operator is None:
            raise UnsupportedOperator(f"{node.op} at {node.module or 'the model'}")
        try:
            arguments = bind(operator, node)
        except ValueError as error:
            raise InvalidGraph(f"node {index}, {node.op}: {error}") from None
        given = [p for p in operator.parameters if not p.keyword_only][: len(node.args)]
        parts = [self._argument(arguments[p.name]) for p in given]
        named = {name for name, _ in node.kwargs}
        # The keyword's text comes from our table, not from the graph.
        parts.extend(
            f"{p.name}={self._argument(arguments[p.name])}"
            for p in operator.parameters
            if p.name in named
        )
        first = self._graph.first_output[index]
        outputs = [f"v{first + number}" for number in range(len(node.outputs))]
        target = f"({_list(outputs)})" if operator.returns_many else outputs[0]
        return f"{target} = {self._function(node, operator)}({', '.join(parts)})"

    def _function(self, node: Node, operator: Operator) -> str:
        rounds = product_weight(node) in self._roundable
        known = (node.op, rounds)
        if known not in self._functions:
            self._functions[known] = name = f"f{len(self._functions)}"
            self._names[name] = by_either(operator.call) if rounds else operator.call
        return self._functions[known]

    def _argument(self, argument: Argument) -> str:
        match argument:
            case Ref(value):
                return f"v{value}"
            case WeightRef(index):
                self.weights[index] = None
                return f"w{index}"
            case ConstantRef(index):
                self._names[f"c{index}"] = self._constants[index]
                return f"c{index}"
            case tuple() if any(map(_holds_tensor, argument)):
                return f"[{', '.join(self._argument(item) for item in argument)}]"
            case _:
                name = f"k{len(self._names)}"
                self._names[name] = self._literal(argument)
                return name

    def _literal(self, argument: Argument) -> Any:
        if isinstance(argument, Symbol):
            return symbol_value(argument, self._device)
        if isinstance(argument, tuple):
            return [self._literal(item) for item in argument]
        return argument


def _holds_tensor(argument: Argument) -> bool:
    if isinstance(argument, tuple):
        return any(map(_holds_tensor, argument))
    return isinstance(argument, Ref | WeightRef | ConstantRef)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) + ("," if names else "")
