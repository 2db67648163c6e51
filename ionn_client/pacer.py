"""How much of the upload may be in flight, so that the link is full and its queue is short.

Whatever is in flight beyond what the way itself holds stands in some router's queue, in front
of the next query. TCP fills those queues; this window, inside the connection, does not let it.

- *The queue is measured*, not inferred: the edge stamps each chunk's arrival with its clock, so
  a chunk's time on the way, less the least of the last seconds, is its wait in the uplink's queue.
  Neither replies nor acknowledgements that queue on the downlink disturb it. One-way delay as
  the signal is LEDBAT's (RFC 6817, section 2.4); the least delay as the base is Vegas's
  (Brakmo, O'Malley and Peterson 1994, section 3.2).
- *The window is steered* once a round by the shortest wait seen in it: what the queue holds
  more than a target is taken off the window, what it lacks is added. The shortest wait, because
  a queue that never empties is enough to keep the link busy; then the room for the jitter of
  both programs comes by itself. Where the queue stays empty the steps double, as in Copa
  (Arun and Balakrishnan 2018, section 2.1), so that a link that becomes faster is soon full.
- *Start-up* doubles the window each round trip until chunks wait.
- Every few seconds the queue is let run empty, as in BBR (Cardwell et al. 2016, "Steady-state
  behavior"): a wait that is in every sample would pass for a longer way. A way that did become
  longer shows when next to nothing is in flight and chunks still take longer.

Pure bookkeeping over (bytes, times). Times called `now` are the client's monotonic clock, times
called `clock_s` the edge's, of which only differences between chunks count.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from ionn_client.estimate import MEMORY_S, DeliveryRate, Smallest, Transit

# A packet's payload, and the part of it that is left to headers: chunks fill whole packets.
PACKET_BYTES = 1448
FRAMING_BYTES = 20
MAX_CHUNK_BYTES = 256 << 10
CHUNK_S = 0.0015
# Less than TCP's first congestion window (RFC 6928), which chunks must not wait for.
STARTUP_WINDOW_BYTES = 8 * PACKET_BYTES
TARGET_S = 0.00015
# Of the round trip: what queries hardly feel, and jitter needs.
TARGET_SHARE = 0.03
SPREAD_SHARE = 0.4
ROUND_CHUNKS = 16
ROUND_S = 0.02
STARTUP_WAIT_S = 0.004
RESIZE = 1.3
MARGIN_S = 0.01
STUCK_ROUNDS = 3
STUCK_S = 0.0005
GAP_S = 0.005
GAP_SHARE = 0.7
DRAIN_INTERVAL_S = 4.0
DRAIN_SHARE = 0.75
# So long without a sample (queries all the time), the window is made from the rate instead.
BLIND_S = 1.0


@dataclass(frozen=True, slots=True)
class _InFlight:
    number: int
    size_bytes: int
    carried_bytes: int
    sent_at: float
    flight_bytes: int
    filling: bool
    behind_query: bool


class UploadPacer:
    """Bounds the bytes in flight by what the uplink's queue is seen to hold.

    The caller asks `may_send`, sends a chunk of at most `chunk_bytes`, reports it with `sent`,
    and each acknowledgement, which come in order, with `acknowledged`.

    overtaken: queries go over another connection, and pass what is under way.
    """

    def __init__(self, max_chunk_bytes: int, *, overtaken: bool = False) -> None:
        self.overtaken = overtaken
        self._max_chunk_bytes = min(max_chunk_bytes, MAX_CHUNK_BYTES)
        self._rate = DeliveryRate()
        self._chunk_bytes = min(PACKET_BYTES - FRAMING_BYTES, self._max_chunk_bytes)
        self._window_bytes = float(STARTUP_WINDOW_BYTES)
        self._sized_for_Bps = 0.0
        self._startup = True
        self._steps_up = self._stuck = 0
        self._stuck_wait_s = 0.0
        self._drain_at = 0.0
        self._next_number = 0
        self._round_trips = Smallest(MEMORY_S)
        self._round_trip_s: float | None = None
        self._in_flight: deque[_InFlight] = deque()
        self._in_flight_bytes = self._carried_bytes = 0
        self._query_until: int | None = None
        self.reset_flight()

    @property
    def mean_rate_Bps(self) -> float | None:
        """The uplink's rate over the last second, by the receiver's clock, an edge's pauses
        left out: what plans are made on."""
        return self._rate.Bps

    @property
    def min_round_trip_s(self) -> float | None:
        """The smallest round trip of a chunk in the last seconds."""
        return self._round_trip_s

    @property
    def in_flight_bytes(self) -> int:
        return self._in_flight_bytes

    def chunk_bytes(self) -> int:
        """Size of the next chunk: about 1.5 ms of the link, in whole packets."""
        return self._chunk_bytes

    def window_bytes(self) -> float:
        if self._draining:
            return max(DRAIN_SHARE * self._window_bytes, 2.0 * self._chunk_bytes)
        return self._window_bytes

    def may_send(self, credit_bytes: float = 0.0) -> bool:
        return self._in_flight_bytes < self.window_bytes() + credit_bytes

    def stalled_s(self, now: float) -> float:
        """How long the oldest chunk's acknowledgement has been overdue."""
        trip = self._round_trip_s
        if trip is None or not self._in_flight:
            return 0.0
        return max(0.0, now - self._in_flight[0].sent_at - trip)

    def carried(self, size_bytes: int) -> None:
        """A query's bytes went out in front of the next chunk: the link was busy, not slow."""
        self._carried_bytes += size_bytes
        if self.overtaken:
            self._in_flight = deque(replace(each, behind_query=True) for each in self._in_flight)

    def sent(self, size_bytes: int, now: float) -> None:
        carried, self._carried_bytes = self._carried_bytes, 0
        number = self._next_number
        self._next_number += 1
        if carried:
            self._query_until = number
        self._in_flight_bytes += size_bytes
        filling = self._in_flight_bytes > self.window_bytes() - 2 * self._chunk_bytes
        behind = self._query_until is not None
        flight = self._in_flight_bytes
        self._in_flight.append(_InFlight(number, size_bytes, carried, now, flight, filling, behind))

    def acknowledged(self, clock_s: float, now: float) -> None:
        """The oldest chunk in flight was acknowledged; the edge received it at `clock_s`."""
        chunk = self._in_flight.popleft()
        self._in_flight_bytes -= chunk.size_bytes
        self._round_trip_s = self._round_trips.add(now - chunk.sent_at, now)
        if chunk.number == self._query_until:
            self._query_until = None
        if chunk.size_bytes != self._chunk_bytes:
            # Chunks of another size take another time: they say nothing about the queue.
            self._rate.add(clock_s, chunk.size_bytes + chunk.carried_bytes, filling=chunk.filling)
            return
        clock_s, wait_s = self._transit.observe(chunk.sent_at, clock_s, now)
        self._rate.add(clock_s, chunk.size_bytes + chunk.carried_bytes, filling=chunk.filling)
        if self._startup:
            self._start_up(chunk, wait_s)
        else:
            self._steer(chunk, wait_s, clock_s, now)

    def reset_flight(self) -> None:
        """The connection is gone, and with it whatever was in flight and the edge's clock."""
        self._in_flight.clear()
        self._in_flight_bytes = self._carried_bytes = 0
        self._query_until = None
        self._transit = Transit()
        self._rate.pause()
        self._begin_round(0.0)
        self._draining = False
        self._seen_at = 0.0

    def _resize_chunks(self) -> None:
        rate = self._rate.Bps
        if rate is None or self._sized_for_Bps / RESIZE < rate < self._sized_for_Bps * RESIZE:
            return
        # Bounded before it is made an int: a lying clock can make a rate infinite.
        packets = max(round(min(rate * CHUNK_S, self._max_chunk_bytes) / PACKET_BYTES), 1)
        size = min(packets * PACKET_BYTES - FRAMING_BYTES, self._max_chunk_bytes)
        if self._sized_for_Bps or size != self._chunk_bytes:
            # They take another time on an empty link, too.
            self._transit.forget()
            self._draining = True
        self._sized_for_Bps, self._chunk_bytes = rate, size

    def _start_up(self, chunk: _InFlight, wait_s: float) -> None:
        """Double the window each round trip until it is more than the way holds.

        Sent at twice the rate at which they leave, the last of a window's chunks wait for half
        of it; longer waits are the queue that the window is too large by. Only the very first
        are sent at once, and tell so only when they wait for longer than the way.
        """
        trip_s = self._transit.round_trip_s or 0.0
        first = chunk.number * chunk.size_bytes < STARTUP_WINDOW_BYTES
        most_s = max(STARTUP_WAIT_S, 0.4 * trip_s)
        if wait_s <= most_s:
            if chunk.filling:
                # Doubling per round trip is adding what each acknowledgement brings.
                self._window_bytes += chunk.size_bytes * (1 - 0.8 * wait_s / most_s)
        elif not chunk.behind_query and (not first or wait_s > trip_s):
            self._startup = False
            self._window_bytes = chunk.flight_bytes * min(trip_s / wait_s, 1.0)
            self._begin_round(0.0)

    def _begin_round(self, now: float) -> None:
        """The window changed: only chunks that are sent from now on show what came of it."""
        self._round_from = self._next_number
        self._round_began = now
        self._shortest_wait_s = float("inf")
        self._waits_s = self._longest_gap_s = 0.0
        self._last_number, self._last_clock_s = -2, 0.0
        self._samples = 0
        self._round_filled = False

    def _steer(self, chunk: _InFlight, wait_s: float, clock_s: float, now: float) -> None:
        if chunk.number < self._round_from:
            return
        if not self._samples:
            self._round_began = now
        if chunk.behind_query:
            self._steer_blind(now)
            return
        self._seen_at = now
        self._samples += 1
        if chunk.number == self._last_number + 1:
            self._longest_gap_s = max(self._longest_gap_s, clock_s - self._last_clock_s)
        self._last_number, self._last_clock_s = chunk.number, clock_s
        self._round_filled |= chunk.filling
        self._waits_s += wait_s
        self._shortest_wait_s = min(self._shortest_wait_s, wait_s)
        # Chunks may travel in a clump: only a whole round trip shows them all.
        whole_s = max(ROUND_S, self._transit.round_trip_s or 0.0)
        if self._samples >= ROUND_CHUNKS and now - self._round_began >= whole_s:
            self._end_round(now)

    def _end_round(self, now: float) -> None:
        if self._draining:
            self._draining = False
            self._drain_at = now + DRAIN_INTERVAL_S
        else:
            self._move_window(now)
            self._draining = now >= self._drain_at
            self._resize_chunks()
        self._begin_round(now)

    def _move_window(self, now: float) -> None:
        trip_s = self._transit.round_trip_s or 0.0
        rate = (self._samples - 1) * self._chunk_bytes / (now - self._round_began)
        spread_s = self._waits_s / self._samples - self._shortest_wait_s
        # A packet that takes longer than a chunk should is queue enough.
        share = TARGET_SHARE if self._chunk_bytes > PACKET_BYTES else 0.0
        target_s = TARGET_S + share * trip_s + SPREAD_SHARE * spread_s
        lack_s = target_s - self._shortest_wait_s
        window = self._window_bytes
        if lack_s > 0:
            self._stuck = 0
            if self._round_filled:
                self._steps_up += 1
                step = lack_s * rate * 2.0 ** max(self._steps_up - 2, 0)
                # No link needs more that delivered what this one did in the round.
                most = rate * (trip_s + max(trip_s / 2, MARGIN_S)) + 2 * self._chunk_bytes
                self._window_bytes = max(min(window + step, most), window)
            return
        self._steps_up = 0
        if -lack_s > GAP_S and self._longest_gap_s > GAP_SHARE * self._shortest_wait_s:
            # A queue that never ran empty would have kept the link busy: the way is longer.
            self._transit.forget()
            return
        least = max(rate * trip_s, 2.0 * self._chunk_bytes)
        if -lack_s * rate < self._chunk_bytes <= PACKET_BYTES and window > 2.01 * self._chunk_bytes:
            # One packet less would let the queue run empty: keep the whole packets.
            least = max(least, window - (window - 1) % self._chunk_bytes)
        elif lack_s < -STUCK_S:
            self._doubt_the_way()
        self._window_bytes = min(max(window + lack_s * rate, least), window)

    def _doubt_the_way(self) -> None:
        """Waits that do not become shorter with the window are no queue: the way is longer."""
        if not self._stuck or self._shortest_wait_s < 0.7 * self._stuck_wait_s:
            self._stuck, self._stuck_wait_s = 0, self._shortest_wait_s
        self._stuck += 1
        if self._stuck > STUCK_ROUNDS:
            self._stuck = 0
            self._transit.forget()

    def _steer_blind(self, now: float) -> None:
        rate, trip_s = self._rate.Bps, self._transit.round_trip_s
        if now - self._seen_at > BLIND_S and rate is not None and trip_s is not None:
            self._window_bytes = rate * (trip_s + 2 * TARGET_S) + 2 * self._chunk_bytes
