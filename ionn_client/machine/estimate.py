"""What the acknowledgements and replies say about the link.

Pure bookkeeping over (bytes, times): no sockets, no clock of its own. Times called `now` are
the client's monotonic clock, times called `clock_s` the edge's; the two are never compared.
"""

from __future__ import annotations

from collections import deque
from itertools import combinations
from math import inf
from statistics import median, median_low

from planner import Link

MEMORY_S = 5.0
RATE_MEMORY_S = 1.0
BLOCK_S = 0.02
BLOCK_CHUNKS = 5
# No edge is up for so many years, and a greater reading has no microseconds left to differ by.
MAX_CLOCK_S = 1e9
# Clocks drift against each other by less than this in MEMORY_S.
CLOCK_TOLERANCE_S = 0.005
# Of two quartz clocks, with room.
MAX_SKEW = 3e-4
SKEW_BLOCK_S = 0.5
SKEW_BLOCKS = 16
SKEW_SPAN_S = 1.2


class Smallest:
    """The smallest value of the last `memory_s` seconds, in amortised constant time."""

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._rising: deque[tuple[float, float]] = deque()

    def add(self, value: float, now: float, *, sure: bool = True) -> float:
        """Take one more value; return the smallest, which one that is not sure does not become."""
        rising = self._rising
        if rising and not sure:
            return rising[0][1]
        while rising and rising[0][0] < now - self._memory_s:
            rising.popleft()
        # A value with a later, smaller one behind it can never again be the smallest.
        while rising and rising[-1][1] >= value:
            rising.pop()
        rising.append((now, value))
        return rising[0][1]

    @property
    def value(self) -> float:
        """The smallest, as of the last; minus infinity before the first."""
        return self._rising[0][1] if self._rising else -inf

    def shift(self, change: float, least: float = -inf) -> float:
        """What is measured is greater from now on by so much, and was not below `least`. How much
        greater the smallest is."""
        before = self.value
        self._rising = deque((now, max(value + change, least)) for now, value in self._rising)
        return self.value - before if self._rising else change


class Skew:
    """How much faster the edge's clock runs, in seconds per second.

    From the least time that acknowledgements took back in each half second, where nothing of the
    upload queues: the median slope between those minima, which a way that becomes longer once
    hardly disturbs.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self._minima: deque[tuple[float, float]] = deque(maxlen=SKEW_BLOCKS)
        self._began: float | None = None
        self._least = (0.0, 0.0)

    def observe(self, back_s: float, now: float) -> None:
        if self._began is None or now - self._began >= SKEW_BLOCK_S:
            if self._began is not None:
                self._minima.append(self._least)
                self._fit()
            self._began, self._least = now, (now, back_s)
        elif back_s < self._least[1]:
            self._least = (now, back_s)

    def _fit(self) -> None:
        slopes = [
            (later - sooner) / (end - begin)
            for (begin, sooner), (end, later) in combinations(self._minima, 2)
            if SKEW_SPAN_S <= end - begin <= 2 * SKEW_SPAN_S
        ]
        # Steeper is no clock, but a way that changed.
        slopes = [slope for slope in slopes if abs(slope) < MAX_SKEW]
        if slopes:
            self.share = -median(slopes)


class Transit:
    """How long chunks take one way, above the least, from two clocks that were never set.

    Each arrival lies between sending and acknowledgement, which bounds the difference of the
    clocks from both sides, as in NTP (RFC 5905, section 8). A clock that leaves these bounds
    stands, lies or jumps: then the acknowledgements' own arrivals are used in its place. One
    that is merely fast or slow would make waits seem to grow or shrink, and is corrected.
    """

    def __init__(self) -> None:
        # Once not, never again: times are our own clock's from then on.
        self.believed = True
        self._skew = Skew()
        self._ahead_s = 0.0
        self._corrected_at: float | None = None
        self._last: tuple[float, float, float] | None = None
        self.forget()

    def forget(self) -> None:
        """The way may have become longer: begin anew."""
        self._there = Smallest(MEMORY_S)
        self._back = Smallest(MEMORY_S)
        self.round_trip_s: float | None = None

    @property
    def there_s(self) -> float:
        """The least that chunks took there, on clocks that were never set; minus infinity before
        the first."""
        return self._there.value

    def shift(self, longer_s: float, least_s: float = -inf) -> None:
        """Chunks take longer from now on, because they are larger, and never took less."""
        longer_s = self._there.shift(longer_s, least_s)
        if self.round_trip_s is not None:
            self.round_trip_s = max(self.round_trip_s + longer_s, 0.0)

    def observe(
        self,
        sent_at: float,
        clock_s: float,
        now: float,
        *,
        longer_s: float = 0.0,
        sure: bool = True,
    ) -> tuple[float, float]:
        """The time to take for the arrival's, and how long the chunk waited in queues.

        longer_s: than those that the least times are of, by its size. sure: of that.
        """
        if (
            not self.believed
            or not abs(clock_s) < MAX_CLOCK_S
            or self._jumped(sent_at, clock_s, now)
        ):
            clock_s = self._disbelieve(now)
        sent_at += longer_s
        true_s = self._corrected(clock_s, now)
        there_s = self._there.add(true_s - sent_at, now, sure=sure)
        trip_s = there_s + self._back.add(now - true_s, now)
        # Our own clock is not doubted: chunks may only seem to come before they were sent because
        # they are larger, by a rate that a clock which jumped has made too low.
        if trip_s < -CLOCK_TOLERANCE_S and self.believed:
            self._disbelieve(now)
            return self.observe(sent_at, now, now)
        self.round_trip_s = max(trip_s, 0.0)
        return clock_s, true_s - sent_at - there_s

    def _jumped(self, sent_at: float, clock_s: float, now: float) -> bool:
        """Whether more or less time passed since the last arrival than can have: also right after
        the least times were forgotten."""
        last, self._last = self._last, (sent_at, clock_s, now)
        if last is None:
            return False
        last_sent_at, last_clock_s, last_now = last
        least_s, most_s = sent_at - last_now, now - last_sent_at
        # Nothing may have been sent for minutes.
        tolerance_s = CLOCK_TOLERANCE_S + MAX_SKEW * most_s
        return not least_s - tolerance_s <= clock_s - last_clock_s <= most_s + tolerance_s

    def _corrected(self, clock_s: float, now: float) -> float:
        """The edge's clock, less what it gained since the first acknowledgement."""
        self._skew.observe(now - clock_s, now)
        if self._corrected_at is not None:
            # Bit by bit, so that a better estimate makes no step.
            self._ahead_s += self._skew.share * (now - self._corrected_at)
        self._corrected_at = now
        return clock_s - self._ahead_s

    def _disbelieve(self, now: float) -> float:
        if self.believed:
            self.believed = False
            self._skew, self._ahead_s = Skew(), 0.0
            self.forget()
        return now


class DeliveryRate:
    """Bytes per second that arrive while the window is full: the median over short blocks.

    An edge that pauses makes a few blocks slow and the next fast; the median is blind to both.
    A block in which the sender had left the window open counts only if it is faster.
    """

    def __init__(self) -> None:
        self.Bps: float | None = None
        self._blocks: deque[tuple[float, float]] = deque()
        self.pause()

    def pause(self) -> None:
        """What comes next does not follow on what came last."""
        self._blocks.clear()
        self._open_block(None)

    def add(self, clock_s: float, size_bytes: int, *, filling: bool) -> bool:
        """One more chunk arrived at `clock_s`. Returns whether the rate may have changed."""
        if self._begin_s is None or clock_s < self._begin_s:
            self._open_block(clock_s)
            return False
        self._bytes += size_bytes
        self._chunks += 1
        self._filling &= filling
        elapsed_s = clock_s - self._begin_s
        if self._chunks < BLOCK_CHUNKS or elapsed_s < BLOCK_S:
            return False
        rate = self._bytes / elapsed_s
        counts = self._filling or self.Bps is None or rate > self.Bps
        self._open_block(clock_s)
        if not counts:
            return False
        self._blocks.append((clock_s, rate))
        while self._blocks[0][0] < clock_s - RATE_MEMORY_S or self._blocks[0][0] > clock_s:
            self._blocks.popleft()
        self.Bps = median_low([rate for _, rate in self._blocks])
        return True

    def full(self, clock_s: float) -> None:
        """The link is full only since now: what came slower before says nothing of it."""
        if self._blocks:
            self.jump(clock_s, max(rate for _, rate in self._blocks))

    def jump(self, clock_s: float, rate_Bps: float) -> None:
        """The rate is known to be this since `clock_s`."""
        self.Bps = rate_Bps
        self._blocks.clear()
        self._blocks.append((clock_s, rate_Bps))
        self._open_block(clock_s)

    def _open_block(self, clock_s: float | None) -> None:
        self._begin_s = clock_s
        self._bytes = self._chunks = 0
        self._filling = True


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
