"""Which layers stay on the device, whatever it costs: the first and last ones, for privacy.

What an edge computes, it sees. Of layers that are kept it gets neither weights nor a turn, so it
sees what comes out of the first ones and not what went in, and not the answer.
"""

from __future__ import annotations

from dataclasses import replace

from layergraph import LayerGraph
from layergraph.nodes import ConstantRef

KeepLocal = tuple[int, int]


def checked_keep_local(given: object) -> KeepLocal:
    """(first, last) layers to keep. Raises ValueError for anything but two whole numbers from 0."""
    if (
        not isinstance(given, tuple)
        or len(given) != 2
        or any(isinstance(count, bool) or not isinstance(count, int) for count in given)
        or min(given) < 0
    ):
        raise ValueError(
            f"keep_local is how many first and last layers to keep, like (2, 1), not {given!r:.80}"
        )
    return given


def parse_keep_local(text: str) -> KeepLocal:
    """From "2,1" or "2". Raises ValueError that names the option."""
    first, _, last = text.partition(",")
    try:
        return checked_keep_local((int(first), int(last or 0)))
    except ValueError:
        raise ValueError(
            f"--keep-local is how many first and last layers to keep, like 2,1, not {text!r:.80}"
        ) from None


def kept_layers(graph: LayerGraph, keep_local: KeepLocal) -> frozenset[int]:
    """The layers that stay, weightless ones included.

    More than were asked for where fewer would tell: with first layers kept, all until one has
    weights and until nothing needs the raw input any more; and those that share a weight with a
    layer that is kept. Raises ValueError for more layers than there are.
    """
    first, last = checked_keep_local(keep_local)
    count = len(graph.layers)
    if max(first, last) > count:
        raise ValueError(f"keep_local is {keep_local}, and the model has {count} layers")
    if first:
        weighted = [index for index, layer in enumerate(graph.layers) if layer.weights]
        first = max(first, weighted[0] + 1 if weighted else 0)
        while first < count and any(value < len(graph.inputs) for value in graph.cuts[first]):
            first += 1
    kept = {*range(first), *range(count - last, count)}
    while grown := _sharing(graph, kept) - kept:
        kept |= grown
    return frozenset(kept)


def _sharing(graph: LayerGraph, kept: set[int]) -> set[int]:
    secret = {graph.weights[w].digest for index in kept for w in graph.layers[index].weights}
    return {
        index
        for index, layer in enumerate(graph.layers)
        if any(graph.weights[w].digest in secret for w in layer.weights)
    }


def shown_graph(graph: LayerGraph, kept: frozenset[int]) -> LayerGraph:
    """The graph as the edge may see it: small constants that only kept layers use are zeros.

    Capture computes some of these from weights.
    """
    used_by: dict[int, set[int]] = {}
    for index, layer in enumerate(graph.layers):
        for node in graph.nodes[layer.start : layer.stop]:
            for argument in node.arguments():
                if isinstance(argument, ConstantRef):
                    used_by.setdefault(argument.index, set()).add(index)
    hidden = {constant for constant, layers in used_by.items() if layers <= kept}
    constants = tuple(
        replace(constant, data=bytes(len(constant.data))) if index in hidden else constant
        for index, constant in enumerate(graph.constants)
    )
    return replace(graph, constants=constants) if hidden else graph
