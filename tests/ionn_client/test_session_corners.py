"""What a session seldom hears, and what it says of itself then: no sockets."""

from __future__ import annotations

import dataclasses

import pytest

from ionn_client.errors import VersionMismatch
from ionn_client.machine import events
from ionn_client.machine.query import Query
from ionn_client.machine.tensors import reply_limits
from ionn_client.machine.upload import Piece
from planner import Route
from tests.ionn_client.test_lane import FIRST, LANE
from tests.ionn_client.test_lane import Bench as LaneBench
from tests.ionn_client.test_session import (
    ELEMENTS,
    LAYERS,
    NONE,
    SIZE,
    WELCOME,
    Bench,
    X,
    answer_on_edge,
    kinds,
    only,
    segments,
    sent,
)
from tests.support import WIDTH
from wire import DEFAULT_LIMITS, messages
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
    monkeypatch.setattr("ionn_client.machine.upload.segment_elements", lambda *_: ELEMENTS // 2)
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
    monkeypatch.setattr("ionn_client.machine.sender.LEAST_BYTES", SIZE)
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


def test_before_a_connection_an_explanation_says_that_there_is_none() -> None:
    bench = Bench()
    bench.step(events.Started())
    assert bench.session.explanation() == "all here: not connected yet"
    bench.step(events.ConnectionLost("refused"))
    assert bench.session.explanation() == "all here: refused"


def test_before_the_edge_has_answered_an_explanation_says_what_is_waited_for() -> None:
    bench = Bench()
    bench.step(events.Started())
    bench.step(events.Connected())
    assert bench.session.explanation() == "all here: the edge is greeted"
    bench.hear(WELCOME)
    assert bench.session.explanation().startswith("all here: the edge has not said yet what it has")
    bench.step(events.Stopped())
    assert bench.session.explanation() == "all here: the session was closed"


def test_an_edge_that_answers_in_a_version_that_was_not_offered_is_left_for_good() -> None:
    bench = Bench()
    bench.step(events.Started())
    bench.step(events.Connected())
    commands = bench.hear(dataclasses.replace(WELCOME, version=3))
    assert messages.Offer not in map(type, sent(commands))
    assert isinstance(bench.session.error, VersionMismatch)
    assert bench.session.phase == "rejected"


def test_an_edge_whose_predictor_nobody_knows_is_used_as_if_it_were_as_fast() -> None:
    bench = Bench()
    bench.step(events.Started())
    bench.step(events.Connected())
    commands = bench.hear(dataclasses.replace(WELCOME, predictor={"kind": "of tomorrow"}))
    assert "unknown predictor" in [c.kind for c in commands if isinstance(c, events.Record)]
    assert messages.Offer(bench.graph.fingerprint, b"") in sent(commands)
    assert list(bench.session.forecast.edge_s) == list(bench.session.forecast.client_s)


def test_to_abandon_what_is_answered_is_nothing() -> None:
    bench = Bench()
    bench.upload_all()
    (message,) = sent(bench.step(events.QueryAsked(0, (X,), None)))
    assert events.FinishQuery in kinds(bench.hear(answer_on_edge(bench, message)))
    assert kinds(bench.step(events.QueryAbandoned(0))) == []


def test_an_answer_is_as_precise_as_its_least_precise_part() -> None:
    route = Route(0.0, ("edge",) * LAYERS, None)
    query = Query.start(0, (X,), route, 0.0, None, "float8", lossless=False)
    for precision, so_far in [("bfloat16", "bfloat16"), ("exact", "bfloat16")]:
        query.used(precision)
        assert query.precision == so_far


@pytest.mark.parametrize("count", [0, 2])
def test_an_answer_of_other_tensors_than_a_cut_has_costs_no_query(count: int) -> None:
    bench = Bench()
    bench.upload_all()
    (message,) = sent(bench.step(events.QueryAsked(0, (X,), None)))
    reply = answer_on_edge(bench, message)
    commands = bench.hear(dataclasses.replace(reply, tensors=reply.tensors * count))
    assert events.AbortConnection in kinds(commands)
    assert "which has 1" in (bench.session.last_failure or "")
    answer = only(bench.local(only(commands, events.RunRange)), events.FinishQuery).answer
    assert answer.served_by == "client"


def test_an_edge_may_say_no_more_than_the_largest_cut_takes() -> None:
    limits = reply_limits(Bench().graph)
    assert limits.max_buffer_bytes == 4 * WIDTH
    assert limits.max_message_bytes == DEFAULT_LIMITS.max_header_bytes + 4 * WIDTH
