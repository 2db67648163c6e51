"""The second connection, without I/O: when it is used, and that nothing is lost with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from ionn_client import Options
from ionn_client.machine import events
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.session import Session
from planner import Link
from tests.ionn_client.test_session import WELCOME, X, kinds, only
from tests.support import ELEMENTS, blobs, chain
from wire import messages
from wire.planes import WHOLE

# More than a first window, so that something is left for the lane.
LAYERS = 120
FIRST, LANE = "first", "lane"
HEARD: dict[str, Callable[[messages.Message], events.Event]] = {
    FIRST: events.MessageReceived,
    LANE: events.LaneHeard,
}


class Bench:
    """A session, and an edge played by hand that holds what really came, in order."""

    def __init__(self, lane: bool = True) -> None:
        self.graph, weights = chain(LAYERS)
        options = Options(assumed_link=Link(1e6, 1e6, 0.01), replan=False, lane=lane)
        views = blobs(self.graph, weights)
        forecast = Forecast(self.graph, [1.0] * LAYERS)
        self.session = Session(self.graph, b"graph", views, forecast, options)
        self.now = 100.0
        self.said: dict[str, deque[messages.Message]] = {FIRST: deque(), LANE: deque()}
        self.done: list[events.Command] = []
        self.held = dict.fromkeys(range(LAYERS), 0)
        self.came: dict[str, messages.Segment] = {}

    def step(self, event: events.Event, after_s: float = 0.001) -> list[events.Command]:
        self.now += after_s
        commands = self.session.handle(event, self.now)
        for command in commands:
            if isinstance(command, events.SendMessage):
                self.said[FIRST].append(command.message)
            elif isinstance(command, events.SendOnLane):
                self.said[LANE].append(command.message)
            elif not isinstance(command, events.Record):
                self.done.append(command)
        return commands

    def say(self, where: str, message: messages.Message) -> list[events.Command]:
        return self.step(HEARD[where](message))

    def upload(self) -> None:
        """Up to the point where weights go, and a lane is opened if one is wanted."""
        self.step(events.Started())
        self.step(events.Connected())
        self.say(FIRST, WELCOME)
        self.said[FIRST].clear()
        self.say(FIRST, messages.Pong(0, 0.0))
        self.have()

    def have(self) -> None:
        groups = groupby(count == ELEMENTS for count in self.held.values())
        runs = [(whole, len(list(group))) for whole, group in groups]
        lengths = [0] * runs[0][0] + [length for _, length in runs]
        partial = [
            messages.Partial(number, WHOLE, count)
            for number, count in self.held.items()
            if 0 < count < ELEMENTS
        ]
        said = messages.Have(self.graph.fingerprint, "one", tuple(lengths), tuple(partial))
        self.say(FIRST, said)

    def store(self, where: str, most: int = 10**6) -> int:
        """Take up to so many of the weights' messages that came here, and answer them."""
        for taken in range(most):
            if not self.said[where] or self.session.phase == "ready":
                return taken
            self._store(where, self.said[where].popleft())
        return most

    def _store(self, where: str, message: messages.Message) -> None:
        if isinstance(message, messages.Segment):
            assert message.start == self.held[message.weight], "out of order"
            self.came[where] = message
        elif isinstance(message, messages.Chunk):
            segment = self.came.pop(where)
            assert len(message.payload) == segment.coded_bytes, "these are sent in one chunk"
            self.held[segment.weight] = stop = segment.start + segment.count
            self.say(where, messages.ChunkAck(self.now))
            self.say(where, messages.Held(segment.weight, WHOLE, stop, stop == ELEMENTS))

    def join(self) -> None:
        """Up to the point where the lane carries weights."""
        self.upload()
        self.greet_lane()
        self.store(FIRST)
        assert self.said[LANE].popleft() == messages.Join(WELCOME.lane)
        self.say(LANE, messages.Joined())

    def greet_lane(self) -> None:
        self.step(events.LaneConnected())
        assert self.said[LANE].popleft() == messages.Hello(2, 2, "ionn-client")
        self.say(LANE, WELCOME)

    def finish(self, where: str) -> None:
        self.store(where)
        assert self.session.phase == "ready"
        assert all(count == ELEMENTS for count in self.held.values())

    def segments(self, where: str) -> list[messages.Segment]:
        return [each for each in self.said[where] if isinstance(each, messages.Segment)]

    @property
    def opened(self) -> int:
        return self.done.count(events.OpenLane())


def test_the_upload_moves_to_the_lane_when_all_else_is_held() -> None:
    bench = Bench()
    bench.upload()
    assert bench.opened == 1
    bench.step(events.LaneConnected())
    bench.said[LANE].clear()
    bench.store(FIRST, most=20)
    assert bench.segments(FIRST), "it goes on meanwhile"
    bench.say(LANE, WELCOME)
    begun = len(bench.segments(FIRST))
    bench.store(FIRST, most=2)
    assert len(bench.segments(FIRST)) == begun - 1, "no other is begun here"
    assert not bench.said[LANE]
    bench.store(FIRST)
    assert list(bench.said[LANE]) == [messages.Join(WELCOME.lane)]
    bench.said[LANE].clear()
    bench.say(LANE, messages.Joined())
    assert bench.segments(LANE)
    assert not bench.segments(FIRST)
    bench.finish(LANE)
    assert bench.said[LANE].pop() == messages.Bye("done")
    assert bench.done[-1] == events.CloseLane()
    assert bench.session.upload.resent_bytes == 0


def test_nothing_is_opened_that_was_not_asked_for() -> None:
    assert not Options().lane
    bench = Bench(lane=False)
    bench.upload()
    assert not bench.opened
    bench.finish(FIRST)
    assert not bench.said[LANE]


def test_nothing_is_opened_for_what_is_held() -> None:
    bench = Bench()
    bench.held = dict.fromkeys(bench.held, ELEMENTS)
    bench.upload()
    assert bench.session.phase == "ready"
    assert not bench.opened


def test_an_upload_that_is_over_first_needs_no_lane() -> None:
    bench = Bench()
    bench.upload()
    bench.step(events.LaneConnected())
    bench.finish(FIRST)
    assert bench.said[LANE][-1] == messages.Bye("done")
    assert bench.done[-1] == events.CloseLane()


OVERLOADED = messages.Error("overloaded", "too many", None)
UNEXPECTED = messages.Error("unexpected", "no connection was told of this lane", None)


@pytest.mark.parametrize("stage", ["opening", "greeting", "greeted", "joining"])
@pytest.mark.parametrize("refused", [False, True])
def test_before_it_carries_anything_a_lane_costs_nothing(stage: str, refused: bool) -> None:
    bench = Bench()
    bench.upload()
    query = bench.step(events.QueryAsked(7, (X,), None))
    if stage != "opening":
        bench.step(events.LaneConnected())
    if stage in ("greeted", "joining"):
        bench.say(LANE, WELCOME)
    if stage == "joining":
        bench.store(FIRST)
    if refused and stage != "opening":
        bench.say(LANE, UNEXPECTED if stage == "joining" else OVERLOADED)
        assert bench.done[-1] == events.AbortLane()
    else:
        bench.step(events.LaneLost("the connection broke"))
    assert bench.session.phase == "uploading"
    assert not any(isinstance(said, messages.Offer) for said in bench.said[FIRST])
    bench.finish(FIRST)
    assert bench.opened == 1, "once is enough on this connection"
    assert not {events.AbortConnection, events.OpenConnection} & set(kinds(bench.done[1:]))
    assert kinds(query)


@pytest.mark.parametrize("arrived", [0, 1, 2, 5])
@pytest.mark.parametrize("unheard", [0, 1, 2])
def test_a_lane_that_breaks_loses_nothing(arrived: int, unheard: int) -> None:
    """So many messages came and were answered; more came whose answers are lost."""
    bench = Bench()
    bench.join()
    bench.store(LANE, arrived)
    said, handle = bench.said[LANE], bench.session.handle
    bench.session.handle = lambda *_: []  # type: ignore[method-assign]
    bench.store(LANE, unheard)
    bench.session.handle = handle  # type: ignore[method-assign]
    said.clear()
    bench.came.clear()
    bench.step(events.LaneLost("the connection broke"))
    assert bench.said[FIRST].pop() == messages.Offer(bench.graph.fingerprint, b"")
    assert not bench.segments(FIRST), "first it is to be known what is there"
    bench.have()
    bench.finish(FIRST)
    assert bench.opened == 1
    assert not {events.AbortConnection, events.OpenConnection} & set(kinds(bench.done[1:]))


def test_queries_under_way_are_answered_while_it_is_asked_what_is_held() -> None:
    bench = Bench()
    bench.join()
    bench.store(LANE, 20)
    bench.step(events.QueryAsked(7, (X,), None))
    bench.step(events.LaneLost("the connection broke"))
    commands = bench.step(events.QueryAsked(8, (X,), None))
    assert only(commands, events.RunRange).query == 8, "new ones run here until it is known"
    assert events.FailQuery not in kinds(bench.done)


def test_an_eviction_ends_the_lane() -> None:
    bench = Bench()
    bench.join()
    commands = bench.say(FIRST, messages.Evicted(bench.graph.fingerprint, "two"))
    assert events.AbortLane() in commands
    assert bench.session.phase == "greeting"
    bench.said[LANE].clear()
    bench.held = dict.fromkeys(bench.held, 0)
    bench.said[FIRST].clear()
    bench.step(events.TimePassed(), after_s=10.0)
    bench.have()
    assert bench.opened == 2
    bench.finish(FIRST)


def test_an_eviction_that_crosses_the_question_makes_it_the_offer() -> None:
    bench = Bench()
    bench.join()
    bench.step(events.LaneLost("the connection broke"))
    bench.said[FIRST].clear()
    bench.say(FIRST, messages.Evicted(bench.graph.fingerprint, "two"))
    assert not bench.said[FIRST], "one offer is enough"
    bench.say(FIRST, messages.Unknown(bench.graph.fingerprint))
    assert bench.said[FIRST].pop() == messages.Offer(bench.graph.fingerprint, b"graph")
    bench.held = dict.fromkeys(bench.held, 0)
    bench.have()
    bench.finish(FIRST)
    assert bench.opened == 1, "no other after one that broke"


def test_the_lane_ends_with_the_first_and_another_comes_with_the_next() -> None:
    bench = Bench()
    bench.join()
    assert events.AbortLane() in bench.step(events.ConnectionLost("gone"))
    for said in bench.said.values():
        said.clear()
    bench.step(events.Connected())
    bench.say(FIRST, WELCOME)
    bench.said[FIRST].clear()
    bench.say(FIRST, messages.Pong(1, 0.0))
    bench.have()
    assert bench.opened == 2


def test_a_late_connection_is_closed() -> None:
    bench = Bench()
    bench.upload()
    bench.step(events.ConnectionLost("gone"))
    assert bench.step(events.LaneConnected())[-1] == events.CloseLane()


def test_weights_that_the_lane_carries_are_acknowledged_there() -> None:
    bench = Bench()
    bench.join()
    commands = bench.say(FIRST, messages.ChunkAck(bench.now))
    assert "that carries them" in only(commands, events.AbortConnection).reason


@pytest.mark.parametrize(
    "said",
    [
        messages.Joined(),
        messages.Held(LAYERS - 1, WHOLE, ELEMENTS, True),
        messages.Held(0, WHOLE, ELEMENTS, True),
        messages.Evicted("f", "e"),
        messages.Bye("draining"),
        messages.Error("digest", "it does not match", None),
    ],
)
def test_whatever_is_wrong_with_the_lane_the_first_goes_on(said: messages.Message) -> None:
    bench = Bench()
    bench.join()
    bench.say(LANE, said)
    assert bench.done[-1] == events.AbortLane()
    assert bench.said[FIRST].pop() == messages.Offer(bench.graph.fingerprint, b"")
    bench.have()
    bench.finish(FIRST)


def quiet(bench: Bench, late_s: float = 0.0) -> list[events.Command]:
    """Wait as long as the session likes, while only the first connection answers pings."""
    wake_at = bench.session.wake_at
    assert wake_at is not None
    commands = bench.step(events.TimePassed(), wake_at + late_s - bench.now)
    while bench.said[FIRST] and isinstance(ping := bench.said[FIRST][-1], messages.Ping):
        bench.said[FIRST].pop()
        commands += bench.say(FIRST, messages.Pong(ping.token, 0.0))
    return commands


@pytest.mark.parametrize("late_s", [0.0, 0.2])
@pytest.mark.parametrize("stage", ["greeting", "joining", "carrying"])
def test_a_lane_that_says_nothing_is_given_up_alone(stage: str, late_s: float) -> None:
    bench = Bench()
    bench.upload()
    bench.step(events.LaneConnected())
    began = bench.now
    if stage != "greeting":
        bench.say(LANE, WELCOME)
        bench.store(FIRST)
        began = bench.now
    else:
        bench.store(FIRST, 20)
        bench.session.context.pacer.may_send = lambda *_: False  # type: ignore
        bench.store(FIRST)
    if stage == "carrying":
        bench.say(LANE, messages.Joined())
    bench.done.clear()
    while events.AbortLane() not in bench.done:
        quiet(bench, late_s)
        # Its answer came in time, and only then is this machine late.
        late_s += 0.03
        assert bench.now < began + 3
    assert bench.now >= began + bench.session.options.silence_s
    assert kinds(bench.done) == [events.AbortLane]
    asked = [said for said in bench.said[FIRST] if isinstance(said, messages.Offer)]
    assert len(asked) == (stage == "carrying")


@pytest.mark.parametrize("heard_meanwhile", [False, True])
def test_silence_on_both_is_an_edge_that_is_gone(heard_meanwhile: bool) -> None:
    bench = Bench()
    bench.join()
    began = bench.now
    if heard_meanwhile:
        bench.step(events.MessageReceived(messages.Load(1, 0, 0, 1.0, 0, 1)), 0.2)
    bench.done.clear()
    while not bench.done:
        wake_at = bench.session.wake_at
        assert wake_at is not None
        bench.step(events.TimePassed(), wake_at - bench.now)
    assert bench.now - began < 1.1 * bench.session.options.silence_s
    assert set(kinds(bench.done)) == {
        events.AbortConnection,
        events.AbortLane,
        events.OpenConnection,
    }


def test_goodbye_ends_both() -> None:
    bench = Bench()
    bench.join()
    bench.done.clear()
    bench.step(events.Stopped())
    assert bench.done == [events.AbortLane(), events.CloseConnection("done")]


def test_the_edges_pings_are_answered_on_the_lane() -> None:
    bench = Bench()
    bench.join()
    bench.said[LANE].clear()
    bench.say(LANE, messages.Ping(3))
    assert any(isinstance(said, messages.Pong) for said in bench.said[LANE])


def test_other_events_of_a_lane_that_is_gone_mean_nothing() -> None:
    bench = Bench(lane=False)
    bench.upload()
    before: list[Any] = list(bench.done)
    bench.step(events.LaneLost("late"))
    bench.step(events.LaneHeard(messages.Joined()))
    assert bench.done == before
