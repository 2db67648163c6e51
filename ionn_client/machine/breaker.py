"""Stops using an edge that keeps failing, and tries it again: after Nygard's circuit breaker.

No clock of its own. Closed: queries go. Open: none goes until the back-off is over. Half-open:
one query goes as a probe, while the client runs it too; what becomes of it decides.
"""

from __future__ import annotations

# Failures, less half a failure for each success: more than one failure in three opens in the end.
TRIP = 3.0
FORGIVEN = 0.5
FIRST_BACKOFF_S, MAX_BACKOFF_S = 1.0, 60.0


class Breaker:
    """Whether queries go to the edge."""

    def __init__(self) -> None:
        self._open_until: float | None = None
        self._probe: int | None = None
        self.last_failure: str | None = None
        self.forgive()

    def forgive(self) -> None:
        """What was taken for failures was none."""
        self._failures = 0.0
        self._backoff_s = FIRST_BACKOFF_S
        self._open_until = self._probe = None

    def state(self, now: float) -> str:
        """One of "closed", "open" and "half-open"."""
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def left_s(self, now: float) -> float:
        """How long it stays open; 0 unless it is."""
        return max(0.0, (self._open_until or now) - now)

    def admits(self, now: float) -> bool:
        """Whether a query may go now."""
        return self._open_until is None or (now >= self._open_until and self._probe is None)

    def sent(self, query: int) -> bool:
        """An admitted query goes; whether it is the probe."""
        if self._open_until is None:
            return False
        self._probe = query
        return True

    def succeeded(self, query: int) -> None:
        """A reply came that can be used."""
        if self._probe == query:
            # Not quite forgiven: the next failure opens it again, for longer.
            self._open_until = self._probe = None
            self._failures = TRIP - 1
        elif self._open_until is None:
            self._failures = max(0.0, self._failures - FORGIVEN)
            if not self._failures:
                self._backoff_s = FIRST_BACKOFF_S

    def settled(self, query: int) -> None:
        """A query is over, and says nothing about the edge."""
        if self._probe == query:
            self._probe = None

    def failed(
        self, reason: str, now: float, query: int | None = None, weight: float = 1.0
    ) -> bool:
        """The edge failed a query, or all that were open; whether this opens it.

        weight: of a failure, where that is less than one; a probe's is whole.
        """
        self.last_failure = reason
        if self._open_until is not None:
            # What was sent before it opened is no news.
            if self._probe is None or query not in (None, self._probe):
                return False
            self._probe = None
        else:
            self._failures += weight
            if self._failures < TRIP:
                return False
        self._open_until = now + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)
        return True
