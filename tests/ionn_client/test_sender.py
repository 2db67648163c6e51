"""What is sent and coded next: coding pays or is left, and is never waited for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import pytest

from ionn_client.machine.events import CodeSegment, SegmentCoded
from ionn_client.machine.sender import CORE_SHARE, MOST_AHEAD, PROBE_INTERVAL, Sender
from ionn_client.machine.upload import Upload
from layergraph.graph import LayerGraph
from layergraph.nodes import TensorSpec, Weight
from tests.support import chain
from wire import messages
from wire.planes import COARSE, FINE, MIDDLE, WHOLE
from wire.segments import CODED_SHARE, decode_segment, encode_segment, segment_elements

SLOW_LINK, FAST_LINK = 1e6, 1e9
LONG = segment_elements("float32", WHOLE)
CODER_BPS = 4e8


def subject(segments: int, dtype: str = "float32") -> tuple[LayerGraph, list[memoryview]]:
    """One weight of so many segments, of values as trained weights have them."""
    graph, _ = chain(1)
    values = numpy.random.default_rng(0).normal(0, 0.05, segments * LONG).astype(numpy.float32)
    data = values.tobytes() if dtype == "float32" else bytes(values.nbytes)
    spec = TensorSpec(dtype, (segments, LONG))
    weight = Weight("w", spec, graph.weights[0].digest)
    made = LayerGraph(
        graph.inputs, (weight,), graph.constants, graph.nodes, graph.layers, graph.outputs
    )
    return made, [memoryview(data)]


class Bench:
    def __init__(self, segments: int = 40, precision: str = "exact") -> None:
        self.graph, self.blobs = subject(segments)
        self.upload = Upload(self.graph, precision)
        planes = (WHOLE,) if precision == "exact" else (COARSE, MIDDLE, FINE)
        self.upload.follow([[(0, plane)] for plane in planes])
        self.sender = Sender(self.upload, self.blobs)

    def segment(self) -> tuple[messages.Segment, bytes]:
        """The next segment, whole."""
        announced, *chunks = self.sender.next(1 << 14)
        assert isinstance(announced, messages.Segment)
        while sum(len(c.payload) for c in chunks) < announced.coded_bytes:  # type: ignore[union-attr]
            chunks.extend(self.sender.next(1 << 14))
        return announced, b"".join(c.payload for c in chunks)  # type: ignore[union-attr]

    def code(self, commands: Sequence[CodeSegment], Bps: float = CODER_BPS) -> None:
        for command in commands:
            piece = command.piece
            payload = encode_segment(
                command.dtype, piece.plane, command.blob, piece.start, piece.count, "planes"
            )
            self.sender.coded(SegmentCoded(piece, payload, 4 * piece.count / Bps))


def test_a_segment_that_is_not_coded_in_time_is_sent_as_it_is() -> None:
    bench = Bench()
    bench.sender.ahead(SLOW_LINK)
    announced, payload = bench.segment()
    assert announced == messages.Segment(0, WHOLE, 0, LONG, "raw", 4 * LONG)
    assert payload == bytes(bench.blobs[0][: 4 * LONG])


def test_what_is_coded_ahead_is_sent_coded_and_decodes_to_the_weight() -> None:
    bench = Bench(6)
    decoded, codings = b"", []
    while decoded != bytes(bench.blobs[0]):
        announced, payload = bench.segment()
        decoded += decode_segment("float32", WHOLE, announced.count, announced.coding, payload)
        codings.append(announced.coding)
        bench.code(bench.sender.ahead(SLOW_LINK))
    assert codings == ["raw", *["planes"] * 5]
    assert bench.sender.next(1 << 14) == ()
    assert bench.upload.sent_bytes < 0.9 * bench.upload.total_bytes


def test_it_reads_ahead_by_time_within_bounds() -> None:
    assert len(Bench().sender.ahead(1e3)) == 2
    assert len(Bench().sender.ahead(1e7)) == 8
    assert len(Bench().sender.ahead(4e7)) == MOST_AHEAD
    bench = Bench()
    bench.sender.ahead(1e7)
    assert bench.sender.ahead(1e7) == []


def test_no_piece_is_coded_twice() -> None:
    bench, seen = Bench(20), []
    for _ in range(20):
        commands = bench.sender.ahead(1e7)
        seen += [command.piece for command in commands]
        bench.code(commands)
        bench.segment()
    assert len(seen) == len(set(seen))


def test_a_link_faster_than_a_share_of_a_core_codes_is_not_coded_for() -> None:
    bench = Bench()
    bench.code(bench.sender.ahead(FAST_LINK))
    for _ in range(MOST_AHEAD):
        bench.segment()
    assert bench.sender.ahead(FAST_LINK) == []
    assert bench.segment()[0].coding == "raw"
    assert bench.sender.ahead(0.9 * CORE_SHARE * CODER_BPS)


@pytest.mark.parametrize("in_time", [True, False])
def test_planes_that_take_computing_are_coded_on_any_link_and_in_any_case(in_time: bool) -> None:
    bench, sent = Bench(4, "progressive"), dict.fromkeys((COARSE, MIDDLE, FINE), 0)
    while (piece := next(bench.upload.pieces(), None)) is not None:
        commands = bench.sender.ahead(FAST_LINK)
        if in_time:
            bench.code(commands)
        announced, _ = bench.segment()
        assert announced.coding == ("raw" if piece.plane == FINE else "planes")
        sent[announced.plane] += announced.coded_bytes
    assert sent[COARSE] + sent[MIDDLE] + sent[FINE] < 1.01 * CODED_SHARE * bench.upload.total_bytes


def test_a_plane_of_which_coding_failed_goes_as_it_is() -> None:
    bench = Bench(4, "progressive")
    first, *_ = bench.sender.ahead(SLOW_LINK)
    bench.sender.not_coded(first.piece)
    assert bench.segment()[0].coding == bench.segment()[0].coding == "raw"


def test_it_asks_again_once_in_a_while_whether_coding_pays() -> None:
    bench = Bench(3 * PROBE_INTERVAL)
    bench.code(bench.sender.ahead(FAST_LINK))
    asked = 0
    for _ in range(2 * PROBE_INTERVAL):
        bench.segment()
        commands = bench.sender.ahead(FAST_LINK)
        bench.code(commands)
        asked += len(commands)
    assert asked == 2


def test_a_plane_that_does_not_shrink_is_left_as_it_is_after_the_first_segment() -> None:
    bench = Bench(8, "progressive")
    planes: dict[int, list[str]] = {COARSE: [], MIDDLE: [], FINE: []}
    coded = dict.fromkeys(planes, 0)
    while bench.upload.pending_bytes and (message := next(bench.upload.pieces(), None)):
        commands = bench.sender.ahead(SLOW_LINK)
        for command in commands:
            coded[command.piece.plane] += 1
        bench.code(commands)
        announced, _ = bench.segment()
        assert announced.start == message.start
        planes[announced.plane].append(announced.coding)
    assert set(planes[COARSE]) == {"planes"}
    assert set(planes[FINE]) == {"raw"}
    # Two are read ahead before the first has told.
    assert coded[FINE] <= 2


def test_another_plan_drops_what_was_coded_ahead_and_a_late_answer_does_no_harm() -> None:
    bench = Bench()
    late = bench.sender.ahead(SLOW_LINK)
    bench.upload.follow([])
    bench.sender.replanned()
    assert bench.sender.ahead(SLOW_LINK) == []
    bench.code(late)
    bench.upload.follow([[(0, WHOLE)]])
    bench.sender.replanned()
    assert [c.piece for c in bench.sender.ahead(SLOW_LINK)] == [c.piece for c in late]


def test_after_a_broken_connection_the_segment_starts_anew() -> None:
    bench = Bench()
    announced, _ = bench.sender.next(1000)
    bench.upload.forget()
    bench.upload.follow([[(0, WHOLE)]])
    bench.sender.reset()
    again, chunk = bench.sender.next(1000)
    assert again == announced
    assert isinstance(chunk, messages.Chunk)
    assert bytes(chunk.payload) == bytes(bench.blobs[0][: len(chunk.payload)])


@pytest.mark.parametrize("precision", ["exact", "progressive"])
def test_short_pieces_are_not_worth_a_thread(precision: str) -> None:
    graph, weights = chain(3)
    upload = Upload(graph, precision)
    upload.follow([[(layer, FINE if precision != "exact" else WHOLE)] for layer in range(3)])
    blobs = [memoryview(w.numpy().tobytes()) for w in weights.values()]
    assert Sender(upload, blobs).ahead(SLOW_LINK) == []


def test_what_cannot_be_coded_goes_as_it_is_and_is_not_tried_again() -> None:
    bench = Bench()
    first, *_ = bench.sender.ahead(SLOW_LINK)
    bench.sender.not_coded(first.piece)
    assert bench.segment()[0].coding == "raw"
    assert bench.sender.ahead(SLOW_LINK) == []


def test_a_clock_too_coarse_to_time_coding_tells_nothing_of_its_speed() -> None:
    bench, other = Bench(), Bench()
    for each in (bench, other):
        while commands := each.sender.ahead(SLOW_LINK):
            each.code(commands, Bps=float("inf") if each is bench else CODER_BPS)
            each.segment()
    assert bench.upload.sent_bytes == other.upload.sent_bytes > 0
