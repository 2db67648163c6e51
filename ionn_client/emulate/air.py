"""One direction of the emulated link in real time: what waits, what is under way, and one timer.

Knows pieces and who holds them, but no sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ionn_client.emulate.link import Shaper, piece_bytes, stretched

# A piece in hand is on the virtual clock from when there was room for it, so the timer may look
# for room later than that, together with an arrival: half the wake-ups, the same departures.
ADMIT_LATE_S = 0.002


class Sender(Protocol):
    """Who has one piece in hand, and waits for room."""

    in_hand: bytes
    in_hand_since_s: float

    @property
    def closed(self) -> bool: ...

    def deliver(self, piece: bytes) -> None: ...

    def wait(self) -> None:
        """There is no room for the piece in hand."""

    def listen(self) -> None:
        """The piece in hand is on its way: offer the next one, not before this call returned."""

    def read(self) -> None:
        """The same, and offer it at once if it is there."""


@dataclass(slots=True)
class _UnderWay:
    departure_s: float
    size: int
    arrive: Callable[[], None]


class Direction:
    """One way through the air: the shaped queue and what is under way, of all connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop, shaper: Shaper) -> None:
        self.shaper = shaper
        self.piece_bytes = piece_bytes(shaper.rate_Bps, shaper.queue_bytes)
        self.carried_bytes = 0
        self.under_way: deque[_UnderWay] = deque()
        self.waiting: deque[Sender] = deque()
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0

    def carry(self, size: int, arrive: Callable[[], None], now: float) -> None:
        """Takes what has room, or needs none (openings, closes and resets have no size)."""
        self.under_way.append(_UnderWay(self.shaper.push(size, now), size, arrive))
        if len(self.under_way) == 1:
            self._arm()

    def offer(self, sender: Sender) -> None:
        """`sender` has a piece in hand: it goes now if there is room and nobody was first."""
        if self.waiting or sender.in_hand_since_s < self._room_s(sender):
            sender.wait()
            self.waiting.append(sender)
            self._arm()
        else:
            self._admit(sender, sender.in_hand_since_s)
            sender.listen()

    def set_rate(self, rate_Bps: float) -> None:
        now = time.monotonic()
        factor = self.shaper.set_rate(rate_Bps, now)
        for item in self.under_way:
            item.departure_s = stretched(item.departure_s, now, factor)
        self.piece_bytes = piece_bytes(rate_Bps, self.shaper.queue_bytes)
        self._arm()

    def clear(self) -> None:
        """Drops everything, at once."""
        self.under_way.clear()
        self.waiting.clear()
        self.shaper.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _admit(self, sender: Sender, since_s: float) -> None:
        piece, sender.in_hand = sender.in_hand, b""
        self.carry(len(piece), lambda: sender.deliver(piece), since_s)

    def _due(self) -> None:
        self._timer = None
        now = time.monotonic()
        while self.under_way and self._arrival_s() <= now:
            item = self.under_way.popleft()
            self.carried_bytes += item.size
            item.arrive()
        while self.waiting:
            sender = self.waiting[0]
            # Counts from when there was room, so that a late timer costs the link no time.
            since_s = max(sender.in_hand_since_s, self._room_s(sender))
            if since_s > now and not sender.closed:
                break
            self.waiting.popleft()
            if not sender.closed:
                self._admit(sender, since_s)
                sender.read()
        self._arm()

    def _arrival_s(self) -> float:
        return self.shaper.arrival_s(self.under_way[0].departure_s)

    def _room_s(self, sender: Sender) -> float:
        return self.shaper.room_s(len(sender.in_hand))

    def _arm(self) -> None:
        """Sees to it that the timer fires by the next moment at which there is something to do."""
        moments = [self._arrival_s()] if self.under_way else []
        if self.waiting:
            late_s = min(ADMIT_LATE_S, self.shaper.queue_bytes / 4 / self.shaper.rate_Bps)
            moments.append(self._room_s(self.waiting[0]) + late_s)
        if not moments:
            return
        at_s = min(moments)
        if self._timer is not None:
            if self._timer_s <= at_s:
                return  # Fires early enough, and arms itself again then.
            self._timer.cancel()
        self._timer_s = at_s
        self._timer = self._loop.call_later(max(0.0, at_s - time.monotonic()), self._due)
