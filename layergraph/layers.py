"""Nodes into layers: a node that brings weights, and the weightless nodes that follow it."""

from __future__ import annotations

from collections.abc import Sequence

from layergraph.nodes import Layer, Node, Weight, WeightRef


def group_layers(nodes: Sequence[Node], weights: Sequence[Weight]) -> tuple[Layer, ...]:
    """The layers, named after the modules that own their weights; names are unique.

    Weightless nodes in front form a layer "input" of their own.
    """
    groups: list[tuple[int, dict[int, None]]] = []
    for index, node in enumerate(nodes):
        used = _weights_of(node)
        if not groups or (used and not used.keys() <= groups[-1][1].keys()):
            groups.append((index, used))
    groups = groups or [(0, {})]
    stops = [start for start, _ in groups[1:]] + [len(nodes)]
    taken: set[str] = set()
    layers = []
    for (start, used), stop in zip(groups, stops, strict=True):
        name = _name(nodes[start].module if nodes else "", [weights[i].name for i in used], taken)
        taken.add(name)
        layers.append(Layer(name, start, stop, tuple(used)))
    return tuple(layers)


def _weights_of(node: Node) -> dict[int, None]:
    return {a.index: None for a in node.arguments() if isinstance(a, WeightRef)}


def _name(module: str, weights: Sequence[str], taken: set[str]) -> str:
    owner = weights[0].rpartition(".")[0] if weights else ""
    if not weights:
        candidates = ["input"]
    elif owner == "_folded":
        candidates = [module]
    else:
        # A parameter that a block owns itself is better known by its own name.
        candidates = [module, owner, weights[0]]
    for candidate in candidates:
        if candidate and candidate not in taken:
            return candidate
    stem = next(filter(None, candidates), "model")
    if stem not in taken:
        return stem
    number = 2
    while f"{stem}#{number}" in taken:
        number += 1
    return f"{stem}#{number}"
