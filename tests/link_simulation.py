"""A client that uploads and asks, one bottleneck link and an edge, on a virtual clock.

Packets, a router's queue that drops what does not fit, TCP that sends at once whatever its
congestion window allows and repeats what was lost, and the scheduling jitter of both programs.
The real UploadPacer decides what may be sent, by the rules of ionn_client.machine.session. Nothing
here sleeps, and the same seed gives the same run.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil

from ionn_client.machine.pacer import UploadPacer

SEGMENT_BYTES = 1448
PACKET_BYTES = 66
"""Ethernet, IP and TCP headers of each packet."""
CHUNK_BYTES = 13
"""WebSocket's and our own header of each chunk."""
RECORD_BYTES, RECORD_FRAMING_BYTES = 1 << 14, 22
"""Of TLS."""
ACKNOWLEDGEMENT_BYTES = 13
PAYLOAD_SHARE = SEGMENT_BYTES / (SEGMENT_BYTES + PACKET_BYTES)
REPLY_TICK_S = 0.003


@dataclass(frozen=True, slots=True)
class Scenario:
    """A link, what runs over it, and how punctual both ends are. Times in seconds.

    `rate_Bps` is that of packets, each way. `queue_s` is how long a full queue takes to drain.
    The edge stands still for up to `stall_s` about every `stall_every_s`.
    """

    rate_Bps: float
    round_trip_s: float
    queue_s: float = 0.5
    seconds: float = 10.0
    jitter_s: tuple[float, float] = (0.0002, 0.001)
    stall_every_s: float | None = None
    stall_s: tuple[float, float] = (0.005, 0.05)
    query_bytes: int = 0
    reply_bytes: int = 1000
    pause_s: float = 0.25
    upload: bool = True
    rate_changes: tuple[tuple[float, float], ...] = ()
    way_changes: tuple[tuple[float, float], ...] = ()
    edge_clock: Callable[[float], float] = lambda now: now + 12345.678
    seed: int = 1

    @property
    def payload_Bps(self) -> float:
        return self.rate_Bps * PAYLOAD_SHARE


@dataclass(slots=True)
class Outcome:
    """What was seen: query latencies, and (time, value) samples of everything else."""

    latencies_s: list[float] = field(default_factory=list)
    delivered: list[tuple[float, int]] = field(default_factory=list)
    rates: list[tuple[float, float | None]] = field(default_factory=list)
    queues_s: list[tuple[float, float]] = field(default_factory=list)
    drops: int = 0

    def goodput_Bps(self, start: float, stop: float) -> float:
        return sum(size for at, size in self.delivered if start <= at < stop) / (stop - start)

    def latency_s(self, quantile: float) -> float:
        ordered = sorted(self.latencies_s)
        return ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]

    def rate_at(self, now: float) -> float | None:
        return max((sample for sample in self.rates if sample[0] <= now), key=lambda s: s[0])[1]

    def worst_queue_s(self, start: float, stop: float) -> float:
        return max(queue_s for at, queue_s in self.queues_s if start <= at < stop)


@dataclass(slots=True)
class _Packet:
    number: int
    size: int
    done: Callable[[], None] | None
    arrived: bool = False


class _Agenda:
    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = 0

    def at(self, time: float, act: Callable[..., None], *args: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, act, args))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] < until:
            self.now, _, act, args = heapq.heappop(self._events)
            act(*args)


class _Bottleneck:
    """A first-in first-out queue of limited length in front of a link."""

    def __init__(self, agenda: _Agenda, scenario: Scenario) -> None:
        self.rate_Bps = scenario.rate_Bps
        self.way_s = scenario.round_trip_s / 2
        self.drops = 0
        self._limit_s = scenario.queue_s
        self._agenda = agenda
        self._waiting: deque[tuple[int, Callable[..., None], tuple[object, ...]]] = deque()
        self._waiting_bytes = 0
        self._busy = False
        self._last_arrival = 0.0

    @property
    def queueing_s(self) -> float:
        return self._waiting_bytes / self.rate_Bps

    def take(self, size: int, arrived: Callable[..., None], *args: object) -> bool:
        """Queue a packet; False if it is dropped."""
        if self._waiting_bytes + size > max(self._limit_s * self.rate_Bps, 3028):
            self.drops += 1
            return False
        self._waiting.append((size, arrived, args))
        self._waiting_bytes += size
        if not self._busy:
            self._serve()
        return True

    def _serve(self) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            self._agenda.at(self._agenda.now + self._waiting[0][0] / self.rate_Bps, self._served)

    def _served(self) -> None:
        size, arrived, args = self._waiting.popleft()
        self._waiting_bytes -= size
        self._last_arrival = max(self._last_arrival, self._agenda.now + self.way_s)
        self._agenda.at(self._last_arrival, arrived, *args)
        self._serve()


class _Stream:
    """One direction of a TCP connection: slow start, halving at loss, delivery in order."""

    def __init__(self, agenda: _Agenda, there: _Bottleneck, back: _Bottleneck) -> None:
        self._agenda, self._there, self._back = agenda, there, back
        self._unsent: deque[_Packet] = deque()
        self._flying: deque[_Packet] = deque()
        self._lost: deque[_Packet] = deque()
        self._window, self._threshold = 10.0, float("inf")
        self._reduced_until = self._most_flying = 0
        self._next_number = 0
        self._arrived: deque[_Packet] = deque()

    def write(self, size: int, done: Callable[[], None]) -> None:
        """Send `size` bytes; `done` is called when they all arrived, and all before them."""
        while size > 0:
            part = min(size, SEGMENT_BYTES)
            size -= part
            packet = _Packet(self._next_number, part, None if size else done)
            self._next_number += 1
            self._unsent.append(packet)
            self._arrived.append(packet)
        self._send()

    def _send(self) -> None:
        while (self._lost or self._unsent) and len(self._flying) < self._window:
            packet = self._lost.popleft() if self._lost else self._unsent.popleft()
            self._flying.append(packet)
            self._most_flying = max(self._most_flying, len(self._flying))
            if not self._there.take(packet.size + PACKET_BYTES, self._arrive, packet):
                # A tail loss probe (RFC 8985), should no later packet tell of the loss before.
                probe_s = 4 * self._there.way_s + 2 * self._there.queueing_s + 0.002
                self._agenda.at(self._agenda.now + probe_s, self._expire, packet)

    def _arrive(self, packet: _Packet) -> None:
        packet.arrived = True
        # Every second full packet is acknowledged by itself, the others along with data.
        own_bytes = PACKET_BYTES if packet.size == SEGMENT_BYTES and packet.number % 2 else 0
        self._back.take(own_bytes, self._acknowledged, packet)
        while self._arrived and self._arrived[0].arrived:
            done = self._arrived.popleft().done
            if done is not None:
                done()

    def _acknowledged(self, packet: _Packet) -> None:
        if packet not in self._flying:
            return
        # The link keeps the order, so whatever flew before this one and is not here was lost.
        while self._flying and self._flying[0] is not packet:
            self._lose(self._flying.popleft())
        self._flying.popleft()
        if 2 * self._most_flying >= self._window:
            self._window += 1.0 if self._window < self._threshold else 1.0 / self._window
        self._send()

    def _lose(self, packet: _Packet) -> None:
        if packet.arrived:
            return
        self._lost.append(packet)
        if packet.number >= self._reduced_until:
            self._reduced_until = self._next_number - len(self._unsent)
            self._window = self._threshold = max(0.7 * self._window, 4.0)

    def _expire(self, packet: _Packet) -> None:
        if packet in self._flying and not packet.arrived:
            self._flying.remove(packet)
            self._lose(packet)
            self._send()


class _Program:
    """Handles what reaches it in order, each a little late, and stands still now and then."""

    def __init__(self, agenda: _Agenda, jitter_s: tuple[float, float], seed: int) -> None:
        self._agenda, self._jitter_s = agenda, jitter_s
        self._random = random.Random(seed)
        self._free_at = 0.0

    def soon(self, act: Callable[..., None], *args: object) -> None:
        due = self._agenda.now + self._random.uniform(*self._jitter_s)
        self._free_at = max(self._free_at, due)
        self._agenda.at(self._free_at, act, *args)

    def stall(self, every_s: float, stall_s: tuple[float, float]) -> None:
        self._free_at = max(self._free_at, self._agenda.now + self._random.uniform(*stall_s))
        pause_s = every_s * self._random.uniform(0.5, 1.5)
        self._agenda.at(self._agenda.now + pause_s, self.stall, every_s, stall_s)


def framed_bytes(chunk_bytes: int) -> int:
    """What TCP carries for a chunk."""
    size = chunk_bytes + CHUNK_BYTES
    return size + ceil(size / RECORD_BYTES) * RECORD_FRAMING_BYTES


class _Run:
    """The client's rules (its session), and an edge that acknowledges and replies."""

    def __init__(self, scenario: Scenario) -> None:
        self.pacer = UploadPacer(1 << 20)
        self.outcome = Outcome()
        self._scenario = scenario
        self._agenda = agenda = _Agenda()
        self._up, self._down = _Bottleneck(agenda, scenario), _Bottleneck(agenda, scenario)
        self._upstream = _Stream(agenda, self._up, self._down)
        self._downstream = _Stream(agenda, self._down, self._up)
        self._client = _Program(agenda, scenario.jitter_s, 2 * scenario.seed)
        self._edge = _Program(agenda, scenario.jitter_s, 2 * scenario.seed + 1)
        self._random = random.Random(scenario.seed)
        self._asked_at: float | None = None
        self._ticking = False
        self._timer = 0

    def run(self) -> Outcome:
        scenario, agenda = self._scenario, self._agenda
        for at, rate_Bps in scenario.rate_changes:
            agenda.at(at, self._change_rate, rate_Bps)
        for at, round_trip_s in scenario.way_changes:
            agenda.at(at, self._change_way, round_trip_s)
        if scenario.stall_every_s is not None:
            agenda.at(1.0, self._edge.stall, scenario.stall_every_s, scenario.stall_s)
        if scenario.query_bytes:
            agenda.at(1.0, self._ask)
        agenda.at(0.0, self._send_chunks)
        agenda.run(scenario.seconds)
        self.outcome.drops = self._up.drops
        return self.outcome

    def _change_rate(self, rate_Bps: float) -> None:
        self._up.rate_Bps = self._down.rate_Bps = rate_Bps

    def _change_way(self, round_trip_s: float) -> None:
        self._up.way_s = self._down.way_s = round_trip_s / 2

    def _send_chunks(self) -> None:
        if not self._scenario.upload:
            return
        now = self._agenda.now
        credit_bytes = self._credit_bytes()
        while self.pacer.may_send(now, credit_bytes):
            size = self.pacer.chunk_bytes()
            self.pacer.sent(size, now)
            self._upstream.write(framed_bytes(size), partial(self._edge.soon, self._store, size))
        self.outcome.queues_s.append((now, self._up.queueing_s))
        self._set_timer(self.pacer.due_at(credit_bytes))

    def _set_timer(self, due_at: float | None) -> None:
        self._timer += 1
        if due_at is not None:
            # As epoll has it: rounded up to a millisecond.
            wait_s = ceil(max(due_at - self._agenda.now, 0.0) * 1e3) / 1e3
            self._agenda.at(self._agenda.now + wait_s, self._client.soon, self._wake, self._timer)

    def _wake(self, timer: int) -> None:
        if timer == self._timer:
            self._send_chunks()

    def _credit_bytes(self) -> float:
        if self._asked_at is None:
            return 0.0
        rate_Bps = self.pacer.mean_rate_Bps or 0.0
        reply_s = self._scenario.reply_bytes / (rate_Bps or 1e6)
        return min(self.pacer.stalled_s(self._agenda.now), reply_s) * rate_Bps

    def _store(self, size: int) -> None:
        now = self._agenda.now
        self.outcome.delivered.append((now, size))
        clock_s = self._scenario.edge_clock(now)
        self._downstream.write(
            ACKNOWLEDGEMENT_BYTES, lambda: self._client.soon(self._acknowledged, clock_s)
        )

    def _acknowledged(self, clock_s: float) -> None:
        self.pacer.acknowledged(clock_s, self._agenda.now)
        self.outcome.rates.append((self._agenda.now, self.pacer.mean_rate_Bps))
        self._send_chunks()

    def _ask(self) -> None:
        size = self._scenario.query_bytes
        self._asked_at = self._agenda.now
        self.pacer.carried(size, self._agenda.now)
        self._upstream.write(size + 60, lambda: self._edge.soon(self._reply))
        self._tick()

    def _reply(self) -> None:
        self.outcome.delivered.append((self._agenda.now, self._scenario.query_bytes))
        size = self._scenario.reply_bytes + 60
        self._downstream.write(size, lambda: self._client.soon(self._answered))

    def _answered(self) -> None:
        assert self._asked_at is not None
        self.outcome.latencies_s.append(self._agenda.now - self._asked_at)
        self._asked_at = None
        pause_s = self._scenario.pause_s * self._random.uniform(0.5, 1.5)
        self._agenda.at(self._agenda.now + pause_s, self._ask)
        self._send_chunks()

    def _tick(self) -> None:
        rate_Bps = self.pacer.mean_rate_Bps or 1e6
        if self._asked_at is None or self._scenario.reply_bytes / rate_Bps < REPLY_TICK_S:
            self._ticking = False
            return
        self._send_chunks()
        self._agenda.at(self._agenda.now + REPLY_TICK_S, self._tick)


def simulate(scenario: Scenario) -> Outcome:
    """Run it from an idle link and a fresh pacer."""
    return _Run(scenario).run()


def idle(scenario: Scenario) -> Outcome:
    """The same queries without the upload."""
    return simulate(replace(scenario, upload=False))
