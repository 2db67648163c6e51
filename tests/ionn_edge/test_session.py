"""The edge's side of a conversation, event by event, without any I/O."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionn_edge.config import Config
from ionn_edge.machine import events
from ionn_edge.machine.events import (
    CloseConnection,
    Connected,
    EndLane,
    HeldCounted,
    Model,
    ModelEvicted,
    ModelOpened,
    ModelUnknown,
    OpenModel,
    Progress,
    RangeFailed,
    RangeRan,
    Received,
    ReportLoad,
    RestartWorker,
    RunRange,
    SegmentStored,
    Send,
    StopWorker,
    StoreSegment,
    TimePassed,
    WorkerLost,
    WorkerRestarted,
)
from ionn_edge.machine.quota import Quota
from ionn_edge.machine.session import UNSAID_S, Session
from wire import messages
from wire.messages import (
    Bye,
    Cancel,
    Chunk,
    ChunkAck,
    Error,
    Evicted,
    Execute,
    GetLoad,
    Have,
    Held,
    Hello,
    Join,
    Load,
    Offer,
    Partial,
    Ping,
    Pong,
    Result,
    Segment,
    Tensor,
    Unknown,
    Welcome,
)
from wire.planes import COARSE, FINE, MIDDLE, WHOLE

A, B = (hashlib.sha256(name).digest() for name in (b"a", b"b"))
MODEL = Model("f" * 64, 3, ((A, 100, "float32"), (B, 50, "uint8"), (A, 100, "float32")))
CONFIG = Config(max_queries=3, max_restarts=1, range_timeout_s=5.0)
LIVE = (Tensor("uint8", (2,), (0,), b"\1\2"),)
END = [EndLane(), StopWorker(), CloseConnection()]


def welcome(version: int, now: float) -> Welcome:
    return Welcome(version, "edge", "e.0", "cpu", 1, 1000, 1 << 20, 1 << 10, {}, "lane", now)


def connected(config: Config = CONFIG, quota: Quota | None = None) -> Session:
    session = Session(config, welcome, quota)
    assert session.handle(Connected(), 0.0) == []
    return session


def greeted(quota: Quota | None = None) -> Session:
    session = connected(quota=quota)
    assert session.handle(Received(Hello(2, 2, "test")), 0.0) == [Send(welcome(2, 0.0))]
    return session


EMPTY = (Progress(), Progress(), Progress())


def ready(held: tuple[Progress, ...] = EMPTY, quota: Quota | None = None) -> Session:
    session = greeted(quota)
    offer = Offer(MODEL.fingerprint, b"graph")
    assert session.handle(Received(offer), 0.0) == [OpenModel(MODEL.fingerprint, b"graph")]
    opened = session.handle(ModelOpened(MODEL, "e.0", held), 0.0)
    (have,) = opened
    assert isinstance(have, Send)
    assert isinstance(have.message, Have)
    return session


def heard(session: Session, *said: messages.Message, now: float = 0.0) -> list[Any]:
    """Everything that follows from these messages."""
    return [each for message in said for each in session.handle(Received(message), now)]


def whole(weight: int, start: int, count: int, width: int) -> list[messages.Message]:
    data = b"x" * (count * width)
    return [Segment(weight, WHOLE, start, count, "raw", len(data)), Chunk(data)]


def execute(query: int, deadline_s: float | None = None) -> Received:
    return Received(Execute(query, 0, 3, deadline_s, "exact", "raw", LIVE))


def ran(query: int, began_at: float = 0.25) -> RangeRan:
    return RangeRan(query, 3, "exact", began_at, 0.125, 0.5, LIVE)


def answer(query: int, code: str, text: str) -> Send:
    return Send(Error(code, text, query))


def only_error(commands: list[Any]) -> Error:
    assert commands[1:] == END
    assert isinstance(commands[0], Send)
    assert isinstance(commands[0].message, Error)
    return commands[0].message


# Greeting.


def test_hello_is_answered_with_the_version_that_both_speak() -> None:
    assert connected().handle(Received(Hello(1, 9, "newer")), 2.0) == [Send(welcome(2, 2.0))]


def test_a_client_without_a_common_version_is_told_so() -> None:
    session = connected()
    error = only_error(session.handle(Received(Hello(8, 9, "future")), 0.0))
    assert error.code == "version"
    assert "update ionn on the edge" in error.text
    assert session.closed


def test_one_client_too_many_is_told_so() -> None:
    session = Session(CONFIG, welcome)
    session.handle(Connected(admitted=False), 0.0)
    assert only_error(session.handle(Received(Hello(2, 2, "t")), 0.0)).code == "overloaded"


@pytest.mark.parametrize(
    "message",
    [
        Offer("f", b"g"),
        Chunk(b"x"),
        Join("lane"),
        Execute(1, 0, 1, None, "exact", "raw", ()),
        Ping(1),
        GetLoad(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_nothing_comes_before_hello(message: messages.Message) -> None:
    error = only_error(connected().handle(Received(message), 0.0))
    assert error.code == "unexpected"
    assert type(message).__name__ in error.text


def test_silence_instead_of_a_hello_ends_the_connection() -> None:
    session = connected()
    assert session.wake_at == CONFIG.hello_timeout_s
    assert session.handle(TimePassed(), 9.9) == []
    assert "Hello" in only_error(session.handle(TimePassed(), 10.0)).text


def test_garbage_is_answered_and_ends_the_connection() -> None:
    error = only_error(greeted().handle(events.Garbled("unknown message kind 99"), 0.0))
    assert (error.code, error.text) == ("malformed", "unknown message kind 99")


def test_a_ping_is_answered_with_its_token_and_the_edges_clock() -> None:
    assert greeted().handle(Received(Ping(7)), 3.5) == [Send(Pong(7, 3.5))]


def test_a_silent_client_is_pinged_and_then_dropped() -> None:
    session = greeted()
    assert session.wake_at == CONFIG.ping_after_s
    assert session.handle(TimePassed(), 20.0) == [Send(Ping(0))]
    assert session.wake_at == CONFIG.silence_s
    assert session.handle(TimePassed(), 40.0) == []
    assert session.handle(TimePassed(), 60.0) == END
    assert session.wake_at is None


def test_a_pong_is_a_sign_of_life() -> None:
    session = greeted()
    session.handle(TimePassed(), 20.0)
    assert session.handle(Received(Pong(0, 0.0)), 21.0) == []
    assert session.handle(TimePassed(), 60.0) == [Send(Ping(0))]


def test_load_is_reported_without_a_model_too() -> None:
    session = greeted()
    load = Load(1, 0, 0, 1.0, 0, 1000)
    assert session.handle(Received(GetLoad()), 0.0) == [ReportLoad()]
    assert session.handle(events.LoadReported(load), 0.0) == [Send(load)]


def test_load_is_not_pushed_at_a_client_that_has_not_said_hello() -> None:
    assert connected().handle(events.LoadReported(Load(1, 0, 0, 2.0, 0, 9)), 0.0) == []


@pytest.mark.parametrize("farewell", [Bye("done"), Error("execution", "my own fault")])
def test_a_clients_farewell_is_not_answered(farewell: messages.Message) -> None:
    session = ready()
    assert session.handle(Received(farewell), 0.0) == END
    assert session.handle(Received(Ping(1)), 0.0) == []


# Offers and chunks.


@pytest.mark.parametrize("code", ["graph", "memory", "storage"])
def test_a_refused_model_ends_the_connection(code: str) -> None:
    session = greeted()
    session.handle(Received(Offer(MODEL.fingerprint, b"graph")), 0.0)
    error = only_error(session.handle(events.ModelRefused(code, "because"), 0.0))
    assert (error.code, error.text) == (code, "because")


def test_a_graph_offered_by_name_alone_may_be_unknown() -> None:
    session = greeted()
    offer = Received(Offer(MODEL.fingerprint, b""))
    assert session.handle(offer, 0.0) == [OpenModel(MODEL.fingerprint, b"")]
    assert session.handle(ModelUnknown(), 0.0) == [Send(Unknown(MODEL.fingerprint))]
    assert heard(session, Offer(MODEL.fingerprint, b"g")) == [OpenModel(MODEL.fingerprint, b"g")]


def test_queries_wait_for_the_worker_of_a_known_model() -> None:
    session = greeted()
    heard(session, Offer(MODEL.fingerprint, b""))
    session.handle(ModelOpened(MODEL, "e.0", EMPTY, worker_ready=False), 0.0)
    assert session.handle(execute(1), 0.0) == []
    assert session.handle(WorkerRestarted(), 1.0) == [RunRange(1, 0, 3, "exact", "raw", LIVE)]


def test_have_tells_runs_of_weights_and_what_there_is_of_the_others() -> None:
    by_planes = Progress(8, 25, 25)
    cases = {
        EMPTY: ((3,), ()),
        (Progress(100), Progress(50), Progress(100)): ((0, 3), ()),
        (Progress(100), Progress(7), Progress(100)): ((0, 1, 1, 1), (Partial(1, WHOLE, 7),)),
        (by_planes, Progress(50), by_planes): (
            (1, 1, 1),
            tuple(
                Partial(weight, plane, count)
                for weight in (0, 2)
                for plane, count in ((COARSE, 25), (MIDDLE, 25), (FINE, 2))
            ),
        ),
    }
    for held, (runs, partial) in cases.items():
        session = greeted()
        heard(session, Offer(MODEL.fingerprint, b"graph"))
        (answered,) = session.handle(ModelOpened(MODEL, "e.0", held), 0.0)
        assert answered == Send(Have(MODEL.fingerprint, "e.0", runs, partial))


def test_chunks_are_acknowledged_as_they_arrive_and_the_segment_once_it_is_stored() -> None:
    session = ready()
    segment = Segment(1, WHOLE, 0, 50, "raw", 50)
    assert heard(session, segment) == []
    assert heard(session, Chunk(b"x" * 20), now=1.5) == [Send(ChunkAck(1.5))]
    last = heard(session, Chunk(b"y" * 30), now=1.75)
    assert last == [Send(ChunkAck(1.75)), StoreSegment(segment, (b"x" * 20, b"y" * 30))]
    stored = session.handle(SegmentStored(1, WHOLE, 50, True), 2.0)
    assert stored == [Send(Held(1, WHOLE, 50, True))]


def stored_in_part(now: float) -> Session:
    """A session that has not said yet that 10 of 50 elements are stored."""
    session = ready()
    heard(session, *whole(1, 0, 10, 1))
    assert session.handle(SegmentStored(1, WHOLE, 10, False), now) == []
    return session


def test_what_makes_nothing_usable_is_said_with_what_is_said_next() -> None:
    session = stored_in_part(1.0)
    assert session.wake_at == pytest.approx(1.0 + UNSAID_S)
    heard(session, Segment(1, WHOLE, 10, 20, "raw", 20))
    held = Send(Held(1, WHOLE, 10, False))
    assert heard(session, Chunk(b"x" * 10), now=1.01) == [held, Send(ChunkAck(1.01))]
    assert heard(session, Chunk(b"y"), now=1.02) == [Send(ChunkAck(1.02))]


def test_it_is_said_by_itself_where_nothing_else_is() -> None:
    session = stored_in_part(1.0)
    assert session.handle(SegmentStored(1, WHOLE, 20, False), 1.03) == []
    both = [Send(Held(1, WHOLE, count, False)) for count in (10, 20)]
    assert session.handle(TimePassed(), 1.0 + UNSAID_S) == both
    assert session.handle(TimePassed(), 9.0) == []


def test_what_makes_a_layer_usable_is_said_at_once_after_what_was_stored_before() -> None:
    for last in (Held(1, WHOLE, 50, False), Held(1, WHOLE, 20, True)):
        stored = SegmentStored(last.weight, last.plane, last.count, last.complete)
        told = stored_in_part(1.0).handle(stored, 1.01)
        assert told == [Send(Held(1, WHOLE, 10, False)), Send(last)]


def test_what_is_stored_is_said_before_it_is_evicted_or_counted() -> None:
    for event in (ModelEvicted("e.1"), HeldCounted("e.1", EMPTY)):
        session = stored_in_part(1.0)
        if isinstance(event, HeldCounted):
            asked = Offer(MODEL.fingerprint, b"")
            assert Send(Held(1, WHOLE, 10, False)) not in heard(session, asked, now=1.0)
        said = [each.message for each in session.handle(event, 1.01) if isinstance(each, Send)]
        assert [type(each) for each in said][:2] == [
            Held,
            Evicted if isinstance(event, ModelEvicted) else Have,
        ]


def test_chunks_are_handed_on_uncopied() -> None:
    payload = memoryview(bytes(50))
    _, store = heard(ready(), Segment(1, WHOLE, 0, 50, "raw", 50), Chunk(payload))
    assert store.payloads[0] is payload


def test_small_chunks_are_put_together() -> None:
    session = ready()
    heard(session, Segment(1, WHOLE, 0, 50, "raw", 50))
    *_, store = heard(session, *(Chunk(bytes([at])) for at in range(50)))
    assert len(store.payloads) == 2, "the first is kept as it came"
    assert b"".join(store.payloads) == bytes(range(50))


def test_chunks_of_any_size_stay_in_their_order() -> None:
    data, session = bytes(range(251)) * 100, ready_with_bytes(251 * 100)
    heard(session, Segment(0, WHOLE, 0, len(data), "raw", len(data)))
    cuts = [0, 5, 5000, 5001, 5002, 12_000, 12_010, len(data)]
    *_, store = heard(session, *(Chunk(data[a:b]) for a, b in pairwise(cuts)))
    assert b"".join(store.payloads) == data


def ready_with_bytes(size: int) -> Session:
    session = greeted()
    session.handle(Received(Offer(MODEL.fingerprint, b"graph")), 0.0)
    model = Model(MODEL.fingerprint, 1, ((A, size, "uint8"),))
    session.handle(ModelOpened(model, "e.0", (Progress(),)), 0.0)
    return session


def test_segments_go_on_where_have_said_that_the_edges_copy_ends() -> None:
    session = ready((Progress(40), Progress(50), Progress(40)))
    assert len(heard(session, *whole(0, 10, 5, 4))) == 2
    assert len(heard(session, *whole(0, 15, 10, 4))) == 2


def test_weights_of_one_digest_are_one_blob() -> None:
    session = ready()
    assert len(heard(session, *whole(0, 0, 1, 4))) == 2
    assert len(heard(session, *whole(2, 1, 1, 4))) == 2


def test_planes_come_one_after_the_other() -> None:
    session = ready()
    for plane in (COARSE, MIDDLE, FINE):
        for start, count in ((0, 10), (10, 15)):
            _, store = heard(session, Segment(0, plane, start, count, "planes", 1), Chunk(b"x"))
            assert (store.segment.plane, store.segment.start) == (plane, start)


@pytest.mark.parametrize(
    ("held", "segment", "code", "text"),
    [
        (EMPTY, Segment(0, WHOLE, 5, 1, "raw", 4), "unexpected", "at 5, expected 0"),
        (EMPTY, Segment(1, WHOLE, 0, 51, "raw", 51), "malformed", "up to 51 of 50 elements"),
        (EMPTY, Segment(3, WHOLE, 0, 1, "raw", 4), "malformed", "weight 3; the model has 3"),
        (EMPTY, Segment(0, WHOLE, 0, 5, "raw", 19), "malformed", "19 bytes for 5 elements"),
        (EMPTY, Segment(0, MIDDLE, 0, 1, "raw", 1), "unexpected", "0 of 25 elements of coarse"),
        (EMPTY, Segment(0, FINE, 0, 1, "raw", 2), "unexpected", "0 of 25 elements of coarse"),
        (EMPTY, Segment(1, COARSE, 0, 1, "raw", 2), "malformed", "which is uint8"),
        (EMPTY, Segment(0, COARSE, 0, 26, "raw", 39), "malformed", "26 of 25 elements"),
        ((Progress(0, 24),) * 3, Segment(0, MIDDLE, 0, 1, "raw", 1), "unexpected", "24 of 25"),
        ((Progress(0, 25, 24),) * 3, Segment(0, FINE, 0, 1, "raw", 2), "unexpected", "middle"),
        ((Progress(0, 25, 25),) * 3, Segment(0, FINE, 1, 1, "raw", 2), "unexpected", "at 1"),
        ((Progress(0, 9),) * 3, Segment(0, WHOLE, 0, 1, "raw", 4), "unexpected", "by planes"),
        ((Progress(8),) * 3, Segment(0, COARSE, 0, 1, "raw", 2), "unexpected", "came whole"),
        ((Progress(100),) * 3, Segment(0, WHOLE, 25, 1, "raw", 4), "malformed", "26 of 25"),
    ],
    ids=[
        "gap", "overrun", "no such weight", "other length", "middle first", "fine first",
        "planes of bytes", "plane overrun", "middle early", "fine early", "fine gap",
        "whole after planes", "planes after whole", "held already",
    ],
)  # fmt: skip
def test_a_segment_that_does_not_fit_ends_the_connection(
    held: tuple[Progress, ...], segment: Segment, code: str, text: str
) -> None:
    error = only_error(ready(held).handle(Received(segment), 0.0))
    assert (error.code, text in error.text) == (code, True), error


def test_equal_bytes_of_another_type_go_on_at_whole_elements_only() -> None:
    model = Model("f" * 64, 1, ((A, 100, "uint8"), (A, 100, "float32")))
    session = greeted()
    heard(session, Offer(model.fingerprint, b"g"))
    session.handle(ModelOpened(model, "e.0", (Progress(7), Progress(7))), 0.0)
    error = only_error(session.handle(Received(Segment(1, WHOLE, 1, 1, "raw", 4)), 0.0))
    assert (error.code, "another type" in error.text) == ("unexpected", True)


def test_a_segment_of_more_than_the_limit_is_refused_before_a_byte_of_it_comes() -> None:
    model = Model("f" * 64, 1, ((A, 1 << 30, "complex128"),))
    session = greeted()
    heard(session, Offer(model.fingerprint, b"g"))
    session.handle(ModelOpened(model, "e.0", (Progress(),)), 0.0)
    huge = Segment(0, WHOLE, 0, 1 << 20, "planes", 10)
    error = only_error(session.handle(Received(huge), 0.0))
    assert (error.code, "the limit is" in error.text) == ("malformed", True)


@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        ([Chunk(b"x")], "unexpected", "no segment"),
        ([*whole(0, 0, 1, 4), Chunk(b"x")], "unexpected", "no segment"),
        ([Segment(0, WHOLE, 0, 1, "raw", 4), Chunk(b"12345")], "malformed", "1 bytes more"),
        ([Segment(0, WHOLE, 0, 1, "raw", 4), Chunk(b"12"), whole(1, 0, 1, 1)[0]], "unexpected",
         "2 bytes of the one before"),
        ([*whole(0, 0, 1, 4), whole(0, 0, 1, 4)[0]], "unexpected", "at 0, expected 1"),
    ],
    ids=["unannounced", "after the end", "too many bytes", "interrupted", "repeated"],
)  # fmt: skip
def test_chunks_and_segments_out_of_turn_end_the_connection(
    said: list[messages.Message], code: str, text: str
) -> None:
    session = ready()
    heard(session, *said[:-1])
    error = [c.message for c in heard(session, said[-1]) if isinstance(c, Send)][-1]
    assert isinstance(error, Error)
    assert (error.code, text in error.text) == (code, True), error
    assert session.closed


@pytest.mark.parametrize("code", ["digest", "storage", "coding", "memory"])
def test_a_segment_that_cannot_be_stored_ends_the_connection(code: str) -> None:
    session = ready()
    heard(session, *whole(0, 0, 1, 4))
    assert only_error(session.handle(events.SegmentFailed(code, "why"), 0.0)).code == code


# Queries.


def test_a_query_runs_at_once_and_is_answered_with_its_times() -> None:
    session = ready()
    assert session.handle(execute(5), 1.0) == [RunRange(5, 0, 3, "exact", "raw", LIVE)]
    assert (session.running, session.queued, session.busy) == (1, 0, True)
    answered = session.handle(ran(5, began_at=1.25), 2.0)
    assert answered == [Send(Result(5, 0, 3, "exact", 0.25, 0.125, 0.5, LIVE))]
    assert not session.busy


def test_the_answer_says_how_far_the_range_ran() -> None:
    session = ready()
    session.handle(execute(5), 0.0)
    (answered,) = session.handle(RangeRan(5, 2, "float8", 0.0, 0.125, 0.5, LIVE), 1.0)
    assert answered == Send(Result(5, 0, 2, "float8", 0.0, 0.125, 0.5, LIVE))


def test_queries_run_one_after_the_other_in_their_order() -> None:
    session = ready()
    session.handle(execute(1), 0.0)
    assert session.handle(execute(2), 0.0) == []
    assert session.handle(execute(3), 0.0) == []
    assert (session.running, session.queued) == (1, 2)
    _, second = session.handle(ran(1), 1.0)
    assert second == RunRange(2, 0, 3, "exact", "raw", LIVE)
    failed, third = session.handle(RangeFailed(2, "execution", "out of memory"), 2.0)
    assert failed == answer(2, "execution", "out of memory")
    assert third == RunRange(3, 0, 3, "exact", "raw", LIVE)


def test_more_queries_than_allowed_are_refused_one_by_one() -> None:
    session = ready()
    for query in range(3):
        session.handle(execute(query), 0.0)
    assert session.handle(execute(3), 0.0) == [
        answer(3, "overloaded", "3 queries are open already")
    ]
    session.handle(ran(0), 1.0)
    assert session.handle(execute(4), 1.0) == []


def test_waiting_queries_may_hold_so_many_bytes_only() -> None:
    session = ready()
    session.config = Config(max_waiting_bytes=5)
    assert session.handle(execute(1), 0.0) == [RunRange(1, 0, 3, "exact", "raw", LIVE)]
    assert session.handle(execute(2), 0.0) == []
    assert session.handle(execute(3), 0.0) == []
    assert session.handle(execute(4), 0.0) == [
        answer(4, "overloaded", "open queries hold 6 bytes of tensors")
    ]


def test_a_range_beyond_the_model_is_that_querys_error() -> None:
    session = ready()
    beyond = Received(Execute(1, 2, 4, None, "exact", "raw", LIVE))
    assert session.handle(beyond, 0.0) == [answer(1, "input", "layers [2, 4) of a model with 3")]


def test_a_query_number_in_use_ends_the_connection() -> None:
    session = ready()
    session.handle(execute(1), 0.0)
    assert only_error(session.handle(execute(1), 0.0)).code == "unexpected"


def test_a_deadline_that_passes_in_the_queue_is_told_at_that_moment() -> None:
    session = ready()
    session.handle(execute(1), 0.0)
    session.handle(execute(2, deadline_s=0.5), 1.0)
    assert session.wake_at == 1.5
    (late,) = session.handle(TimePassed(), 1.5)
    assert late == answer(
        2, "deadline", "the deadline passed before the range ran (waited 0.500 s)"
    )
    assert session.handle(ran(1), 2.0) == [Send(Result(1, 0, 3, "exact", 0.25, 0.125, 0.5, LIVE))]


def test_a_deadline_of_nothing_is_never_run() -> None:
    (late,) = ready().handle(execute(1, deadline_s=0.0), 1.0)
    assert late == answer(
        1, "deadline", "the deadline passed before the range ran (waited 0.000 s)"
    )


def test_a_deadline_does_not_stop_what_runs() -> None:
    session = ready()
    assert session.handle(execute(1, deadline_s=0.5), 0.0) == [
        RunRange(1, 0, 3, "exact", "raw", LIVE)
    ]
    assert session.handle(TimePassed(), 0.75) == []
    assert session.handle(ran(1), 1.0) == [Send(Result(1, 0, 3, "exact", 0.25, 0.125, 0.5, LIVE))]


def test_a_cancelled_query_in_the_queue_is_never_run() -> None:
    session = ready()
    session.handle(execute(1), 0.0)
    session.handle(execute(2), 0.0)
    assert session.handle(Received(Cancel(2)), 0.0) == []
    assert session.handle(ran(1), 1.0) == [Send(Result(1, 0, 3, "exact", 0.25, 0.125, 0.5, LIVE))]
    assert not session.busy


@pytest.mark.parametrize("outcome", [ran(1), RangeFailed(1, "execution", "x")], ids=["ran", "not"])
def test_a_cancelled_running_query_is_not_answered(outcome: events.Event) -> None:
    session = ready()
    session.handle(execute(1), 0.0)
    session.handle(execute(2), 0.0)
    session.handle(Received(Cancel(1)), 0.0)
    assert session.handle(outcome, 1.0) == [RunRange(2, 0, 3, "exact", "raw", LIVE)]


def test_cancelling_what_is_not_open_means_nothing() -> None:
    assert ready().handle(Received(Cancel(9)), 0.0) == []
    assert greeted().handle(Received(Cancel(9)), 0.0) == []


# Workers that die.


def test_a_dead_worker_fails_its_queries_and_is_replaced() -> None:
    session = ready()
    session.handle(execute(1), 0.0)
    session.handle(execute(2), 0.0)
    assert session.handle(WorkerLost("killed"), 1.0) == [
        answer(1, "execution", "killed"),
        answer(2, "execution", "killed"),
        RestartWorker(),
    ]
    assert session.handle(execute(3), 1.0) == []
    assert session.handle(WorkerRestarted(), 2.0) == [RunRange(3, 0, 3, "exact", "raw", LIVE)]


def test_a_worker_that_keeps_dying_is_not_replaced_for_ever() -> None:
    session = ready()
    assert session.handle(WorkerLost("killed"), 0.0) == [RestartWorker()]
    session.handle(execute(1), 0.0)
    text = "the worker failed 2 times in a row: killed"
    assert session.handle(WorkerLost("killed"), 0.0) == [
        answer(1, "execution", "killed"),
        Send(Error("overloaded", text)),
        *END,
    ]


def test_the_last_worker_that_is_stopped_ends_the_connection_however_long_it_was_silent() -> None:
    session = ready()
    session.handle(WorkerLost("killed"), 0.0)
    session.handle(WorkerRestarted(), 0.0)
    session.handle(execute(1), 0.0)
    commands = session.handle(TimePassed(), CONFIG.silence_s + 1.0)
    assert CloseConnection() in commands
    assert session.closed


def test_an_answer_makes_up_for_earlier_deaths() -> None:
    session = ready()
    for query in range(3):
        assert session.handle(WorkerLost("killed"), 0.0) == [RestartWorker()]
        session.handle(WorkerRestarted(), 0.0)
        session.handle(execute(query), 0.0)
        session.handle(ran(query), 0.0)


def test_a_range_that_never_ends_is_stopped_with_its_worker() -> None:
    session = ready()
    session.handle(execute(1), 1.0)
    assert session.wake_at == 6.0
    text = "the range ran for more than 5 s and was stopped"
    assert session.handle(TimePassed(), 6.0) == [
        StopWorker(),
        answer(1, "execution", text),
        RestartWorker(),
    ]


# Eviction.


def test_an_evicted_client_is_told_and_may_offer_again() -> None:
    session = ready()
    assert session.handle(ModelEvicted("e.1"), 0.0) == [
        EndLane(),
        StopWorker(),
        Send(Evicted(MODEL.fingerprint, "e.1")),
    ]
    offer = Offer(MODEL.fingerprint, b"graph")
    assert session.handle(Received(offer), 1.0) == [OpenModel(MODEL.fingerprint, b"graph")]
    reopened = session.handle(ModelOpened(MODEL, "e.1", EMPTY), 1.0)
    assert reopened == [Send(Have(MODEL.fingerprint, "e.1", (3,), ()))]
    assert len(heard(session, *whole(0, 0, 1, 4))) == 2


def test_queries_of_a_model_that_is_forgotten_are_answered_before_the_client_is_told() -> None:
    session = ready()
    for query in (1, 2, 3):
        session.handle(execute(query), 0.0)
    session.handle(Received(Cancel(1)), 0.0)
    text = "the model was dropped; offer it again"
    assert session.handle(ModelEvicted("e.1"), 0.0) == [
        answer(2, "not-uploaded", text),
        answer(3, "not-uploaded", text),
        EndLane(),
        StopWorker(),
        Send(Evicted(MODEL.fingerprint, "e.1")),
    ]
    assert not session.busy


def test_a_running_query_of_a_model_that_is_forgotten_is_answered() -> None:
    session = ready()
    session.handle(execute(1), 0.0)
    told = session.handle(ModelEvicted("e.1"), 0.0)
    assert told[0] == answer(1, "not-uploaded", "the model was dropped; offer it again")


def test_what_crossed_the_eviction_is_dropped_or_refused() -> None:
    session = ready()
    heard(session, *whole(0, 0, 1, 4), whole(0, 1, 1, 4)[0])
    session.handle(ModelEvicted("e.1"), 0.0)
    assert session.handle(SegmentStored(0, WHOLE, 1, False), 0.0) == []
    assert session.handle(events.SegmentFailed("unexpected", "why"), 0.0) == []
    assert heard(session, Chunk(b"1234"), *whole(0, 2, 1, 4)) == []
    (refused,) = session.handle(execute(1), 0.0)
    assert isinstance(refused, Send)
    assert isinstance(refused.message, Error)
    assert (refused.message.code, refused.message.query) == ("not-uploaded", 1)


# Draining.


def test_an_idle_client_hears_goodbye_at_once() -> None:
    assert ready().handle(events.Draining(), 0.0) == [Send(Bye("draining")), *END]
    assert connected().handle(events.Draining(), 0.0) == [Send(Bye("draining")), *END]


def test_running_queries_are_finished_before_goodbye() -> None:
    session = ready()
    session.handle(execute(1), 0.0)
    session.handle(execute(2), 0.0)
    assert session.handle(events.Draining(), 0.0) == []
    assert session.handle(execute(3), 0.0) == [answer(3, "overloaded", "the edge is stopping")]
    assert session.handle(ran(1), 1.0)[1:] == [RunRange(2, 0, 3, "exact", "raw", LIVE)]
    answered, *farewell = session.handle(ran(2), 2.0)
    assert answered == Send(Result(2, 0, 3, "exact", 0.25, 0.125, 0.5, LIVE))
    assert farewell == [Send(Bye("draining")), *END]


def test_draining_does_not_wait_for_ever() -> None:
    session = ready()
    session.handle(execute(1), 0.0)
    session.handle(events.Draining(), 1.0)
    assert session.wake_at == 1.0 + CONFIG.drain_s
    assert session.handle(TimePassed(), 4.0) == [Send(Bye("draining")), *END]


# Any order of events.

_MESSAGES = st.sampled_from(
    [
        Hello(2, 2, "t"), Offer(MODEL.fingerprint, b"g"), Segment(1, WHOLE, 0, 1, "raw", 1),
        Chunk(b"x"), Segment(0, COARSE, 0, 25, "planes", 2), Segment(0, MIDDLE, 0, 1, "raw", 1),
        Execute(1, 0, 3, None, "exact", "raw", LIVE), Cancel(1), Ping(1), Pong(1, 0.0), Cancel(2),
        Execute(2, 1, 2, 1.0, "float8", "planes", LIVE), GetLoad(), Bye("done"), Join("lane"),
        Welcome(1, "e", "e", "cpu", 1, 1, 1, 1, {}, "l", 0.0), Offer(MODEL.fingerprint, b""),
    ]
)  # fmt: skip
_OWN = st.sampled_from(
    [
        TimePassed(), SegmentStored(0, 0, 1, False), ran(1), ran(2), WorkerLost("x"),
        RangeFailed(1, "input", "x"), WorkerRestarted(), events.Draining(),
        events.LoadReported(Load(1, 0, 0, 1.0, 0, 1)), events.Garbled("x"),
        events.HeldCounted("e.0", EMPTY),
    ]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(_MESSAGES.map(Received), _OWN, st.just("evict")), max_size=40))
def test_whatever_happens_every_query_has_one_answer_at_most_and_one_end(steps: list[Any]) -> None:
    session = ready()
    open_queries: set[int] = set()
    now = 0.0
    for step in steps:
        now += 0.3
        if step == "evict":
            # The store asks first.
            if session.busy or session.model is None:
                continue
            step = ModelEvicted("e.1")
        if session.closed:
            assert session.handle(step, now) == []
            continue
        if isinstance(step, Received) and isinstance(step.message, Execute):
            open_queries.add(step.message.query)
        commands = session.handle(step, now)
        for command in commands:
            if isinstance(command, OpenModel):
                session.handle(ModelOpened(MODEL, "e.1", EMPTY), now)
            if isinstance(command, Send) and isinstance(command.message, Result | Error):
                query = command.message.query
                if query is not None:
                    open_queries.remove(query)
            assert not isinstance(command, RunRange) or command.query in open_queries
        assert (CloseConnection() in commands) == session.closed
        if isinstance(step, Received) and isinstance(step.message, Cancel):
            open_queries.discard(step.message.query)


def two_beside_another_device() -> tuple[Session, Session]:
    """Two connections of a device that may run one range at once, and the first one's runs."""
    quota = Quota(Config(threads=1024), lambda: 2)
    first, second = ready(quota=quota), ready(quota=quota)
    quota.sessions |= {first, second}
    assert any(isinstance(each, RunRange) for each in first.handle(execute(1), 0.0))
    return first, second


def test_a_range_waits_for_the_devices_turn_and_its_time_does_not_run() -> None:
    first, second = two_beside_another_device()
    assert second.handle(execute(1), 0.0) == []
    assert (second.running, second.queued, second.busy) == (0, 1, True)
    answer_of(first.handle(ran(1), 4.0))
    assert any(isinstance(each, RunRange) for each in second.handle(TimePassed(), 4.0))
    assert second.wake_at == 4.0 + CONFIG.range_timeout_s
    assert second.handle(TimePassed(), 8.0) == [], "longer than a range may take, since asked"


def answer_of(commands: list[Any]) -> Result:
    (send,) = commands
    assert isinstance(send.message, Result)
    return send.message


def test_a_deadline_passes_while_a_range_waits_for_its_turn() -> None:
    first, second = two_beside_another_device()
    assert second.handle(execute(1, deadline_s=1.0), 0.0) == []
    assert second.wake_at == 1.0
    (told,) = second.handle(TimePassed(), 1.0)
    assert isinstance(told.message, Error)
    assert told.message.code == "deadline"
    assert second.handle(execute(2), 1.0) == []
    assert second.handle(Received(Cancel(2)), 1.0) == []
    answer_of(first.handle(ran(1), 1.0))
    assert second.handle(TimePassed(), 1.0) == []


def test_what_a_worker_says_of_a_range_that_nobody_runs_any_more_is_told_to_nobody() -> None:
    session = ready()
    session.handle(execute(1), 0.0)
    session.handle(ModelEvicted("e.1"), 0.0)
    assert session.handle(ran(1), 0.1) == []
    assert not session.busy
