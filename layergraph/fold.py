"""What does not depend on the inputs is computed once, at capture.

Masks, positions, relative-position tables, weight normalisation. The result is stored as a
weight where that adds little to what has to be uploaded, else its nodes stay in the graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from layergraph.errors import UnsupportedOperator
from layergraph.ops import OPERATORS
from layergraph.rewrite import place

INLINE_BYTES = 4096
_GENERATED_BYTES = 1 << 20
_GROWTH = 2


def fold_constants(module: GraphModule, tensors: dict[Node, torch.Tensor]) -> None:
    """Replaces input-independent subgraphs by placeholders, added to `tensors`.

    `tensors` holds the placeholders whose values are known. Raises UnsupportedOperator for
    randomness.
    """
    folder = _Folder(tensors)
    for node in module.graph.nodes:
        folder.visit(node)
    for node in folder.results():
        value = folder.values[node]
        with module.graph.inserting_before(node):
            constant = module.graph.create_node("placeholder", f"_folded_{len(tensors)}")
        constant.meta = dict(node.meta)
        tensors[constant] = value
        node.replace_all_uses_with(constant)
    # Unused placeholders are no part of what is translated, so they may stay.
    module.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))


class _Folder:
    def __init__(self, tensors: dict[Node, torch.Tensor]) -> None:
        self.values: dict[Node, Any] = dict(tensors)
        self._weights = tensors
        self._edge: dict[Node, None] = {}

    def visit(self, node: Node) -> None:
        inputs = node.all_input_nodes
        if node.op == "call_function":
            _refuse_randomness(node)
            if all(source in self.values for source in inputs):
                self.values[node] = _compute(node, self.values)
                return
        for source in inputs:
            if source in self.values and source not in self._weights:
                self._edge[source] = None

    def results(self) -> list[Node]:
        """The nodes to replace: each is known, wanted by a node that is not, and worth it."""
        chosen: list[Node] = []
        pending = list(self._edge)
        seen: set[Node] = set()
        while pending:
            node = pending.pop()
            if node in seen or node in self._weights:
                continue
            seen.add(node)
            if self._pays(node):
                chosen.append(node)
            else:
                pending.extend(node.all_input_nodes)
        return chosen

    def _pays(self, node: Node) -> bool:
        value = self.values[node]
        if not isinstance(value, torch.Tensor) or not _is_dense(value):
            return False
        if isinstance(node.target, torch._ops.OpOverload) and str(node.target) not in OPERATORS:
            return True
        sources = self._sources(node)
        storage = value.untyped_storage().data_ptr()
        if any(self._weights[s].untyped_storage().data_ptr() == storage for s in sources):
            return False
        if value.nbytes <= INLINE_BYTES:
            return True
        if not sources:
            return value.nbytes <= _GENERATED_BYTES
        freed = sum(
            self._weights[s].nbytes for s in sources if all(user in self.values for user in s.users)
        )
        return value.nbytes <= _GROWTH * freed

    def _sources(self, node: Node) -> set[Node]:
        found: set[Node] = set()
        pending, seen = [node], set()
        while pending:
            current = pending.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in self._weights:
                found.add(current)
            else:
                pending.extend(current.all_input_nodes)
        return found


def _compute(node: Node, values: dict[Node, Any]) -> Any:
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _is_dense(tensor: torch.Tensor) -> bool:
    return bool(torch.ops.aten.is_non_overlapping_and_dense.default(tensor))


def _refuse_randomness(node: Node) -> None:
    tags = getattr(node.target, "tags", ())
    # Those in the table draw only in training mode, which their validators refuse.
    if torch.Tag.nondeterministic_seeded in tags and str(node.target) not in OPERATORS:
        raise UnsupportedOperator(
            f"{place(node)} draws random numbers, so that two sides would differ. Make them an"
            " input of the model"
        )
