"""Which bytes go next: property tests against a model of an edge that receives them."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from ionn_client.upload import Upload
from layergraph import LayerGraph
from tests.support import WIDTH, blobs, chain

LAYERS = 4
SIZE = WIDTH * WIDTH * 4
GRAPH, WEIGHTS = chain(LAYERS)
BLOBS = blobs(GRAPH, WEIGHTS)


def tied() -> LayerGraph:
    """The chain with its last weight the same bytes as its first."""
    weights = list(GRAPH.weights)
    weights[3] = dataclasses.replace(weights[3], digest=weights[0].digest)
    return dataclasses.replace(GRAPH, weights=tuple(weights))


def receive(upload: Upload, received: list[bytearray], most: int, chunks: int) -> None:
    for _ in range(chunks):
        chunk = upload.next_chunk(most)
        if chunk is None:
            return
        assert chunk.offset == len(received[chunk.weight]), "a gap or an overlap"
        assert 0 < len(chunk.payload) <= most
        received[chunk.weight] += chunk.payload
        held = len(received[chunk.weight])
        upload.acknowledged(chunk.weight, held, held == SIZE)


@given(
    st.permutations(range(LAYERS)),
    st.lists(st.tuples(st.integers(1, 2 * SIZE), st.integers(0, 6), st.booleans()), max_size=12),
)
def test_every_byte_arrives_once_whatever_the_plans_and_breaks(
    order: list[int], steps: list[tuple[int, int, bool]]
) -> None:
    upload = Upload(GRAPH, BLOBS)
    received = [bytearray() for _ in range(LAYERS)]
    upload.follow([[layer] for layer in order])
    for most, chunks, broken in steps:
        receive(upload, received, most, chunks)
        if broken:
            assert upload.renegotiated([len(data) for data in received]) == 0
        order = order[1:] + order[:1]
        upload.follow([[layer] for layer in order])
        assert upload.held_bytes == sum(map(len, received))
    receive(upload, received, SIZE, 10**6)
    assert upload.done
    assert [bytes(data) for data in received] == [bytes(blob) for blob in BLOBS]
    assert upload.sent_bytes == upload.total_bytes
    assert upload.resent_bytes == upload.skipped_bytes == 0
    assert upload.layers(whole_partitions=False) == set(range(LAYERS))


@given(st.integers(1, SIZE), st.integers(1, 20))
def test_what_was_in_flight_when_the_edge_died_is_sent_again_and_counted(
    most: int, chunks: int
) -> None:
    upload = Upload(GRAPH, BLOBS)
    upload.follow([range(LAYERS)])
    sent = [chunk for _ in range(chunks) if (chunk := upload.next_chunk(most)) is not None]
    in_flight = sum(len(chunk.payload) for chunk in sent)
    assert upload.renegotiated([0] * LAYERS) == in_flight
    upload.follow([range(LAYERS)])
    receive(upload, [bytearray() for _ in range(LAYERS)], SIZE, 10**6)
    assert upload.resent_bytes == in_flight
    assert upload.sent_bytes == upload.total_bytes + in_flight


def test_shared_bytes_are_sent_once_and_serve_both_layers() -> None:
    upload = Upload(tied(), BLOBS)
    assert upload.total_bytes == 3 * SIZE
    assert upload.missing_bytes() == (SIZE, SIZE, SIZE, 0)
    upload.follow([[3]])
    chunk = upload.next_chunk(SIZE)
    assert chunk is not None
    assert chunk.weight == 0
    upload.acknowledged(0, SIZE, complete=True)
    assert upload.layers(whole_partitions=False) == {0, 3}
    assert upload.next_chunk(SIZE) is None


def test_partitions_count_only_whole_if_asked() -> None:
    upload = Upload(GRAPH, BLOBS)
    upload.follow([[2, 3], [0, 1]])
    upload.acknowledged(2, SIZE, complete=True)
    upload.acknowledged(0, SIZE, complete=True)
    assert upload.layers(whole_partitions=False) == {0, 2}
    assert upload.layers(whole_partitions=True) == frozenset()
    upload.acknowledged(3, SIZE, complete=True)
    assert upload.layers(whole_partitions=True) == {2, 3}
    assert upload.partitions_done == 1


def test_layers_outside_the_plan_stay_here() -> None:
    upload = Upload(GRAPH, BLOBS)
    upload.follow([[1]])
    receive(upload, [bytearray() for _ in range(LAYERS)], SIZE, 10**6)
    assert upload.done
    assert upload.sent_bytes == SIZE


def test_an_edge_that_forgot_everything_gets_everything() -> None:
    upload = Upload(GRAPH, BLOBS)
    upload.renegotiated([SIZE] * LAYERS)
    assert upload.done
    upload.forget()
    upload.follow([range(LAYERS)])
    assert not upload.done
    assert upload.pending_bytes == upload.total_bytes
