"""What chunks take at least: what one takes beyond that, it waited.

Chunks become larger and smaller, and with them what they take. The least times are of chunks of
one size at a time, and scaled to the next one by the rate of the link. That may be too low, while
the upload is held back. Least times that are too long the next chunk puts right; too short, they
hold the upload back until they are forgotten. Hence, where either may be, they are too long.

Pure bookkeeping over (bytes, times), as the pacer's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ionn_client.machine.estimate import MEMORY_S, Smallest, Transit
from ionn_client.machine.window import InFlight


@dataclass(frozen=True, slots=True)
class _Least:
    """What chunks of a size took at least: there, on clocks that were never set, and in all."""

    size_bytes: int
    there_s: float
    trip_s: float

    def of(self, size_bytes: int, rate_Bps: float) -> _Least:
        """The same of another size."""
        longer_s = (size_bytes - self.size_bytes) / rate_Bps
        return _Least(size_bytes, self.there_s + longer_s, self.trip_s + longer_s)


# They are bounded by nothing.
_ANY = _Least(0, -inf, -inf)


class LeastTimes:
    """Of chunks of `size_bytes`.

    trip_s: there and back, by this side's clock alone; None before the first.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.trip_s: float | None = None
        self.transit = Transit()
        self._trips = Smallest(MEMORY_S)
        # The first chunk of this size, and the rate that they were scaled by.
        self._first_number = 0
        self._rate_Bps = 0.0
        self._small = _ANY

    def restart(self) -> Transit:
        """The way there begins anew, on other clocks."""
        self.transit = Transit()
        return self.transit

    def change_clocks(self) -> None:
        self._small = _ANY

    def observe(
        self, chunk: InFlight, clock_s: float, now: float, rate_Bps: float | None
    ) -> tuple[float, float]:
        """A chunk was acknowledged, which arrived at `clock_s`. The time to take for that, and how
        long it waited. rate_Bps: None where all have been of one size so far."""
        # As if it had been of this size.
        longer_s = (chunk.size_bytes - self.size_bytes) / rate_Bps if rate_Bps else 0.0
        # Of another size, by a rate too low for a moment, it may seem too short for MEMORY_S.
        sure = chunk.number >= self._first_number
        self.trip_s = self._trips.add(now - chunk.sent_at - longer_s, now, sure=sure)
        return self.transit.observe(chunk.sent_at, clock_s, now, longer_s=longer_s, sure=sure)

    def resize(
        self, size_bytes: int, rate_Bps: float | None, first_number: int, *, large: bool
    ) -> None:
        """They are of chunks of another size from this number on. large: of those for which
        `remember_small` was called; behind them, the small ones that it remembered are bounds."""
        if not rate_Bps:
            self.transit.forget()
        else:
            least = _ANY
            if not large:
                least, self._small = self._small.of(size_bytes, rate_Bps), _ANY
            before_s = self.size_bytes / max(rate_Bps, self._rate_Bps)
            self._shift(size_bytes / rate_Bps - before_s, least)
            self._rate_Bps = rate_Bps
        self.size_bytes = size_bytes
        self._first_number = first_number

    def remember_small(self) -> None:
        """Before chunks become large: afterwards small ones take no less than they do now. By a
        rate a little too low they would seem to take next to nothing."""
        self._small = _Least(self.size_bytes, self.transit.there_s, self._trips.value)

    def slow_down(self, rate_Bps: float, was_Bps: float = 0.0) -> None:
        """Where the link has this rate now and had a higher one, chunks take longer, and do not
        wait for it. was_Bps: the rate until now, as far as it is known."""
        was_Bps = max(was_Bps, self._rate_Bps)
        if rate_Bps < was_Bps:
            self._shift(self.size_bytes / rate_Bps - self.size_bytes / was_Bps)
            self._rate_Bps = rate_Bps

    def _shift(self, longer_s: float, least: _Least = _ANY) -> None:
        self.transit.shift(longer_s, least.there_s)
        self._trips.shift(longer_s, least.trip_s)
