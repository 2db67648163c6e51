"""A hostile edge's messages, on both connections, and a driver's events, into the client's session.

Never an exception; nothing is sent on a connection that is not there; every query has one answer,
which is the model's own where the edge gave none; and once nothing comes from outside any more,
what is open is answered here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ionn_client import Options
from ionn_client.errors import DeadlineExceeded
from ionn_client.machine import events
from ionn_client.machine.audit import difference
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.session import Session
from ionn_client.machine.tensors import live_from_wire, live_to_wire
from layergraph import execute
from planner import Link
from tests.fuzz.mutation import damaged
from tests.fuzz.streams import Reader, play
from tests.fuzz.target import Target
from tests.support import ELEMENTS, FAST_EDGE, WIDTH, blobs, chain
from wire import Encoder, RemoteProtocolError, encode_segment, messages
from wire.activations import decode_tensor, encode_tensor
from wire.messages import Tensor

LAYERS = 3
GRAPH, WEIGHTS = chain(LAYERS)
BLOBS = blobs(GRAPH, WEIGHTS)
X = torch.ones(1, WIDTH)
# At each cut, by the model itself.
TRUTH = [(X,), *(execute(GRAPH, WEIGHTS, 0, stop, (X,)) for stop in range(1, LAYERS + 1))]
OPTIONS = Options(assumed_link=Link(1e6, 1e6, 0.01), replan=False)
VARIANTS = (
    OPTIONS,
    replace(OPTIONS, lane=True),
    replace(OPTIONS, precision="progressive", audit_share=1.0),
    replace(OPTIONS, hedging=False, lane=True, precision="progressive"),
    replace(OPTIONS, activation_tolerance=0.1, audit_share=1.0),
    replace(OPTIONS, keep_local=(1, 0)),
    replace(OPTIONS, algorithm="ionn", acknowledge="partition"),
)
PAUSES = (0.0, 0.001, 0.05, 0.4, 2.0, 11.0, 100.0)
PRECISIONS, CODINGS = ("float8", "bfloat16", "exact"), ("raw", "planes", "affine8")
MOST_QUERIES = 6


class Played:
    """A session, the driver that performs its commands, and what must hold of them."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.now = 100.0
        forecast = Forecast(GRAPH, [reader.of((1.0, 1e-6))] * LAYERS)
        self.session = Session(GRAPH, b"graph", BLOBS, forecast, reader.of(VARIANTS))
        self.encoder = Encoder()
        self.link = self.lane = self.opening = self.opening_lane = False
        self.stopped = False
        self.numbers = itertools.count()
        # Deadline of each open query, and those to which the edge has said anything.
        self.open: dict[int, float | None] = {}
        self.touched: set[int] = set()
        self.work: list[events.Command] = []
        self.executes: list[messages.Execute] = []
        self.segments: list[messages.Segment] = []
        self.pings: list[int] = []
        self.tell(events.Started())

    def tell(self, event: events.Event) -> None:
        for command in self.session.handle(event, self.now):
            self.perform(command)
        wake_at = self.session.wake_at
        if wake_at is not None and wake_at <= self.now and type(event) is not events.TimePassed:
            self.tell(events.TimePassed())
            after = self.session.wake_at
            assert after is None or after > self.now, "it wakes for ever"

    def perform(self, command: events.Command) -> None:
        match command:
            case events.SendMessage(message):
                assert self.link, "something is said on no connection"
                self.said(message)
            case events.SendOnLane(message):
                assert self.lane, "something is said on no lane"
                self.said(message)
            case events.OpenConnection():
                self.opening = True
            case events.OpenLane():
                assert self.link
                self.opening_lane = True
            case events.CloseConnection() | events.AbortConnection():
                self.link = False
            case events.CloseLane() | events.AbortLane():
                self.lane = self.opening_lane = False
            case events.FinishQuery(number, answer):
                del self.open[number]
                assert [tuple(each.shape) for each in answer.live] == [(1, WIDTH)]
                if number not in self.touched:
                    assert torch.equal(answer.live[0], TRUTH[LAYERS][0]), "a wrong answer"
            case events.FailQuery(number, error):
                deadline = self.open.pop(number)
                late = deadline is not None and isinstance(error, DeadlineExceeded)
                assert late or self.stopped, f"a query fails: {error}"
            case events.Record() | events.Quarantine():
                pass
            case _:
                self.work.append(command)

    def said(self, message: messages.Message) -> None:
        self.encoder.encode(message)
        match message:
            case messages.Execute():
                self.executes = [*self.executes[-3:], message]
            case messages.Segment():
                self.segments = [*self.segments[-3:], message]
            case messages.Ping(token):
                self.pings = [*self.pings[-3:], token]

    # What happens.

    def step(self) -> None:
        if self.reader.below(3) == 0:
            self.now += self.reader.of(PAUSES)
            self.tell(events.TimePassed())
        match self.reader.below(4):
            case 0:
                self.happen()
            case 1 if self.lane:
                self.tell(events.LaneHeard(self.message()))
            case _ if self.link:
                self.tell(events.MessageReceived(self.message()))
            case _:
                self.happen()

    def happen(self) -> None:
        happening = self.reader.of(_HAPPENINGS)(self)
        if happening is not None:
            self.tell(happening)

    def message(self) -> messages.Message:
        message = self.reader.of(_MESSAGES)(self)
        if isinstance(message, messages.Result):
            self.touched.add(message.query)
        return message

    def done(self, command: events.Command) -> events.Event:
        """What the driver reports of the work."""
        match command:
            case events.RunRange(query, start, stop, live):
                if query not in self.touched:
                    assert torch.equal(live[0], TRUTH[start][0])
                return events.RangeRan(
                    query, start, stop, execute(GRAPH, WEIGHTS, start, stop, live), 1e-4
                )
            case events.AuditRange():
                return _audited(command)
            case events.CodeSegment(piece, dtype, blob):
                payload = encode_segment(
                    dtype, piece.plane, blob, piece.start, piece.count, "planes"
                )
                return events.SegmentCoded(piece, payload, 1e-4)
            case events.EncodeTensors(query, tensors, coding):
                coded = tuple(encode_tensor(tensor, coding) for tensor in tensors)
                return events.TensorsEncoded(query, coded, 1e-4)
            case events.DecodeTensors(query, tensors):
                try:
                    return events.TensorsDecoded(query, tuple(map(decode_tensor, tensors)), 1e-4)
                except RemoteProtocolError as error:
                    return events.TensorsUndecodable(query, str(error))
        raise AssertionError(f"{command} is nobody's")

    def finish(self) -> None:
        """Nothing comes from outside any more: all that is open is answered."""
        for _ in range(400):
            if not self.open:
                return
            if self.work:
                self.tell(self.done(self.work.pop(0)))
            else:
                self.now += 0.5
                self.tell(events.TimePassed())
        raise AssertionError(f"queries {list(self.open)} hang")


def _audited(command: events.AuditRange) -> events.Event:
    try:
        live = command.live
        if command.coded:
            raw = tuple(map(decode_tensor, command.coded))
            live = live_from_wire(raw, GRAPH, command.start)
        live = execute(GRAPH, WEIGHTS, command.start, command.stop, live)
        apart = None if command.claimed is None else difference(live, command.claimed)
    except Exception as error:
        # As the driver does, whatever tensors of a liar's raise.
        return events.RangeNotAudited(command.audit, repr(error))
    return events.RangeAudited(command.audit, command.stop, live, apart, 1e-4)


# What an edge may say.


def _welcome(played: Played) -> messages.Message:
    reader = played.reader
    predictor = reader.of((FAST_EDGE, {}, {"x": 1}))
    most = reader.of((1 << 26, 1, 600))
    return messages.Welcome(
        *(reader.of((2, 2, 3)), "fuzz", "e", "cpu", 1, 1 << 30, most),
        *(reader.of((1 << 20, 1, 40)), predictor, "lane", 1.0),
    )


def _have(played: Played) -> messages.Message:
    reader = played.reader
    runs = reader.of(((LAYERS,), (0, LAYERS), (1, 1, 1), (0, 2, 1), (1,), (0, 9), (2, 1)))
    rows = [
        messages.Partial(weight, reader.below(4), 1 + reader.below(80))
        for weight in range(reader.below(3))
    ]
    fingerprint = reader.of((GRAPH.fingerprint,) * 5 + ("other",))
    return messages.Have(fingerprint, reader.of(("e", "f")), runs, tuple(rows))


def _held(played: Played) -> messages.Message:
    reader = played.reader
    if played.segments and reader.below(4):
        segment = reader.of(played.segments)
        stop = segment.start + segment.count
        complete = segment.plane in (0, 3) and stop == ELEMENTS
        return messages.Held(segment.weight, segment.plane, stop, complete)
    return messages.Held(
        reader.below(5), reader.below(4), reader.of((0, 1, 64, 99)), reader.below(2) > 0
    )


def _result(played: Played) -> messages.Message:
    reader = played.reader
    query, start, stop, precision = reader.below(8), 0, LAYERS, "exact"
    if played.executes and reader.below(5):
        asked = reader.of(played.executes)
        query, start, stop, precision = asked.query, asked.start, asked.stop, asked.precision
    stop = max(start + 1, stop - reader.of((0, 0, 0, 1, 2)))
    times = (reader.of((0.0, 1e-4, 1e300)), 0.0, reader.of((1e-4, 0.0, 1e300)))
    tensors = reader.of(_TENSORS)
    if tensors is None:
        tensors = live_to_wire(TRUTH[min(stop, LAYERS)])
    return messages.Result(query, start, stop, reader.of((precision, *PRECISIONS)), *times, tensors)


def _floats(value: float, *shape: int) -> Tensor:
    return live_to_wire((torch.full(shape, value),))[0]


# None is the truth.
_TENSORS: tuple[tuple[Tensor, ...] | None, ...] = (
    None, None, None, (_floats(0.5, 1, WIDTH),), (_floats(float("nan"), 1, WIDTH),),
    (_floats(float("inf"), 1, WIDTH),), (), (_floats(0.5, WIDTH, 1),), (_floats(0.5, 2, WIDTH),),
    (_floats(1.0, 1, WIDTH),) * 2, (Tensor("int64", (1, WIDTH), (0, 1), bytes(8 * WIDTH)),),
    (Tensor("float32", (1, WIDTH), (0, 1), b"\1\0\0\xff", "planes"),),
    (Tensor("float32", (1, WIDTH), (0, 1), b"\0\x05", "affine8"),),
    (Tensor("float32", (1, WIDTH), (1, 0), bytes(4 * WIDTH)),),
)  # fmt: skip


def _error(played: Played) -> messages.Message:
    reader = played.reader
    query = reader.below(8) if reader.below(3) else None
    if query is not None and played.executes:
        query = reader.of(played.executes).query
    codes = ("overloaded", "input", "execution", "deadline", "not-uploaded", "memory", "version",
             "graph", "digest", "coding")  # fmt: skip
    return messages.Error(reader.of(codes), "no", query)


def _pong(played: Played) -> messages.Message:
    token = played.reader.below(9)
    if played.pings and played.reader.below(4):
        token = played.reader.of(played.pings)
    return messages.Pong(token, played.reader.of((0.0, 5.0)))


_MESSAGES: tuple[Callable[[Played], messages.Message], ...] = (
    _welcome, _have, _have, _held, _held, _result, _result, _error, _pong,
    lambda played: messages.ChunkAck(played.reader.of((0.0, played.now, 1e300))),
    lambda played: messages.ChunkAck(played.now),
    lambda played: messages.Unknown(played.reader.of((GRAPH.fingerprint, "other"))),
    lambda played: messages.Evicted(played.reader.of((GRAPH.fingerprint, "other")), "f"),
    lambda played: messages.Load(1, 0, 0, played.reader.of((1.0, 1e300)), 0, 1),
    lambda played: messages.Ping(played.reader.byte()),
    lambda _: messages.Bye("draining"),
    lambda _: messages.Joined(),
    lambda _: messages.GetLoad(),
)  # fmt: skip


# What may happen to the driver.

_Happening = events.Event | None


def _asked(played: Played) -> _Happening:
    if len(played.open) >= MOST_QUERIES or played.stopped:
        return None
    reader, number = played.reader, next(played.numbers)
    least = "exact" if played.session.options.precision == "exact" else reader.of(PRECISIONS)
    deadline_s = reader.of((None, None, 0.0, 0.5, 30.0))
    played.open[number] = deadline_s
    return events.QueryAsked(number, (X,), deadline_s, least, reader.below(2) > 0)


def _abandoned(played: Played) -> _Happening:
    number = played.reader.below(8)
    played.open.pop(number, None)
    return events.QueryAbandoned(number)


def _worked(played: Played) -> _Happening:
    if not played.work:
        return None
    return played.done(played.work.pop(played.reader.below(len(played.work))))


def _connected(played: Played) -> _Happening:
    if not played.opening:
        return None
    played.opening = False
    if played.reader.below(4) == 0:
        return events.ConnectionLost("refused")
    played.link = True
    return events.Connected()


def _lost(played: Played) -> _Happening:
    if not played.link:
        return None
    played.link = False
    return events.ConnectionLost("reset")


def _lane_connected(played: Played) -> _Happening:
    if not played.opening_lane:
        return None
    played.opening_lane = False
    if played.reader.below(4) == 0:
        return events.LaneLost("refused")
    played.lane = True
    return events.LaneConnected()


def _lane_lost(played: Played) -> _Happening:
    if not played.lane:
        return None
    played.lane = False
    return events.LaneLost("reset")


def _stopped(played: Played) -> _Happening:
    if played.stopped or played.reader.below(4):
        return None
    played.stopped = True
    return events.Stopped()


_HAPPENINGS: tuple[Callable[[Played], Any], ...] = (
    _asked, _asked, _asked, _abandoned, _worked, _worked, _worked, _worked, _connected,
    _connected, _lost, _lane_connected, _lane_connected, _lane_lost, _stopped,
    lambda _: events.TimePassed(),
)  # fmt: skip


def check(data: bytes) -> str:
    """Raises where a rule above does not hold; tells how the session ended."""
    played = play(data, Played)
    played.finish()
    return played.session.phase


def seeds() -> list[bytes]:
    """Steps of a conversation: connected, greeted, held; then queries, segments, a lane."""
    # Step: pause?, whence, which, its own choices.
    connected, welcome, pong = [1, 0, 8, 1], [1, 2, 0, 0, 0, 0, 0], [1, 2, 8, 0, 1, 0, 0]
    have_all, have_none = [1, 2, 1, 1, 0, 0, 0], [1, 2, 1, 0, 0, 0, 0]
    greeted = [*connected, *welcome, *pong]
    ready, uploading = [*greeted, *have_all], [*greeted, *have_none]
    asked, worked = [1, 0, 0, 0, 0], [1, 0, 4, 0]
    answered = [1, 2, 5, 0, 1, 0, 0, 1, 1, 0, 0]
    acked, held = [1, 2, 10], [1, 2, 3, 1, 0]
    lane = [1, 0, 11, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 16]
    after = [
        ready, uploading, [*ready, *asked, *answered], [*ready, *asked, 0, 3, 1, 0, 13, *worked],
        [*uploading, *acked, *held, *acked, *held, *acked, *held, *asked],
        [*uploading, *lane, *acked, *held, 1, 0, 13, *have_all],
        [*ready, *asked, *asked, 1, 0, 10, *worked, *worked],
        [*ready, *asked, 1, 2, 7, 1, 0, 0], [*ready, 1, 2, 12, 0, *asked],
        [*ready, *asked, 1, 2, 5, 0, 1, 0, 0, 1, 1, 4, 0, *worked, *worked],
    ]  # fmt: skip
    return [
        bytes([slow, variant, *steps])
        for steps in after
        for variant in range(len(VARIANTS))
        for slow in (0, 1)
    ]


CLIENT_SESSION = Target(check, seeds, damaged)
