"""Two sessions of one client: the second carries weights for the first. No sockets."""

from __future__ import annotations

from ionn_edge.machine import events
from ionn_edge.machine.events import (
    JoinLane,
    LaneJoined,
    LaneOver,
    LaneRefused,
    Received,
    Send,
    StoreSegment,
)
from ionn_edge.machine.session import Session
from tests.ionn_edge.test_session import (
    END,
    MODEL,
    connected,
    greeted,
    heard,
    only_error,
    ready,
    whole,
)
from wire.messages import Bye, ChunkAck, Held, Join, Joined, Segment
from wire.planes import WHOLE


def joined(first: Session) -> Session:
    lane = greeted()
    assert lane.handle(Received(Join("lane")), 0.0) == [JoinLane("lane")]
    intake = first.lend_intake()
    assert intake is not None
    assert lane.handle(LaneJoined(intake), 0.0) == [Send(Joined())]
    return lane


def test_only_a_connection_with_a_model_has_weights_to_carry() -> None:
    assert connected().lend_intake() is None
    assert greeted().lend_intake() is None
    assert ready().lend_intake() is not None


def test_what_comes_on_one_connection_is_held_on_both() -> None:
    first = ready()
    lane = joined(first)
    segment, chunk = whole(1, 0, 30, 1)
    acknowledged, store = heard(lane, segment, chunk)
    assert isinstance(acknowledged, Send)
    assert isinstance(acknowledged.message, ChunkAck)
    assert isinstance(store, StoreSegment)
    assert lane.handle(events.SegmentStored(1, WHOLE, 30, False), 0.0) == []
    assert lane.handle(events.TimePassed(), 0.05) == [Send(Held(1, WHOLE, 30, False))]
    assert len(heard(first, *whole(1, 30, 20, 1))) == 2


def test_a_segment_on_its_way_on_one_connection_leaves_the_other_alone() -> None:
    first = ready()
    lane = joined(first)
    assert heard(lane, Segment(0, WHOLE, 0, 25, "raw", 100)) == []
    assert len(heard(first, *whole(1, 0, 50, 1))) == 2


def test_a_segment_that_both_connections_announced_is_stored_once() -> None:
    first = ready()
    lane = joined(first)
    segment, chunk = whole(1, 0, 50, 1)
    assert heard(lane, segment) == []
    assert len(heard(first, segment, chunk)) == 2
    error = only_error(lane.handle(Received(chunk), 0.0))
    assert (error.code, "at 0, expected 50" in error.text) == ("unexpected", True)


def test_a_lane_that_nobody_needs_is_refused() -> None:
    lane = greeted()
    heard(lane, Join("lane"))
    error = only_error(lane.handle(LaneRefused("no connection was told of this lane"), 0.0))
    assert (error.code, error.text) == ("unexpected", "no connection was told of this lane")


def test_a_lane_ends_with_its_first_connection() -> None:
    lane = joined(ready())
    assert lane.handle(LaneOver(), 0.0) == [Send(Bye("done")), *END]


def test_a_session_tells_what_it_is_doing() -> None:
    session = ready()
    assert repr(session) == "<Session: ready, 0 queued, 0 running>"
    assert session.model is MODEL
