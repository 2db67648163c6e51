"""What the acknowledgements and replies say about the link, and how much may be in flight.

Pure bookkeeping over (bytes, times): no sockets, no clock of its own. Times called `now` are
the client's monotonic clock, times called `clock_s` the edge's; the two are never compared.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from planner import Link

MIN_CHUNK_BYTES = 4 << 10
CHUNK_S = 0.003
SLACK_S = 0.003
RATE_MEMORY_S = 1.5
ROUND_TRIP_MEMORY_S = 10.0
DELIVERY_MEMORY_S = 1.0
STARTUP_WINDOW_BYTES = 32 << 10
# Every so often the queue is let run empty for a round trip: a round trip that was only ever
# measured behind one's own queue would make the window, and so that queue, grow without end.
DRAIN_INTERVAL_S = 4.0
# One phase in eight asks whether there is more bandwidth, the next drains what that queued.
CYCLE = (1.25, 0.85, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class _InFlight:
    size_bytes: int
    carried_bytes: int
    sent_at: float
    delivered_bytes: int
    delivered_clock_s: float | None


class _Extreme:
    """The largest value of the last `memory_s` seconds, kept in amortised constant time."""

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._falling: deque[tuple[float, float]] = deque()

    def add(self, value: float, now: float) -> None:
        while self._falling and self._falling[0][0] < now - self._memory_s:
            self._falling.popleft()
        # A value with a later, larger one behind it can never again be the largest.
        while self._falling and self._falling[-1][1] <= value:
            self._falling.pop()
        self._falling.append((now, value))

    @property
    def value(self) -> float | None:
        return self._falling[0][1] if self._falling else None


class UploadPacer:
    """Bounds the bytes in flight by the measured bandwidth x (smallest round trip + slack).

    A longer window would only stand in some router's queue, in front of the next query; a
    shorter one would leave the link idle between acknowledgements.
    """

    def __init__(self, max_chunk_bytes: int) -> None:
        self._max_chunk_bytes = max_chunk_bytes
        self._in_flight: deque[_InFlight] = deque()
        self._in_flight_bytes = 0
        self._carried_bytes = 0
        self._delivered_bytes = 0
        self._delivered_clock_s: float | None = None
        self._deliveries: deque[tuple[float, int]] = deque()
        self._rates = _Extreme(RATE_MEMORY_S)
        self._negated_round_trips = _Extreme(ROUND_TRIP_MEMORY_S)
        self._last_round_trip_s = 0.0
        self._acknowledged_at = 0.0
        self._startup = True
        self._startup_window = float(STARTUP_WINDOW_BYTES)
        self._best_startup_rate = 0.0
        self._rounds_without_growth = 0
        self._round_ends_at_bytes = 0

    @property
    def bandwidth_Bps(self) -> float | None:
        """The largest delivery rate of the last 1.5 s, by the receiver's clock."""
        return self._rates.value

    @property
    def mean_rate_Bps(self) -> float | None:
        """Delivery rate over the last second, by the receiver's clock: what plans are made on."""
        if len(self._deliveries) < 8:
            return None
        (first_s, first_bytes), (last_s, last_bytes) = self._deliveries[0], self._deliveries[-1]
        return (last_bytes - first_bytes) / (last_s - first_s) if last_s > first_s else None

    @property
    def min_round_trip_s(self) -> float | None:
        """The smallest chunk round trip of the last 10 s."""
        negated = self._negated_round_trips.value
        return None if negated is None else -negated

    @property
    def in_flight_bytes(self) -> int:
        return self._in_flight_bytes

    @property
    def _window_rate_Bps(self) -> float | None:
        """Bandwidth to size the window by.

        The largest rate is the link's when the sender paused, but a receiver that stalls and
        then catches up shows rates that the link never had; the mean bounds those.
        """
        largest, mean = self.bandwidth_Bps, self.mean_rate_Bps
        if largest is None or mean is None or not self._mean_is_settled:
            return largest
        return min(largest, 1.1 * mean)

    @property
    def _mean_is_settled(self) -> bool:
        """Whether the mean covers its whole second; before, it is mostly of the start-up."""
        return self._deliveries[-1][0] - self._deliveries[0][0] > 0.9 * DELIVERY_MEMORY_S

    def chunk_bytes(self) -> int:
        """Size of the next chunk: a few milliseconds of the link."""
        rate = self._window_rate_Bps
        if rate is None:
            return MIN_CHUNK_BYTES
        # Bounded before it is made an int: a lying clock can make a rate infinite.
        size = int(min(rate * CHUNK_S, self._max_chunk_bytes)) // 4096 * 4096
        return min(max(MIN_CHUNK_BYTES, size), self._max_chunk_bytes)

    def window_bytes(self, now: float) -> float:
        rate, trip = self._window_rate_Bps, self.min_round_trip_s
        if rate is None or trip is None or self._startup:
            return self._startup_window
        phase_s = max(trip, 0.02)
        # Rarely where round trips are long and so is each drain, but within their memory.
        interval_s = min(max(DRAIN_INTERVAL_S, 80 * phase_s), 0.8 * ROUND_TRIP_MEMORY_S)
        if now % interval_s < 1.2 * phase_s:
            return 2 * self.chunk_bytes()
        phase = int(now / phase_s) % len(CYCLE)
        # A chunk's round trip holds its own serialisation, which is no delay of the link.
        travel_s = max(trip - self.chunk_bytes() / rate, 0.0)
        return CYCLE[phase] * rate * (travel_s + SLACK_S) + 2 * self.chunk_bytes()

    def may_send(self, now: float, credit_bytes: float = 0.0) -> bool:
        return self._in_flight_bytes < self.window_bytes(now) + credit_bytes

    def stalled_s(self, now: float) -> float:
        """How long acknowledgements have been overdue."""
        trip = self.min_round_trip_s
        if trip is None or not self._in_flight:
            return 0.0
        return max(0.0, now - max(self._acknowledged_at + trip, self._in_flight[0].sent_at + trip))

    def carried(self, size_bytes: int) -> None:
        """A query's bytes went out in front of the next chunk: the link was busy, not slow."""
        self._carried_bytes += size_bytes

    def sent(self, size_bytes: int, now: float) -> None:
        carried, self._carried_bytes = self._carried_bytes, 0
        self._in_flight.append(
            _InFlight(size_bytes, carried, now, self._delivered_bytes, self._delivered_clock_s)
        )
        self._in_flight_bytes += size_bytes

    def acknowledged(self, clock_s: float, now: float) -> None:
        """The oldest chunk in flight was acknowledged; acknowledgements come in order."""
        chunk = self._in_flight.popleft()
        self._in_flight_bytes -= chunk.size_bytes
        self._delivered_bytes += chunk.size_bytes + chunk.carried_bytes
        self._acknowledged_at = now
        self._last_round_trip_s = now - chunk.sent_at
        self._negated_round_trips.add(-self._last_round_trip_s, now)
        if chunk.delivered_clock_s is not None and clock_s > chunk.delivered_clock_s:
            delivered = self._delivered_bytes - chunk.delivered_bytes
            self._rates.add(delivered / (clock_s - chunk.delivered_clock_s), now)
        self._delivered_clock_s = clock_s
        self._note_delivery(clock_s)
        if self._startup:
            self._grow()

    def reset_flight(self) -> None:
        """The connection is gone, and with it whatever was in flight."""
        self._in_flight.clear()
        self._in_flight_bytes = self._carried_bytes = 0
        self._delivered_clock_s = None
        self._deliveries.clear()

    def _note_delivery(self, clock_s: float) -> None:
        self._deliveries.append((clock_s, self._delivered_bytes))
        while self._deliveries[0][0] < clock_s - DELIVERY_MEMORY_S:
            self._deliveries.popleft()

    def _grow(self) -> None:
        """Start-up: double each round trip until the rate stops growing or a queue builds."""
        # Doubling per round trip is adding what each acknowledgement brings.
        self._startup_window += self.chunk_bytes()
        if self._delivered_bytes < self._round_ends_at_bytes:
            return
        self._round_ends_at_bytes = self._delivered_bytes + self._in_flight_bytes
        rate = self.bandwidth_Bps or 0.0
        if rate > 1.25 * self._best_startup_rate:
            self._best_startup_rate = rate
            self._rounds_without_growth = 0
        else:
            self._rounds_without_growth += 1
        trip_s = self.min_round_trip_s or 0.0
        queueing_s = self._last_round_trip_s - trip_s
        if self._rounds_without_growth >= 3 or queueing_s > max(0.03, trip_s):
            self._startup = False


class LinkEstimator:
    """The Link that routes and plans are made for, from acknowledgements and replies alone."""

    def __init__(self, assumed: Link) -> None:
        self._link = assumed
        self._down_measured = False

    @property
    def link(self) -> Link:
        return self._link

    def observe_upload(self, rate_Bps: float) -> None:
        """The pacer's current view of the uplink. Until a reply says more, the downlink is taken
        to be as fast."""
        down_Bps = self._link.down_Bps if self._down_measured else rate_Bps
        self._link = Link(rate_Bps, down_Bps, self._link.rtt_s)

    def observe_round_trip(self, rtt_s: float) -> None:
        self._link = Link(self._link.up_Bps, self._link.down_Bps, max(rtt_s, 0.0))

    def observe_hop(
        self, up_bytes: int, down_bytes: int, elapsed_s: float, busy_s: float, *, idle: bool
    ) -> None:
        """An Execute took `elapsed_s`, of which the edge was busy or queueing for `busy_s`.

        What remains is transfers: bytes/rate + rtt/2 each way. It is charged to the term that
        dominates: the round trip for small tensors, else the larger direction's rate. The
        uplink's rate is left to the upload while there is one (`idle` False).
        """
        link = self._link
        transfer_s = elapsed_s - busy_s
        up_s, down_s = up_bytes / link.up_Bps, down_bytes / link.down_Bps
        if max(up_s, down_s) < 2 * link.rtt_s + 0.002:
            self._blend(rtt_s=max(transfer_s - up_s - down_s, 1e-5))
        elif up_s >= down_s and idle:
            self._blend(up_Bps=up_bytes / max(transfer_s - link.rtt_s - down_s, 0.1 * up_s))
        elif down_s > up_s:
            self._down_measured = True
            self._blend(down_Bps=down_bytes / max(transfer_s - link.rtt_s - up_s, 0.1 * down_s))

    def _blend(self, **observed: float) -> None:
        values = {name: getattr(self._link, name) for name in ("up_Bps", "down_Bps", "rtt_s")}
        for name, value in observed.items():
            values[name] += 0.3 * (value - values[name])
        self._link = Link(**values)
