"""What a session seldom hears, and what it says of itself then: no sockets."""

from __future__ import annotations

import pytest

from ionn_client import events
from ionn_client.upload import Piece
from tests.ionn_client.test_lane import FIRST, LANE
from tests.ionn_client.test_lane import Bench as LaneBench
from tests.ionn_client.test_session import ELEMENTS, NONE, SIZE, Bench, X, kinds, segments, sent
from wire import messages
from wire.planes import WHOLE
from wire.segments import encode_segment

PIECE = Piece(0, WHOLE, 0, ELEMENTS)


def test_an_edge_that_says_goodbye_is_left() -> None:
    bench = Bench()
    bench.greet()
    assert events.AbortConnection in kinds(bench.hear(messages.Bye("draining")))
    assert bench.session.last_failure == "the edge says goodbye: draining"


def test_an_edge_that_speaks_as_a_client_is_left() -> None:
    bench = Bench()
    bench.upload_all()
    assert events.AbortConnection in kinds(bench.hear(messages.GetLoad()))


def test_how_busy_an_edge_is_changes_nothing() -> None:
    bench = Bench()
    bench.upload_all()
    assert kinds(bench.hear(messages.Load(1, 0, 0, 1e300, 0, 1))) == []
    assert bench.session.phase == "ready"


def test_a_pong_on_the_lane_is_a_sign_of_life_and_no_more() -> None:
    bench = LaneBench()
    bench.join()
    before = list(bench.done)
    bench.say(LANE, messages.Pong(9, 0.0))
    assert bench.done == before


def test_pieces_that_nobody_waits_for_may_come_coded_or_not() -> None:
    bench = Bench()
    bench.greet()
    segments = sent(bench.have(NONE))
    payload = encode_segment("float32", WHOLE, memoryview(bytes(4 * ELEMENTS)), 0, ELEMENTS, "raw")
    for event in (events.SegmentCoded(PIECE, payload, 0.0), events.SegmentNotCoded(PIECE)):
        assert sent(bench.step(event)) == []
    assert segments
    assert bench.session.phase == "uploading"


def test_a_breaker_that_is_open_is_what_a_session_says_of_itself() -> None:
    bench = Bench()
    bench.upload_all()
    assert "all here" not in bench.session.explanation()
    for number in range(40):
        for message in sent(bench.step(events.QueryAsked(number, (X,), None), after_s=0.01)):
            if isinstance(message, messages.Execute):
                bench.hear(messages.Error("execution", "no", number))
    assert bench.session.explanation().startswith("all here: the edge keeps failing")


def test_part_of_a_weight_that_is_held_makes_no_layer_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ionn_client.upload.segment_elements", lambda *_: ELEMENTS // 2)
    bench = Bench()
    bench.greet()
    halves = segments(bench.have(NONE))
    weights = [half.weight for half in halves]
    assert weights[:2] == [weights[0]] * 2
    for half in halves[:2]:
        assert bench.session.usable("exact") == frozenset()
        bench.hold(half)
    assert bench.session.usable("exact") == {weights[0]}


def test_what_comes_after_the_window_is_coded_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ionn_client.sender.LEAST_BYTES", SIZE)
    bench = LaneBench(lane=False)
    bench.upload()
    wanted = [command for command in bench.done if isinstance(command, events.CodeSegment)]
    assert wanted
    sent_already = {segment.weight for segment in bench.segments(FIRST)}
    for command in wanted:
        piece = command.piece
        assert piece.weight not in sent_already
        payload = encode_segment(
            command.dtype, WHOLE, command.blob, piece.start, piece.count, "planes"
        )
        bench.step(events.SegmentCoded(piece, payload, 0.001))
    bench.finish(FIRST)
