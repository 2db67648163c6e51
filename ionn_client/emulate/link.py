"""What a link is, as numbers, and when bytes get through it: no sockets, no clock."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

MIN_PIECE_BYTES = 1_400
MAX_PIECE_BYTES = 16_384
PIECE_S = 0.0015
MAX_RTT_S = 60.0
# Up to here the virtual clock's rounding (double precision) stays far below one byte.
MAX_RATE_BPS = 12.5e9
MAX_QUEUE_BYTES = 1 << 30

_BYTES_PER_S: Mapping[str, float] = {
    "bit": 1 / 8, "kbit": 1e3 / 8, "mbit": 1e6 / 8, "gbit": 1e9 / 8,
    "b/s": 1, "kb/s": 1e3, "mb/s": 1e6, "gb/s": 1e9,
}  # fmt: skip
_SECONDS: Mapping[str, float] = {"s": 1, "ms": 1e-3, "us": 1e-6, "min": 60, "h": 3600}
_BYTES: Mapping[str, float] = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kb": 1 << 10,
    "m": 1 << 20,
    "mb": 1 << 20,
}


def parse_rate(text: str) -> float:
    """Bytes per second from "80mbit", "512kbit" (bits) or "10MB/s" (bytes); multiples of 1000."""
    return _parse(text, _BYTES_PER_S, "rate", "80mbit or 10MB/s")


def parse_time(text: str) -> float:
    """Seconds from "5ms", "0.5s", "300us", "10min", "2h"."""
    return _parse(text, _SECONDS, "time", "5ms or 0.5s")


def parse_size(text: str) -> int:
    """Bytes from "64k", "1m" (1024s, as in tc) or a plain number; fractions round down."""
    return int(_parse(text, _BYTES, "size", "64k or 65536"))


def _parse(text: str, units: Mapping[str, float], what: str, example: str) -> float:
    found = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([A-Za-z/]*)\s*", text, re.ASCII)
    if found is None or found[2].lower() not in units:
        names = ", ".join(unit for unit in units if unit)
        raise ValueError(f"cannot read {text!r} as a {what}: write {example} (units: {names})")
    return float(found[1]) * units[found[2].lower()]


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """A link between client and edge: bytes per second each way, round trip, queue each way.

    `queue_bytes` bounds what waits for its turn in one direction, not what is under way.
    ValueError for numbers that no link can have.
    """

    up_Bps: float
    down_Bps: float
    rtt_s: float
    queue_bytes: int = 65_536

    def __post_init__(self) -> None:
        check_rate("up_Bps", self.up_Bps)
        check_rate("down_Bps", self.down_Bps)
        if not 0 <= self.rtt_s <= MAX_RTT_S:
            raise ValueError(f"rtt_s must be 0 to {MAX_RTT_S:g} seconds, got {self.rtt_s}")
        if not MIN_PIECE_BYTES <= self.queue_bytes <= MAX_QUEUE_BYTES:
            raise ValueError(
                f"queue_bytes must be {MIN_PIECE_BYTES} (one packet) to {MAX_QUEUE_BYTES}, "
                f"got {self.queue_bytes}"
            )

    @classmethod
    def parse(
        cls,
        rate: str = "80mbit",
        up: str | None = None,
        down: str | None = None,
        rtt: str = "5ms",
        queue: str = "64k",
    ) -> LinkSpec:
        """A link from texts such as "80mbit", "5ms" and "64k"; `up` and `down` override `rate`."""
        return cls(
            up_Bps=parse_rate(rate if up is None else up),
            down_Bps=parse_rate(rate if down is None else down),
            rtt_s=parse_time(rtt),
            queue_bytes=parse_size(queue),
        )


def check_rate(name: str, rate_Bps: float) -> None:
    """ValueError unless `rate_Bps` is a rate that a link can have."""
    if not 1 <= rate_Bps <= MAX_RATE_BPS:
        raise ValueError(f"{name} must be 1 to {MAX_RATE_BPS:g} bytes per second, got {rate_Bps}")


def piece_bytes(rate_Bps: float, queue_bytes: int) -> int:
    """How much one connection may put into the queue before the next has its turn.

    About 1.5 ms of the link, so that connections interleave as packets would, and no more than
    a quarter of the queue.
    """
    piece = min(int(rate_Bps * PIECE_S), MAX_PIECE_BYTES, queue_bytes // 4)
    return max(piece, MIN_PIECE_BYTES)


class Shaper:
    """One direction of a link on a virtual clock: a queue that drains at exactly `rate_Bps`.

    A piece leaves at max(now, last departure) + size / rate and arrives `delay_s` later. Since
    departures follow from each other and not from when a timer fired, the rate is exact over
    time. Times are seconds of one monotonic clock, whichever the caller has.
    """

    def __init__(self, rate_Bps: float, delay_s: float, queue_bytes: int) -> None:
        check_rate("rate_Bps", rate_Bps)
        self.rate_Bps = rate_Bps
        self.delay_s = delay_s
        self.queue_bytes = queue_bytes
        self._last_departure_s = -math.inf

    def backlog_bytes(self, now: float) -> float:
        """Bytes that have not left yet, of a piece that is leaving what is left of it."""
        return max(0.0, self._last_departure_s - now) * self.rate_Bps

    def room_s(self, size: int) -> float:
        """From when on `size` bytes find room; what is larger than the queue waits for its end."""
        spare_bytes = max(0, self.queue_bytes - size)
        return self._last_departure_s - spare_bytes / self.rate_Bps

    def push(self, size: int, now: float) -> float:
        """Puts a piece at the queue's end and returns its departure.

        ValueError where there is no room; no bytes at all (a close, say) always have it.
        """
        if size and now < self.room_s(size):
            raise ValueError(f"no room for {size} bytes in a queue of {self.queue_bytes}")
        self._last_departure_s = max(now, self._last_departure_s) + size / self.rate_Bps
        return self._last_departure_s

    def arrival_s(self, departure_s: float) -> float:
        return departure_s + self.delay_s

    def set_rate(self, rate_Bps: float, now: float) -> float:
        """Changes the rate from `now` on, for what waits too.

        Returns the factor by which every departure after `now` moves away from `now`.
        """
        check_rate("rate_Bps", rate_Bps)
        factor = self.rate_Bps / rate_Bps
        self._last_departure_s = stretched(self._last_departure_s, now, factor)
        self.rate_Bps = rate_Bps
        return factor

    def clear(self) -> None:
        self._last_departure_s = -math.inf


def stretched(departure_s: float, now: float, factor: float) -> float:
    """A departure after the rate changed at `now`; one that is past stays."""
    return now + (departure_s - now) * factor if departure_s > now else departure_s
