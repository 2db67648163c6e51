"""Which piece goes next: property tests against a model of an edge that receives them."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_client.machine.inventory import Inventory
from ionn_client.machine.upload import Step, Upload
from layergraph import LayerGraph
from tests.support import ELEMENTS, WIDTH, chain
from wire import PRECISIONS, RemoteProtocolError, messages
from wire.planes import COARSE, FINE, MIDDLE, WHOLE

LAYERS = 4
SIZE = WIDTH * WIDTH * 4
GRAPH, WEIGHTS = chain(LAYERS)
NOTHING = Inventory(frozenset(), {})


def tied() -> LayerGraph:
    """The chain with its last weight the same bytes as its first."""
    weights = list(GRAPH.weights)
    weights[3] = dataclasses.replace(weights[3], digest=weights[0].digest)
    return dataclasses.replace(GRAPH, weights=tuple(weights))


class Receiver:
    """An edge that stores what it is sent: elements per weight and plane."""

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}

    def take(self, upload: Upload, pieces: int, coded_bytes: int = 100) -> list[messages.Held]:
        answers = []
        for _ in range(pieces):
            piece = next(upload.pieces(), None)
            if piece is None:
                break
            upload.announce(piece, coded_bytes)
            upload.advance(coded_bytes)
            assert piece.start == self.held.get((piece.weight, piece.plane), 0), "a gap"
            self.held[piece.weight, piece.plane] = piece.stop
            answers.append(self._answer(upload, piece.weight, piece.plane, piece.stop))
        return answers

    def _answer(self, upload: Upload, weight: int, plane: int, stop: int) -> messages.Held:
        last = plane in (WHOLE, FINE) and stop == ELEMENTS
        held = messages.Held(weight, plane, stop, last)
        upload.held(held)
        return held

    @property
    def inventory(self) -> Inventory:
        held = {
            w for (w, plane), n in self.held.items() if plane in (WHOLE, FINE) and n == ELEMENTS
        }
        partial = {item: n for item, n in self.held.items() if item[0] not in held and n}
        return Inventory(frozenset(held), partial)


def steps(layers: list[int], plane: int = WHOLE) -> list[list[Step]]:
    return [[(layer, plane)] for layer in layers]


def joint(order: list[int]) -> list[list[Step]]:
    return [part for plane in (COARSE, MIDDLE, FINE) for part in steps(order, plane)]


@pytest.mark.parametrize("precision", ["exact", "progressive"])
@given(
    st.permutations(range(LAYERS)),
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=12),
    st.integers(1, ELEMENTS),
)
def test_every_element_arrives_once_whatever_the_plans_and_breaks(
    precision: str, order: list[int], events: list[tuple[int, bool]], most: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ionn_client.machine.upload.segment_elements", lambda *_: most)
        upload, edge = Upload(GRAPH, precision), Receiver()
        plan = steps if precision == "exact" else joint
        upload.follow(plan(order))
        before = 0
        for pieces, broken in events:
            edge.take(upload, pieces)
            if broken:
                assert upload.renegotiated(edge.inventory) == 0
            order = order[1:] + order[:1]
            upload.follow(plan(order))
            assert upload.held_bytes >= before
            before = upload.held_bytes
        edge.take(upload, 10**6)
    assert upload.done
    assert edge.inventory.held == set(range(LAYERS))
    assert upload.held_bytes == upload.total_bytes
    assert upload.pending_bytes == 0
    assert upload.resent_bytes == upload.skipped_bytes == 0
    assert upload.layers("exact") == set(range(LAYERS))


@given(st.integers(1, 100), st.integers(1, 100))
def test_an_unfinished_segment_is_sent_again_from_its_start_and_counted(
    coded_bytes: int, sent: int
) -> None:
    upload = Upload(GRAPH)
    upload.follow(steps([0]))
    sent = min(sent, coded_bytes)
    piece = next(upload.pieces())
    upload.announce(piece, coded_bytes)
    upload.advance(sent)
    assert upload.renegotiated(NOTHING) == sent * SIZE // coded_bytes
    upload.follow(steps([0]))
    assert next(upload.pieces()) == piece
    Receiver().take(upload, 1, coded_bytes)
    assert upload.sent_bytes == coded_bytes + sent
    assert abs(upload.resent_bytes - sent) <= 1


def test_a_segment_that_has_begun_keeps_its_place_whatever_the_plan() -> None:
    upload = Upload(GRAPH)
    upload.follow(steps([0, 1]))
    upload.announce(next(upload.pieces()), 50)
    upload.advance(10)
    upload.follow(steps([1]))
    assert next(upload.pieces()).weight == 1
    upload.advance(40)
    upload.held(messages.Held(0, WHOLE, ELEMENTS, True))
    assert upload.layers() == {0}


@pytest.mark.parametrize(
    "lie",
    [
        messages.Held(1, WHOLE, ELEMENTS, True),
        messages.Held(0, COARSE, ELEMENTS, False),
        messages.Held(0, WHOLE, ELEMENTS - 1, False),
        messages.Held(0, WHOLE, ELEMENTS, False),
    ],
)
def test_an_answer_that_does_not_fit_what_was_sent_is_refused(lie: messages.Held) -> None:
    upload = Upload(GRAPH)
    upload.follow(steps([0, 1]))
    truth = messages.Held(0, WHOLE, ELEMENTS, True)
    with pytest.raises(RemoteProtocolError, match="not sent so far"):
        upload.held(truth)
    upload.announce(next(upload.pieces()), 50)
    upload.advance(49)
    with pytest.raises(RemoteProtocolError, match="not sent so far"):
        upload.held(truth)
    upload.advance(1)
    assert upload.owed
    with pytest.raises(RemoteProtocolError, match="weight"):
        upload.held(lie)
    upload.held(truth)
    assert not upload.owed


@pytest.mark.parametrize("precision", ["exact", "progressive"])
def test_of_a_weight_that_somebody_else_completed_only_what_has_begun_is_sent(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ionn_client.machine.upload.segment_elements", lambda *_: ELEMENTS // 4)
    upload = Upload(GRAPH, precision)
    upload.follow(steps([0, 1]) if precision == "exact" else joint([0, 1]))
    pieces = upload.pieces()
    for piece in (next(pieces), next(pieces)):
        upload.announce(piece, 50)
        upload.advance(50 if piece.start == 0 else 10)
    done = messages.Held(0, piece.plane, ELEMENTS, True)
    upload.held(done)
    assert upload.layers() == {0}
    assert next(upload.pieces()).weight == 1
    upload.advance(40)
    for lie in (
        messages.Held(0, piece.plane, piece.stop, False),
        messages.Held(0, piece.plane, piece.stop, True),
    ):
        with pytest.raises(RemoteProtocolError, match="weight 0"):
            upload.held(lie)
    upload.held(done)
    assert not upload.in_flight
    begun = ELEMENTS // 2 * (4 if precision == "exact" else 1)
    assert (upload.skipped_bytes, upload.resent_bytes) == (SIZE - begun, 0)
    upload.renegotiated(Inventory(frozenset({0}), {}))
    assert upload.skipped_bytes == SIZE - begun


def test_layers_count_at_the_precision_that_all_of_their_weights_have() -> None:
    upload, edge = Upload(GRAPH, "progressive"), Receiver()
    upload.follow(joint([2]))
    seen = [{name: upload.layers(name) for name in PRECISIONS}]
    for _ in range(3):
        edge.take(upload, 1)
        seen.append({name: upload.layers(name) for name in PRECISIONS})
    nothing, layer = frozenset(), frozenset({2})
    assert [tuple(at.values()) for at in seen] == [
        (nothing, nothing, nothing),
        (layer, nothing, nothing),
        (layer, layer, nothing),
        (layer, layer, layer),
    ]


def test_a_weight_goes_on_as_it_began() -> None:
    progressive = Upload(GRAPH, "progressive")
    progressive.renegotiated(Inventory(frozenset(), {(1, WHOLE): 5}))
    progressive.follow(joint([1]))
    assert [(p.plane, p.start) for p in progressive.pieces()] == [(WHOLE, 5)]
    exact = Upload(GRAPH)
    exact.renegotiated(Inventory(frozenset(), {(1, COARSE): 5}))
    exact.follow(steps([1]))
    assert [(p.plane, p.start) for p in exact.pieces()] == [(COARSE, 5), (MIDDLE, 0), (FINE, 0)]
    assert exact.skipped_bytes == 5


def test_a_finer_plane_is_never_sent_before_the_coarser_one() -> None:
    upload = Upload(GRAPH, "progressive")
    upload.follow(steps([3], FINE))
    assert [piece.plane for piece in upload.pieces()] == [COARSE, MIDDLE, FINE]


def test_what_will_cross_is_told_by_what_did() -> None:
    upload, edge = Upload(GRAPH), Receiver()
    upload.follow(steps([0, 1, 2, 3]))
    assert upload.missing_bytes() == (SIZE,) * LAYERS
    edge.take(upload, 1, coded_bytes=SIZE // 2)
    assert upload.missing_bytes() == (0, *(SIZE // 2,) * (LAYERS - 1))
    assert upload.pending_bytes == SIZE // 2 * (LAYERS - 1)
    assert upload.held_bytes == SIZE


def test_shared_bytes_are_sent_once_and_serve_both_layers() -> None:
    upload = Upload(tied())
    assert upload.total_bytes == 3 * SIZE
    assert upload.missing_bytes() == (SIZE, SIZE, SIZE, 0)
    upload.follow(steps([3]))
    Receiver().take(upload, 10)
    assert upload.layers() == {0, 3}
    assert next(upload.pieces(), None) is None


def test_partitions_count_only_whole_if_asked() -> None:
    upload = Upload(GRAPH)
    upload.follow([[(2, WHOLE), (3, WHOLE)], [(0, WHOLE), (1, WHOLE)]])
    upload.renegotiated(Inventory(frozenset({0, 2}), {}))
    assert upload.layers() == {0, 2}
    assert upload.layers(whole_partitions=True) == frozenset()
    upload.renegotiated(Inventory(frozenset({0, 2, 3}), {}))
    assert upload.layers(whole_partitions=True) == {2, 3}
    assert upload.partitions_done == 1


def test_layers_outside_the_plan_stay_here() -> None:
    upload = Upload(GRAPH)
    upload.follow(steps([1]))
    Receiver().take(upload, 10, coded_bytes=77)
    assert upload.done
    assert upload.sent_bytes == 77


def test_an_edge_that_forgot_everything_gets_everything() -> None:
    upload = Upload(GRAPH)
    upload.renegotiated(Inventory(frozenset(range(LAYERS)), {}))
    assert upload.done
    assert upload.skipped_bytes == upload.total_bytes
    upload.forget()
    upload.follow(steps([0, 1, 2, 3]))
    assert not upload.done
    assert upload.pending_bytes == upload.total_bytes


def test_vectors_go_whole_beside_the_planes_of_matrices() -> None:
    weights = list(GRAPH.weights)
    flat = dataclasses.replace(weights[1].spec, shape=(ELEMENTS,))
    weights[1] = dataclasses.replace(weights[1], spec=flat)
    upload = Upload(dataclasses.replace(GRAPH, weights=tuple(weights)), "progressive")
    upload.follow(joint([0, 1]))
    assert [(piece.weight, piece.plane) for piece in upload.pieces()][:2] == [
        (0, COARSE),
        (1, WHOLE),
    ]
    Receiver().take(upload, 2)


@pytest.mark.parametrize("own", [False, True])
def test_planes_of_another_connection_count_only_when_they_are_whole(own: bool) -> None:
    upload, edge = Upload(GRAPH, "progressive"), Receiver()
    upload.follow(joint([0, 1]))
    edge.take(upload, 2)
    assert upload.layers("float8") == {0, 1}
    upload.renegotiated(edge.inventory, own=own)
    assert upload.layers("float8") == ({0, 1} if own else frozenset())
    upload.follow(steps([0, 1], COARSE))
    # All that is missing of them goes in the step that makes a layer usable.
    rest = [(piece.weight, piece.plane) for piece in upload.pieces()]
    assert rest == ([] if own else [(0, MIDDLE), (0, FINE), (1, MIDDLE), (1, FINE)])
    assert [coarse > 0 for coarse, _, _ in upload.missing_planes()[:2]] == [not own] * 2
    edge.take(upload, 4)
    assert upload.layers() == (frozenset() if own else {0, 1})


def test_what_an_edge_holds_of_shared_bytes_under_another_name_is_sent_again() -> None:
    upload = Upload(tied())
    assert upload.renegotiated(Inventory(frozenset(), {(3, WHOLE): 5})) == 0
    upload.follow(steps([3]))
    assert [(piece.weight, piece.start) for piece in upload.pieces()] == [(0, 0)]
    assert upload.skipped_bytes == 0
