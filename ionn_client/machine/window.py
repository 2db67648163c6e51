"""How many bytes may be in flight: steered by how long chunks wait in the uplink's queue.

Knows nothing of chunk sizes' choice or of clocks: the pacer hands over each chunk's wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from ionn_client.machine.estimate import Transit

# A packet's payload.
PACKET_BYTES = 1448
# Less than TCP's first congestion window (RFC 6928), which chunks must not wait for.
STARTUP_WINDOW_BYTES = 8 * PACKET_BYTES
STARTUP_WAIT_S = 0.004
TARGET_S = 0.00015
# Of the round trip: what queries hardly feel, and jitter needs.
TARGET_SHARE = 0.03
SPREAD_SHARE = 0.4
PACKET_SHARE, FEW_PACKETS = 0.23, 3
ROUND_CHUNKS = 6
ROUND_S = 0.02
MARGIN_S = 0.01
STUCK_ROUNDS = 3
STUCK_S = 0.0005
EMPTY_SHARE = 0.2
GAP_S = 0.005
GAP_SHARE = 0.7
# Sooner after the start, when the queue is least known.
FIRST_DRAIN_INTERVAL_S, DRAIN_INTERVAL_S = 0.5, 4.0
DRAIN_SHARE = 0.75
# So long without a sample (queries all the time), the window is made from the rate instead.
BLIND_S = 1.0


@dataclass(slots=True)
class InFlight:
    """A chunk on its way. flight_bytes: all that was, when it was sent."""

    number: int
    size_bytes: int
    carried_bytes: int
    sent_at: float
    flight_bytes: int
    filling: bool
    behind_query: bool


class Window:
    """`bytes` may be in flight before the next chunk, which comes on top.

    A link is full when that is what the way holds while a chunk is served: rate x round trip.
    """

    def __init__(self, transit: Transit) -> None:
        self._full_bytes = float(STARTUP_WINDOW_BYTES)
        self._chunk_bytes = PACKET_BYTES
        self._least_bytes = float(PACKET_BYTES)
        self._startup = True
        self._lost = self.ran_empty = False
        self._steps_up = self._stuck = 0
        self._stuck_wait_s = self._queue_s = 0.0
        self._drain_at = 0.0
        self._drain_interval_s = FIRST_DRAIN_INTERVAL_S
        self._slack_s = 0.0
        self.restart(transit)

    def restart(self, transit: Transit) -> None:
        """Nothing is in flight any more, and the clocks may be others."""
        self._transit = transit
        self._draining = False
        self._seen_at = 0.0
        self.change_clocks()
        self._paused_until = 0.0
        self._begin_round(0, 0.0)

    def change_clocks(self) -> None:
        self._last_clock_s: float | None = None

    @property
    def bytes(self) -> float:
        return self._drained_bytes if self._draining else self._full_bytes

    @property
    def _drained_bytes(self) -> float:
        return max(DRAIN_SHARE * self._full_bytes, self._least_bytes)

    @property
    def starting_up(self) -> bool:
        return self._startup

    @property
    def lost_its_way(self) -> bool:
        """The way became longer, as far as the last round tells."""
        return self._lost

    def resized(self, chunk_bytes: int, least_bytes: float, slack_s: float) -> None:
        """Chunks are of this size from now on, and so much more queue does no harm.

        least_bytes: what they would be if they had to be small.
        """
        self._chunk_bytes, self._slack_s = chunk_bytes, slack_s
        self._least_bytes = least_bytes

    def shrink(self, times: float) -> None:
        """The link is so many times slower."""
        self._full_bytes = max(self._full_bytes / times, 0.5 * self._least_bytes)

    def observe(
        self, chunk: InFlight, wait_s: float, clock_s: float, now: float, rate_Bps: float | None
    ) -> bool:
        """A chunk arrived at `clock_s` after it waited for `wait_s`. Whether a round ended."""
        gap_s = self._gap_s(chunk, clock_s, rate_Bps)
        if self._startup:
            self._start_up(chunk, wait_s, gap_s, now)
            return False
        if chunk.number < self._round_from:
            return False
        if not self._samples:
            self._round_began, gap_s = now, 0.0
        if chunk.behind_query:
            self._steer_blind(now, rate_Bps)
            return False
        return self._sample(chunk, wait_s, gap_s, now)

    def _gap_s(self, chunk: InFlight, clock_s: float, rate_Bps: float | None) -> float:
        """How long nothing arrived before this chunk, as far as that is known."""
        last_s, self._last_clock_s = self._last_clock_s, clock_s
        if last_s is None or rate_Bps is None:
            return 0.0
        return clock_s - last_s - (chunk.size_bytes + chunk.carried_bytes) / rate_Bps

    def _start_up(self, chunk: InFlight, wait_s: float, gap_s: float, now: float) -> None:
        """Double the window each round trip until it is more than the way holds.

        Sent at twice the rate at which they leave, the last of a window's chunks wait for half
        of it; longer waits are the queue that the window is too large by. Only the very first
        are sent at once, and tell so only when they wait for longer than the way. What waits
        after a pause of the arrivals waited for the edge.
        """
        trip_s = self._transit.round_trip_s or 0.0
        first = chunk.number * chunk.size_bytes < STARTUP_WINDOW_BYTES
        most_s = max(STARTUP_WAIT_S, 0.4 * trip_s)
        if wait_s <= most_s:
            if chunk.filling:
                # Doubling per round trip is adding what each acknowledgement brings.
                self._full_bytes += chunk.size_bytes * (1 - 0.8 * wait_s / most_s)
            return
        if gap_s > wait_s / 2:
            self._paused_until = now + trip_s
        if chunk.behind_query or now < self._paused_until or (first and wait_s <= trip_s):
            return
        self._startup = False
        self._full_bytes = chunk.flight_bytes * min(trip_s / wait_s, 1.0)
        # The first window is too large; what it became is not known before the next round.
        self._drain_at = now + 3 * trip_s
        self._begin_round(chunk.number + 1, now)

    def _begin_round(self, from_number: int, now: float) -> None:
        """The window changed: only chunks that are sent from now on show what came of it."""
        self._round_from = from_number
        self._round_began = now
        self._shortest_wait_s = float("inf")
        self._waits_s = self._longest_gap_s = 0.0
        self._samples: int = 0
        self._round_bytes = 0
        self._round_filled = False

    def _sample(self, chunk: InFlight, wait_s: float, gap_s: float, now: float) -> bool:
        self._seen_at = now
        if self._samples:
            self._round_bytes += chunk.size_bytes
        self._samples += 1
        self._longest_gap_s = max(self._longest_gap_s, gap_s)
        self._round_filled |= chunk.filling
        self._waits_s += wait_s
        self._shortest_wait_s = min(self._shortest_wait_s, wait_s)
        # Chunks may travel in a clump: only a whole round trip shows them all.
        whole_s = max(ROUND_S, self._transit.round_trip_s or 0.0)
        if self._samples < ROUND_CHUNKS or now - self._round_began < whole_s:
            return False
        if self._draining:
            self._draining = False
            self._drain_at = now + self._drain_interval_s
            self._drain_interval_s = min(2 * self._drain_interval_s, DRAIN_INTERVAL_S)
            self._drained(now)
        else:
            self._move(now)
            self._draining = now >= self._drain_at
            self._queue_s = self._shortest_wait_s
        return True

    def _drained(self, now: float) -> None:
        """Where no chunk found a queue in front of it, what the quickest waited for is the way."""
        rate = self._round_bytes / (now - self._round_began)
        emptied_s = (self._full_bytes - self._drained_bytes - self._chunk_bytes) / rate
        if self._queue_s < emptied_s and self._shortest_wait_s > TARGET_S:
            self._transit.shift(self._shortest_wait_s - TARGET_S)

    def next_round(self, from_number: int, now: float) -> None:
        """A round ended; chunks from this number on are the next one's."""
        self._begin_round(from_number, now)

    def _move(self, now: float) -> None:
        self._lost, self.ran_empty = False, self._shortest_wait_s < EMPTY_SHARE * self._slack_s
        trip_s = self._transit.round_trip_s or 0.0
        rate = self._round_bytes / (now - self._round_began)
        spread_s = self._waits_s / self._samples - self._shortest_wait_s
        target_s = self._slack_s + TARGET_S + TARGET_SHARE * trip_s + SPREAD_SHARE * spread_s
        if self._chunk_bytes <= FEW_PACKETS * PACKET_BYTES:
            # Nothing smaller than a packet can stand behind what is being sent.
            target_s += PACKET_SHARE * PACKET_BYTES / rate
        lack_s = target_s - self._shortest_wait_s
        if lack_s > 0:
            self._stuck = 0
            if self._round_filled:
                self._widen(lack_s, rate, trip_s)
            return
        self._steps_up = 0
        if -lack_s > GAP_S and self._longest_gap_s > GAP_SHARE * self._shortest_wait_s:
            # A queue that never ran empty would have kept the link busy: the way is longer.
            self._forget_the_way()
            return
        if lack_s < -STUCK_S:
            self._doubt_the_way()
        # The chunk in service is part of the round trip, and comes on top of the window.
        least = max(rate * trip_s - self._chunk_bytes, 0.5 * self._least_bytes)
        self._full_bytes = min(max(self._full_bytes + lack_s * rate, least), self._full_bytes)

    def _widen(self, lack_s: float, rate: float, trip_s: float) -> None:
        self._steps_up += 1
        step = lack_s * rate * 2.0 ** max(self._steps_up - 2, 0)
        if self._full_bytes < 2 * self._least_bytes:
            # A window so small makes the rate small that steps are made of.
            step = max(step, self._least_bytes / 4)
        # No link needs more that delivered what this one did in the round.
        most = rate * (trip_s + max(trip_s / 2, MARGIN_S)) + self._chunk_bytes
        self._full_bytes = max(min(self._full_bytes + step, most), self._full_bytes)

    def _doubt_the_way(self) -> None:
        """Waits that do not become shorter with the window are no queue: the way is longer."""
        if not self._stuck or self._shortest_wait_s < 0.7 * self._stuck_wait_s:
            self._stuck, self._stuck_wait_s = 0, self._shortest_wait_s
        self._stuck += 1
        if self._stuck > STUCK_ROUNDS:
            self._stuck = 0
            self._forget_the_way()

    def _forget_the_way(self) -> None:
        self._lost = True
        self._transit.forget()

    def _steer_blind(self, now: float, rate_Bps: float | None) -> None:
        trip_s = self._transit.round_trip_s
        if now - self._seen_at > BLIND_S and rate_Bps is not None and trip_s is not None:
            self._full_bytes = rate_Bps * (trip_s + 2 * TARGET_S)
