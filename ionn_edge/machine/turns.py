"""Who may keep the event loop busy: no device for more than a tenth of it while others are there,
and no address with handshakes.

What a device says costs the box time before it is known what it is worth. A flood of messages
that are refused, or mean nothing, is therefore read no faster than leaves the others their turn.
No clock, no I/O: who reads waits for as long as it is told.
"""

from __future__ import annotations

# A connection's turn: what takes less is not interrupted.
TURN_S = 0.0002
# What follows, in turns: weights at 1 Gbit/s take a tenth of the loop.
RESTS = 9.0
# What a device may take beyond its share, if it has taken less before.
SPARE_S = 0.002
# What is small costs more before it can be counted, by decryption and framing, than afterwards.
SMALL_BYTES, SMALL_S = 1024, 0.0002


class Turns:
    """One box's. A device's connections share its time, so that many are no more than one.

    spare_s: what each may take beyond its share, once, before it has to rest. rests: so many turns
    long, and as much of the time is its share.
    """

    def __init__(self, spare_s: float = 0.0, rests: float = RESTS) -> None:
        self._spare_s = spare_s
        self._rests = rests
        # Until when each rests.
        self._until: dict[str, float] = {}

    def rest_s(self, who: str, spent_s: float, now: float, *, alone: bool) -> float:
        """How long to wait after a turn of so long; 0 within its share, and where it is alone."""
        if alone:
            return 0.0
        self._until = {other: until for other, until in self._until.items() if until > now}
        self._until[who] = self._until.get(who, now) + self._rests * spent_s
        return max(self._until[who] - now - self._rests * self._spare_s, 0.0)


def cost_s(size_bytes: int, measured_s: float) -> float:
    """What a message of so many bytes counts, which took so long once it was there."""
    return max(measured_s, SMALL_S) if size_bytes < SMALL_BYTES else measured_s
