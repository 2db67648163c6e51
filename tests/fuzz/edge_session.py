"""A client's messages and the box's events, in any order, into the edge's session.

Never an exception, nothing after the end, no more kept than the limits say, one answer at most
for each query; and whatever is said may be said, as the client sees it, for as long as the
client keeps to the protocol itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from ionn_edge.config import Config
from ionn_edge.machine import events
from ionn_edge.machine.events import Model, Progress
from ionn_edge.machine.intake import Intake
from ionn_edge.machine.session import Session
from tests.fuzz.mutation import damaged
from tests.fuzz.streams import Reader, play
from tests.fuzz.target import Target
from wire import (
    Conversation,
    Encoder,
    LocalProtocolError,
    Role,
    State,
    messages,
)
from wire.messages import Tensor

A, B = (hashlib.sha256(name).digest() for name in (b"a", b"b"))
MODEL = Model("f" * 64, 3, ((A, 100, "float32"), (B, 50, "uint8"), (A, 100, "float32")))
HELD = (
    (Progress(),) * 3,
    (Progress(100), Progress(50), Progress(100)),
    (Progress(8, 25, 25), Progress(7), Progress(8, 25, 25)),
    (Progress(40), Progress(), Progress(40)),
)
CONFIG = Config(max_queries=3, max_restarts=1, range_timeout_s=5.0, max_waiting_bytes=8)
END = [events.EndLane(), events.StopWorker(), events.CloseConnection()]
PAUSES = (0.0, 0.001, 0.3, 2.0, 6.0, 25.0, 70.0)
PRECISIONS, CODINGS = ("float8", "bfloat16", "exact"), ("raw", "planes", "affine8-png")


def _welcome(version: int, now: float) -> messages.Welcome:
    return messages.Welcome(
        version, "edge", "e.0", "cpu", 1, 1000, 1 << 20, 1 << 10, {}, "lane", now
    )


class Played:
    """A session, the box that performs its commands, and what its client may expect."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.now = 0.0
        self.session = Session(CONFIG, _welcome)
        self.encoder = Encoder(CONFIG.limits)
        # What the client sees; None once it broke the protocol itself.
        self.client: Conversation | None = Conversation(Role.CLIENT)
        self.open: set[int] = set()
        self.cancelled: set[int] = set()
        self.awaited: list[events.Command] = []
        self.running: events.RunRange | None = None
        self.worker = False
        self.lane = False
        self.kept_bytes = 0
        self.over = False
        self.tell(events.Connected(reader.below(8) > 0, reader.below(2) > 0))

    # Events.

    def step(self) -> None:
        self.now += self.reader.of(PAUSES) if self.reader.below(4) == 0 else 0.0
        if self.reader.below(3):
            self.say(_MESSAGES[self.reader.below(len(_MESSAGES))](self.reader))
        else:
            happening = self.reader.of(_HAPPENINGS)(self)
            if happening is not None:
                self.tell(happening)

    def say(self, message: messages.Message) -> None:
        if self.client is not None:
            try:
                self.client.sent(message)
            except LocalProtocolError:
                # What crosses an eviction is taken for what was under way.
                self.over = self.over or self.client.state is not State.EVICTED
                self.client = None
        if isinstance(message, messages.Cancel) and message.query in self.open:
            self.open.discard(message.query)
            self.cancelled.add(message.query)
        if isinstance(message, messages.Execute):
            self.open.add(message.query)
        if isinstance(message, messages.Chunk):
            self.kept_bytes += len(message.payload)
        self.over = self.over or _is_farewell(message)
        self.tell(events.Received(message))

    def tell(self, event: events.Event) -> None:
        was_closed = self.session.closed
        commands = self.session.handle(event, self.now)
        if was_closed:
            assert commands == [], "something after the end"
            return
        for command in commands:
            self.perform(command)
        assert (commands[-3:] == END) == self.session.closed, "an end that is none"
        assert commands.count(END[-1]) == self.session.closed
        assert self.session.closed or not self.over, "it goes on after a goodbye or a breach"
        self.look()

    def look(self) -> None:
        session = self.session
        assert session.queued + session.running <= CONFIG.max_queries
        # A segment that is coming, of two connections at the most.
        assert self.kept_bytes <= 2 * CONFIG.limits.max_segment_bytes
        wake_at = session.wake_at
        assert (wake_at is None) == session.closed
        if wake_at is not None and wake_at <= self.now:
            self.tell_time()

    def tell_time(self) -> None:
        """What is due is done at once, and then no longer due."""
        for command in self.session.handle(events.TimePassed(), self.now):
            self.perform(command)
        wake_at = self.session.wake_at
        assert wake_at is None or wake_at > self.now, "it wakes for ever"

    # Commands.

    def perform(self, command: events.Command) -> None:
        match command:
            case events.Send(message):
                self.heard(message)
            case events.StoreSegment(_, payloads):
                self.kept_bytes = 0
                assert sum(map(len, payloads)) == command.segment.coded_bytes
                self.awaited.append(command)
            case events.RunRange(query):
                assert self.worker, "a range without a worker"
                assert self.running is None, "two ranges at once"
                assert query in self.open, "a range that nobody wants"
                self.running = command
            case events.StopWorker():
                self.worker, self.running = False, None
            case events.OpenModel() | events.JoinLane() | events.CountHeld():
                self.awaited.append(command)
            case events.RestartWorker():
                assert not self.worker
                self.awaited.append(command)
            case events.ReportLoad():
                self.awaited.append(command)

    def heard(self, message: messages.Message) -> None:
        self.encoder.encode(message)
        self.over = self.over or _is_farewell(message)
        if self.client is not None:
            self.client.received(message)
        if isinstance(message, messages.Result | messages.Error) and message.query is not None:
            query = message.query
            assert query in self.open or query in self.cancelled, "an answer to nothing"
            self.open.discard(query)
            self.cancelled.discard(query)

    def due(self, kind: type[events.Command]) -> events.Command | None:
        """The oldest of these commands that is not performed yet; now it is."""
        for place, command in enumerate(self.awaited):
            if isinstance(command, kind):
                return self.awaited.pop(place)
        return None


def _is_farewell(message: messages.Message) -> bool:
    over = isinstance(message, messages.Error) and message.query is None
    return over or isinstance(message, messages.Bye)


# What a client may say.

_TENSORS = tuple(
    (Tensor("uint8", (size,), (0,), bytes(size)),) if size else () for size in (0, 1, 5, 9)
)


def _segment(reader: Reader) -> messages.Segment:
    count = 1 + reader.below(110)
    return messages.Segment(
        *(reader.below(4), reader.below(4), reader.of((0, 0, 1, 2, 8, 10, 25, 50)), count),
        *(reader.of(("raw", "planes")), 1 + reader.below(200)),
    )


def _execute(reader: Reader) -> messages.Execute:
    start = reader.below(4)
    return messages.Execute(
        *(reader.below(6), start, start + 1 + reader.below(3)),
        *(reader.of((None, 0.0, 0.5, 60.0)), reader.of(PRECISIONS), reader.of(CODINGS)),
        reader.of(_TENSORS),
    )


_MESSAGES: tuple[Callable[[Reader], messages.Message], ...] = (
    lambda _: messages.Hello(2, 2, "fuzz"),
    lambda reader: messages.Hello(1 + reader.below(3), 4, "fuzz"),
    lambda reader: messages.Offer(reader.of((MODEL.fingerprint, "other")), b"graph"),
    lambda _: messages.Offer(MODEL.fingerprint, b""),
    lambda _: messages.Join("lane"),
    # One that fits, where nothing is held: all of a weight.
    lambda _: messages.Segment(1, 0, 0, 50, "raw", 50),
    lambda reader: messages.Segment(0, 1 + reader.below(3), 0, 25, "planes", 30),
    _segment,
    lambda reader: messages.Chunk(bytes(1 + reader.below(255))),
    lambda reader: messages.Chunk(bytes(reader.of((30, 50, 100, 5000)))),
    _execute,
    _execute,
    lambda reader: messages.Cancel(reader.below(6)),
    lambda reader: messages.Ping(reader.byte()),
    lambda reader: messages.Pong(reader.byte(), 0.0),
    lambda _: messages.GetLoad(),
    lambda _: messages.Bye("done"),
    lambda reader: messages.Error("execution", "mine", reader.of((None, 1))),
    # What only an edge says.
    lambda _: messages.Joined(),
    lambda _: messages.ChunkAck(0.0),
    lambda reader: messages.Result(reader.below(6), 0, 1, "exact", 0.0, 0.0, 0.0, ()),
)


# What may happen to the box, if it may now.

_Happening = events.Event | None


def _opened(played: Played) -> _Happening:
    if played.due(events.OpenModel) is None:
        return None
    match played.reader.below(6):
        case 0:
            return events.ModelUnknown()
        case 1:
            return events.ModelRefused(played.reader.of(("graph", "memory", "storage")), "no\n")
    played.worker = played.reader.below(3) > 0
    if not played.worker:
        played.awaited.append(events.RestartWorker())
    held = played.reader.of(HELD)
    return events.ModelOpened(MODEL, "e.1", held, played.worker)


def _joined(played: Played) -> _Happening:
    if played.due(events.JoinLane) is None:
        return None
    played.lane = played.reader.below(3) > 0
    if not played.lane:
        return events.LaneRefused("no")
    return events.LaneJoined(Intake(MODEL, played.reader.of(HELD), CONFIG.limits))


def _stored(played: Played) -> _Happening:
    command = played.due(events.StoreSegment)
    if not isinstance(command, events.StoreSegment):
        return None
    segment = command.segment
    if played.reader.below(4) == 0:
        return events.SegmentFailed(played.reader.of(("digest", "coding", "storage")), "why")
    end = segment.start + segment.count
    return events.SegmentStored(segment.weight, segment.plane, end, played.reader.below(2) > 0)


def _counted(played: Played) -> _Happening:
    counted = played.due(events.CountHeld)
    return counted and events.HeldCounted("e.1", played.reader.of(HELD))


def _ran(played: Played) -> _Happening:
    range_, played.running = played.running, None
    if range_ is None:
        return None
    if played.reader.below(3) == 0:
        return events.RangeFailed(range_.query, "input", "does not fit\x1b")
    began_at = played.now - played.reader.of(PAUSES)
    stop = range_.stop - played.reader.below(range_.stop - range_.start)
    return events.RangeRan(range_.query, stop, "exact", began_at, 0.1, 0.2, _TENSORS[1])


def _lost(played: Played) -> _Happening:
    restarting = None if played.worker else played.due(events.RestartWorker)
    if not played.worker and restarting is None:
        return None
    played.worker, played.running = False, None
    return events.WorkerLost("killed")


def _restarted(played: Played) -> _Happening:
    if played.worker or played.due(events.RestartWorker) is None or played.session.model is None:
        return None
    played.worker = True
    return events.WorkerRestarted()


def _evicted(played: Played) -> _Happening:
    # Of a busy client too: somebody may have had it forgotten.
    if played.session.model is None:
        return None
    return events.ModelEvicted("e.2")


def _load(_: Played) -> _Happening:
    return events.LoadReported(messages.Load(1, 0, 0, 1.0, 0, 1))


_HAPPENINGS: tuple[Callable[[Played], _Happening], ...] = (
    _opened, _opened, _joined, _stored, _stored, _counted, _ran, _ran, _lost, _restarted, _evicted,
    _load,
    lambda played: events.LaneOver() if played.lane else None,
    lambda _: events.Garbled("header is not valid msgpack"),
    lambda _: events.Draining(),
    lambda _: events.TimePassed(),
)  # fmt: skip


def check(data: bytes) -> str:
    """Raises where a rule above does not hold; tells how far the conversation came."""
    return "closed" if play(data, Played).session.closed else "open"


def seeds() -> list[bytes]:
    """Steps of a conversation: greeted, offered, opened; then a query, a segment, a lane."""
    # Step: pause?, message or happening?, which, its own choices.
    hello, offer, opened = [1, 1, 0], [1, 1, 2, 0], [1, 0, 0, 5, 1, 0]
    greeted = [1, 1, *hello]
    ready = [*greeted, *offer, *opened]
    query, ran = [1, 1, 10, 1, 0, 2, 0, 2, 0, 1], [1, 0, 6, 1, 0, 2]
    segment, chunk, stored = [1, 1, 5], [1, 1, 9, 1], [1, 0, 3, 1, 1]
    evicted, draining = [1, 0, 10], [1, 0, 14]
    lane = [*greeted, 1, 1, 4, 1, 0, 2, 1, 0]
    asked, counted = [1, 1, 3], [1, 0, 5, 0]
    return [
        bytes(each)
        for each in (
            ready,
            [*ready, *query, *ran, *query, *ran],
            [*ready, *segment, *chunk, *stored],
            [*ready, *query, *evicted, *ran, *evicted, *offer, *opened],
            [*ready, *query, 1, 0, 8, 1, 0, 9, *query, *ran],
            [*lane, *segment, *chunk, *stored, 1, 0, 12],
            [*ready, *asked, *counted, *asked, *evicted, *opened],
            [*ready, *query, *draining, *ran],
        )
    ]


EDGE_SESSION = Target(check, seeds, damaged)
