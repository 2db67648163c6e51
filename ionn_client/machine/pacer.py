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
- *Chunks* are small beside queries, because a query waits for what is under way, and large while
  nobody asks and the link stays what it is (see calm), because each costs both processors the
  same. Three that take longer than they should tell at once how much slower the link became.
- Every few seconds the queue is let run empty, as in BBR (Cardwell et al. 2016, "Steady-state
  behavior"): a wait that is in every sample would pass for a longer way. A way that did become
  longer shows when next to nothing is in flight and chunks still take longer.

Pure bookkeeping over (bytes, times). Times called `now` are the client's monotonic clock, times
called `clock_s` the edge's, of which only differences between chunks count.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil

from ionn_client.machine.calm import Calm
from ionn_client.machine.estimate import DeliveryRate
from ionn_client.machine.least_times import LeastTimes
from ionn_client.machine.window import PACKET_BYTES, InFlight, Window

# Around a chunk: the message's header and WebSocket's; then around each TLS record, which holds
# 16 KiB (RFC 8446, sections 5.1 and 5.2). In the clear the last of a chunk's packets has room left.
FRAMING_BYTES, RECORD_BYTES, RECORD_FRAMING_BYTES = 13, 1 << 14, 22
MAX_CHUNK_BYTES = 512 << 10
# Of the link, or of a longer round trip as much as queries hardly feel: a chunk costs both
# processors the same whatever its size.
CHUNK_S, LONGEST_CHUNK_S = 0.0015, 0.004
CHUNK_SHARE = 0.08
# Of the window while its size is not known yet.
STARTUP_CHUNK_SHARE = 1 / 16
RESIZE = 1.3
# Of large chunks, until the link must have changed. In their first round the shortest does not
# wait, whatever stands in the queue: it is the first to tell what they take.
EMPTY_ROUNDS = 2
# Timers of event loops go by milliseconds; what is due so soon goes at once.
EARLY_S = 0.0005


def whole_packets(size_bytes: float, most_bytes: int) -> int:
    """The chunk next to this size that fills whole packets with all that is around it: what stands
    over would be a packet of its own."""
    packets = max(round(min(size_bytes, most_bytes) / PACKET_BYTES), 1)
    whole_bytes = packets * PACKET_BYTES
    records = ceil(whole_bytes / (RECORD_BYTES + RECORD_FRAMING_BYTES))
    return min(whole_bytes - FRAMING_BYTES - records * RECORD_FRAMING_BYTES, most_bytes)


@dataclass(frozen=True, slots=True)
class _Company:
    """How large chunks are, for how many queries are about: of the link's time, so many times what
    is usual. slack_s: so much more queue does no harm.
    """

    times: float
    slack_s: float


QUERIES = _Company(1.0, 0.0)
# The first query that comes waits for half a chunk on average.
ALONE = _Company(2.0, 0.00075)
# On a link that does not change either: then calm tells how large.
CALM = _Company(2.0, 0.0015)


class UploadPacer:
    """Bounds the bytes in flight by what the uplink's queue is seen to hold.

    The caller asks `may_send`, sends a chunk of at most `chunk_bytes`, reports it with `sent`,
    and each acknowledgement, which come in order, with `acknowledged`. Where nothing may be sent,
    `due_at` tells when that changes without an acknowledgement.

    overtaken: queries go over another connection, and pass what is under way.
    """

    def __init__(self, max_chunk_bytes: int, *, overtaken: bool = False) -> None:
        self.overtaken = overtaken
        self._max_chunk_bytes = min(max_chunk_bytes, MAX_CHUNK_BYTES)
        self._rate = DeliveryRate()
        self._chunk_bytes = whole_packets(PACKET_BYTES, self._max_chunk_bytes)
        self._least = LeastTimes(self._chunk_bytes)
        self._window = Window(self._least.transit)
        self._calm = Calm()
        self._empty_rounds = 0
        self._company = ALONE
        self._sized_bytes = 0.0
        self._last_clock_s: float | None = None
        self._next_number = 0
        self._in_flight: deque[InFlight] = deque()
        self._in_flight_bytes = self._carried_bytes = 0
        # The first chunk behind the last query.
        self._query_until: int | None = None
        self._heard_at = 0.0

    @property
    def mean_rate_Bps(self) -> float | None:
        """The uplink's rate over the last second, by the receiver's clock, an edge's pauses
        left out: what plans are made on."""
        return self._rate.Bps

    @property
    def round_trip_s(self) -> float | None:
        """The least that a chunk and its acknowledgement took of late; None before the first."""
        return self._least.transit.round_trip_s

    @property
    def in_flight_bytes(self) -> int:
        return self._in_flight_bytes

    @property
    def oldest_bytes(self) -> int:
        """What must arrive before anything is acknowledged."""
        if not self._in_flight:
            return 0
        return self._in_flight[0].size_bytes + self._in_flight[0].carried_bytes

    def chunk_bytes(self) -> int:
        """Size of the next chunk, in whole packets."""
        return self._chunk_bytes

    def window_bytes(self) -> float:
        return self._window.bytes

    def may_send(self, now: float, credit_bytes: float = 0.0) -> bool:
        lack_bytes = self._in_flight_bytes - self._window.bytes - credit_bytes
        return lack_bytes < 0 or lack_bytes < self._arriving_bytes(now + EARLY_S)

    def due_at(self, credit_bytes: float = 0.0) -> float | None:
        """When the next chunk may go, if nothing is heard before; None if it must be."""
        rate, lack_bytes = self._rate.Bps, self._in_flight_bytes - self._window.bytes - credit_bytes
        if not self._in_flight or rate is None or self._in_flight[0].carried_bytes:
            return None
        if lack_bytes >= self._in_flight[0].size_bytes:
            return None
        return self._heard_at + max(lack_bytes, 0.0) / rate - EARLY_S / 2

    def _arriving_bytes(self, now: float) -> float:
        """How much of the oldest chunk has arrived, at the rate at which those before it came."""
        rate = self._rate.Bps
        if not self._in_flight or rate is None or self._in_flight[0].carried_bytes:
            return 0.0
        return min(rate * (now - self._heard_at), self._in_flight[0].size_bytes)

    def stalled_s(self, now: float) -> float:
        """How long the oldest chunk's acknowledgement has been overdue."""
        trip = self._least.trip_s
        if trip is None or not self._in_flight:
            return 0.0
        return max(0.0, now - self._in_flight[0].sent_at - trip)

    def carried(self, size_bytes: int, now: float) -> None:
        """A query's bytes went out in front of the next chunk: the link was busy, not slow."""
        self._calm.asked(now)
        self._carried_bytes += size_bytes
        if self.overtaken:
            for chunk in self._in_flight:
                chunk.behind_query = True
        if self._company is not QUERIES and not self._window.starting_up:
            self._resize_chunks(now)

    def sent(self, size_bytes: int, now: float) -> None:
        carried, self._carried_bytes = self._carried_bytes, 0
        number = self._next_number
        self._next_number += 1
        if carried:
            self._query_until = number
        if not self._in_flight:
            self._heard_at = now
        self._in_flight_bytes += size_bytes
        filling = self._in_flight_bytes > self._window.bytes - 2 * self._chunk_bytes
        behind = self._query_until is not None
        flight = self._in_flight_bytes
        self._in_flight.append(InFlight(number, size_bytes, carried, now, flight, filling, behind))

    def acknowledged(self, clock_s: float, now: float) -> None:
        """The oldest chunk in flight was acknowledged; the edge received it at `clock_s`."""
        chunk = self._in_flight.popleft()
        self._in_flight_bytes -= chunk.size_bytes
        self._heard_at = now
        starting_up = self._window.starting_up
        if chunk.number == self._query_until:
            self._query_until = None
        believed = self._least.transit.believed
        scale_Bps = None if starting_up else self._rate.Bps
        clock_s, wait_s = self._least.observe(chunk, clock_s, now, scale_Bps)
        if self._least.transit.believed != believed:
            self._change_clocks()
        times = self._times_as_long(chunk, clock_s, now)
        self._rate.add(clock_s, chunk.size_bytes + chunk.carried_bytes, filling=chunk.filling)
        round_ended = self._window.observe(chunk, wait_s, clock_s, now, self._rate.Bps)
        if times is not None:
            self._jump(times, clock_s, now)
        elif round_ended:
            ran_empty = self._company is CALM and self._window.ran_empty
            self._empty_rounds = self._empty_rounds + 1 if ran_empty else 0
            if self._empty_rounds >= EMPTY_ROUNDS or self._window.lost_its_way:
                self._calm.upset(now)
                self._empty_rounds = 0
            self._resize_chunks(now)
            self._window.next_round(self._next_number, now)
        elif self._window.starting_up:
            self._grow_chunks()
        elif starting_up:
            self._calm.upset(now)
            self._rate.full(clock_s)
            self._time_chunks()

    def _jump(self, times: float, clock_s: float, now: float) -> None:
        """Back to small chunks, and at once to the rate of a link so many times slower. How much
        faster one is, the window has to be wide enough to tell."""
        rate = self._rate.Bps
        if rate and times > 1.0:
            self._least.slow_down(rate / times, rate)
            self._rate.jump(clock_s, rate / times)
            self._window.shrink(times)
        self._resize_chunks(now)
        self._window.next_round(self._next_number, now)

    def _times_as_long(self, chunk: InFlight, clock_s: float, now: float) -> float | None:
        """As they should by the rate chunks take to arrive, where the link has changed."""
        last_s, self._last_clock_s = self._last_clock_s, clock_s
        rate = self._rate.Bps
        large = self._company is CALM and chunk.size_bytes > self._chunk_bytes / 2
        if not large or last_s is None or rate is None:
            return None
        took_s, expected_s = clock_s - last_s, (chunk.size_bytes + chunk.carried_bytes) / rate
        way_bytes = rate * (self._least.trip_s or 0.0) - self._least.size_bytes
        if took_s > expected_s and chunk.flight_bytes - chunk.size_bytes <= max(way_bytes, 0.0):
            # It was not sent in time.
            return None
        return self._calm.arrived(took_s, expected_s, now)

    def reset_flight(self) -> None:
        """The connection is gone, and with it whatever was in flight and the edge's clock."""
        self._in_flight.clear()
        self._in_flight_bytes = self._carried_bytes = 0
        self._query_until = None
        self._heard_at = 0.0
        self._window.restart(self._least.restart())
        self._change_clocks()

    def _change_clocks(self) -> None:
        """What arrived before was told by another clock."""
        self._last_clock_s = None
        self._least.change_clocks()
        self._window.change_clocks()
        self._rate.pause()

    # Chunks.

    def _grow_chunks(self) -> None:
        """With the window, while the rate is not known: small ones would take all of a core."""
        size_bytes = self._window.bytes * STARTUP_CHUNK_SHARE
        if size_bytes >= 2 * self._chunk_bytes:
            self._make_chunks(size_bytes, size_bytes)

    def _resize_chunks(self, now: float) -> None:
        rate = self._rate.Bps
        if rate is None:
            return
        self._calm.delivers(rate, now)
        company = QUERIES
        if self._calm.alone(now):
            company = CALM if self._calm.settled(now) else ALONE
        way_s = (self._least.trip_s or 0.0) - self._least.size_bytes / rate
        seconds = min(max(CHUNK_S, CHUNK_SHARE * way_s), LONGEST_CHUNK_S)
        least_s = self._calm.chunk_s(now) if company is CALM else 0.0
        size_bytes = rate * max(company.times * seconds, least_s)
        usual = size_bytes / RESIZE < self._sized_bytes < size_bytes * RESIZE
        if company is not self._company or not usual:
            if company is CALM is not self._company:
                self._least.remember_small()
            self._company, self._sized_bytes = company, size_bytes
            self._make_chunks(size_bytes, rate * seconds)
        elif company is CALM:
            self._least.slow_down(rate)

    def _make_chunks(self, size_bytes: float, least_bytes: float) -> None:
        # Bounded before it is made an int: a lying clock can make a rate infinite.
        size = self._chunk_bytes = whole_packets(size_bytes, self._max_chunk_bytes)
        self._window.resized(size, min(least_bytes, size), self._company.slack_s)
        if not self._window.starting_up:
            self._time_chunks()

    def _time_chunks(self) -> None:
        """The least times are of chunks of this size from now on. Until the end of the start, when
        the rate is known, they are of its first and smallest."""
        large = self._company is CALM
        self._least.resize(self._chunk_bytes, self._rate.Bps, self._next_number, large=large)
