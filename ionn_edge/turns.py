"""Who may keep the event loop busy: no device for more than a fifth of it while others are there,
and no address with handshakes.

What a device says costs the box time before it is known what it is worth. A flood of messages
that are refused, or mean nothing, is therefore read no faster than leaves the others their turn.
No clock, no I/O: who reads waits for as long as it is told.
"""

from __future__ import annotations

# A connection's turn: what takes less is not interrupted.
TURN_S = 0.001
# What follows, in turns. Reading a message costs as much again before it can be counted; and
# weights at 1 Gbit/s take a tenth of the loop.
RESTS = 4.0


class Turns:
    """One box's. A device's connections share its time, so that many are no more than one."""

    def __init__(self) -> None:
        # Until when each rests.
        self._until: dict[str, float] = {}

    def rest_s(self, who: str, spent_s: float, now: float, *, alone: bool) -> float:
        """How long to wait after a turn of so long; 0 where nobody else is there."""
        if alone:
            return 0.0
        self._until = {other: until for other, until in self._until.items() if until > now}
        self._until[who] = self._until.get(who, now) + RESTS * spent_s
        return self._until[who] - now
