"""How much an edge may say that nobody asked for. No I/O, no clock.

To hear it takes this program's time, which its queries need: a flood of the shortest messages
made each of them take half a second.
"""

from __future__ import annotations

# An honest edge tells of its load now and then. This many may wait where this program was busy.
AT_ONCE, PER_SECOND = 500.0, 50.0
# A long message takes the time of several.
UNIT_BYTES = 4 << 10


class Unasked:
    """What is left of it, on one connection."""

    def __init__(self) -> None:
        self._answers = 0
        self._left, self._counted_at = AT_ONCE, 0.0

    def asked(self) -> None:
        """Something was said to the edge, which may have one answer of any length."""
        self._answers += 1

    def flooded(self, size_bytes: int, now: float) -> bool:
        """The edge said so much; whether that is too much by now."""
        if self._answers:
            self._answers -= 1
            return False
        filled = self._left + PER_SECOND * max(now - self._counted_at, 0.0)
        self._left = min(filled, AT_ONCE) - 1 - size_bytes // UNIT_BYTES
        self._counted_at = now
        return self._left < 0
