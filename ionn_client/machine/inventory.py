"""What an edge says it holds of a model, read from Have and checked against the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from layergraph import LayerGraph
from wire import RemoteProtocolError, messages
from wire.planes import COARSE, FINE, MIDDLE, WHOLE, progressive_planes


@dataclass(frozen=True, slots=True)
class Inventory:
    """`held`: numbers of the weights that are whole and verified. `partial`: of the others,
    how many leading elements of a (weight, plane) are there; never none.
    """

    held: frozenset[int]
    partial: Mapping[tuple[int, int], int]


def read_have(graph: LayerGraph, have: messages.Have) -> Inventory:
    """What a Have tells of the graph's weights.

    Raises RemoteProtocolError where it contradicts the graph or itself: runs that do not add up,
    a plane that the weight does not have, more elements than there are, a plane that is there
    before the one that it refines, or rows for a held weight.
    """
    if have.fingerprint != graph.fingerprint:
        raise RemoteProtocolError("the edge answered for another model")
    held = _held(len(graph.weights), have.runs)
    partial: dict[tuple[int, int], int] = {}
    for row in have.partial:
        item = (row.weight, row.plane)
        if item in partial or row.weight in held:
            raise RemoteProtocolError(f"weight {row.weight} is told of twice")
        _check_row(graph, row)
        partial[item] = row.count
    for weight in {weight for weight, _ in partial}:
        _check_planes(graph, weight, partial)
    return Inventory(held, partial)


def _held(weights: int, runs: tuple[int, ...]) -> frozenset[int]:
    if sum(runs) != weights:
        raise RemoteProtocolError(f"runs of {sum(runs)} weights for a model of {weights}")
    held: set[int] = set()
    start = 0
    for index, length in enumerate(runs):
        if index % 2:
            held.update(range(start, start + length))
        start += length
    return frozenset(held)


def _check_row(graph: LayerGraph, row: messages.Partial) -> None:
    if not 0 <= row.weight < len(graph.weights):
        raise RemoteProtocolError(f"the model has no weight {row.weight}")
    spec = graph.weights[row.weight].spec
    planes = progressive_planes(spec.dtype)
    if row.plane != WHOLE and row.plane not in planes:
        raise RemoteProtocolError(f"a weight of {spec.dtype} has no plane {row.plane}")
    # A weight with all of its last plane is held, and then not told of here.
    most = prod(spec.shape) - (row.plane in (WHOLE, FINE))
    if not 1 <= row.count <= most:
        raise RemoteProtocolError(
            f"{row.count} elements of weight {row.weight}, which has {most} at most"
        )


def _check_planes(graph: LayerGraph, weight: int, partial: Mapping[tuple[int, int], int]) -> None:
    elements = prod(graph.weights[weight].spec.shape)
    counts = {plane: partial.get((weight, plane), 0) for plane in (COARSE, MIDDLE, FINE)}
    if (weight, WHOLE) in partial and any(counts.values()):
        raise RemoteProtocolError(f"weight {weight} is there both whole and by planes")
    for plane, before in ((MIDDLE, COARSE), (FINE, MIDDLE)):
        if counts[plane] and counts[before] < elements:
            raise RemoteProtocolError(
                f"weight {weight} has plane {plane} before all of plane {before}"
            )
