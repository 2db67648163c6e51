"""What an edge says it holds: read, or refused where it contradicts the graph or itself."""

from __future__ import annotations

import dataclasses

import pytest

from ionn_client.machine.inventory import Inventory, read_have
from layergraph.nodes import TensorSpec
from tests.support import ELEMENTS, chain
from wire import RemoteProtocolError, messages
from wire.planes import COARSE, FINE, MIDDLE, WHOLE

LAYERS = 4
GRAPH, _ = chain(LAYERS)
NONE = (LAYERS,)
row = messages.Partial


def have(runs: tuple[int, ...], *partial: messages.Partial) -> messages.Have:
    return messages.Have(GRAPH.fingerprint, "one", runs, partial)


@pytest.mark.parametrize(
    ("runs", "held"),
    [
        (NONE, set()),
        ((0, LAYERS), {0, 1, 2, 3}),
        ((1, 2, 1), {1, 2}),
        ((0, 1, 2, 1), {0, 3}),
        ((0, 0, 1, 0, 1, 2), {2, 3}),
    ],
)
def test_runs_alternate_between_lacking_and_held(runs: tuple[int, ...], held: set[int]) -> None:
    assert read_have(GRAPH, have(runs)) == Inventory(frozenset(held), {})


def test_partial_rows_are_told_by_weight_and_plane() -> None:
    told = have((0, 1, 3), row(1, WHOLE, 5), row(2, COARSE, ELEMENTS), row(2, MIDDLE, 1))
    assert read_have(GRAPH, told).partial == {
        (1, WHOLE): 5,
        (2, COARSE): ELEMENTS,
        (2, MIDDLE): 1,
    }


ALL_COARSE, ALL_MIDDLE = row(1, COARSE, ELEMENTS), row(1, MIDDLE, ELEMENTS)


@pytest.mark.parametrize(
    "lie",
    [
        have(()),
        have((LAYERS - 1,)),
        have((0, LAYERS + 1)),
        have(NONE, row(LAYERS, WHOLE, 1)),
        have(NONE, row(1, WHOLE, ELEMENTS)),
        have(NONE, row(1, WHOLE, ELEMENTS + 1)),
        have(NONE, row(1, COARSE, ELEMENTS + 1)),
        have(NONE, row(1, COARSE, 0)),
        have(NONE, row(1, 4, 1)),
        have(NONE, row(1, WHOLE, 1), row(1, WHOLE, 2)),
        have((1, 1, 2), row(1, WHOLE, 1)),
        have(NONE, row(1, WHOLE, 1), row(1, COARSE, 1)),
        have(NONE, row(1, MIDDLE, 1)),
        have(NONE, row(1, COARSE, ELEMENTS - 1), row(1, MIDDLE, 1)),
        have(NONE, ALL_COARSE, row(1, FINE, 1)),
        have(NONE, ALL_COARSE, row(1, MIDDLE, ELEMENTS - 1), row(1, FINE, 1)),
        have(NONE, ALL_COARSE, ALL_MIDDLE, row(1, FINE, ELEMENTS)),
        messages.Have("f" * 64, "one", NONE, ()),
    ],
)
def test_contradictions_are_refused(lie: messages.Have) -> None:
    with pytest.raises(RemoteProtocolError, match=r"weight|runs|another model"):
        read_have(GRAPH, lie)


def test_planes_of_a_weight_that_has_none_are_refused() -> None:
    weights = list(GRAPH.weights)
    weights[0] = dataclasses.replace(weights[0], spec=TensorSpec("int64", (8, 8)))
    integers = dataclasses.replace(GRAPH, weights=tuple(weights))
    lie = messages.Have(integers.fingerprint, "one", NONE, (row(0, COARSE, 1),))
    with pytest.raises(RemoteProtocolError, match="int64 has no plane 1"):
        read_have(integers, lie)
