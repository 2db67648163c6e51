"""Whether the edge is still there: when to ping, and when silence means that it is gone.

An edge that dies with its connection is heard of at once; this is for the half-open one, of
which nothing comes any more, not even the end. No clock of its own.
"""

from __future__ import annotations

from collections import deque
from math import inf

# Of the round trip, between two pings while an answer is awaited: a pong has come by then.
PING_ROUND_TRIPS = 4.0
SHORTEST_PING_S = 0.1
# Of the silence that is too long: idle, and at most while an answer is awaited.
IDLE_SHARE, BUSY_SHARE = 0.5, 0.25
# A ping must have been under way for so much of it, however long nothing was heard.
ASKED_SHARE = 0.5
# A round trip that seems to be longer by less does no harm.
LATE_SHARE = 0.5
TRIPS = 8


class Liveness:
    """One connection's. silence_s: nothing for so long, though asked, is an edge that is gone."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._next_token = 0
        self.heard_at = 0.0
        self._greeted_at: float | None = None
        self._owed_since: float | None = None
        self._pings: dict[int, float] = {}
        self._trips: deque[float] = deque(maxlen=TRIPS)
        self._slept_until = -inf

    def opened(self, now: float) -> None:
        """A connection is there, and the edge owes us a greeting."""
        self.lost()
        self.heard_at = self._greeted_at = now

    def lost(self) -> None:
        self._greeted_at = self._owed_since = None
        self._pings.clear()
        self._trips.clear()

    def heard(self, now: float) -> None:
        if self._greeted_at is not None:
            self._travelled(self._greeted_at, now)
        self.heard_at, self._greeted_at = now, None

    def slept(self, late_s: float, now: float) -> None:
        """This program, or its machine, stood still for so long until now. What is under way since
        before tells no round trip, which in hours of sleep would make hours of silence no sign."""
        if late_s >= LATE_SHARE * self._silence_s:
            self._slept_until = now

    def _travelled(self, sent_at: float, now: float) -> None:
        if sent_at >= self._slept_until:
            self._trips.append(now - sent_at)

    def owed(self, now: float, *, owed: bool) -> None:
        """Whether the edge owes an answer, which it may take its time for."""
        if not owed:
            self._owed_since = None
        elif self._owed_since is None:
            self._owed_since = now

    def ping(self, now: float) -> int:
        """The token of a ping that goes out now."""
        token, self._next_token = self._next_token, self._next_token + 1
        self._pings[token] = now
        return token

    def ponged(self, token: int, now: float) -> float | None:
        """How long the ping was under way; None if there is no such ping."""
        sent_at = self._pings.pop(token, None)
        if sent_at is None:
            return None
        self._travelled(sent_at, now)
        return now - sent_at

    @property
    def rtt_s(self) -> float:
        """The shortest of the last round trips; 0 before the first."""
        return min(self._trips, default=0.0)

    @property
    def asked_at(self) -> float | None:
        """Since when the edge has had something to answer at once."""
        if self._greeted_at is not None:
            return self._greeted_at
        return min(self._pings.values(), default=None)

    def ping_at(self) -> float | None:
        """When to ping if nothing is heard before; None while it has been asked."""
        if self.asked_at is not None:
            return None
        idle_at = self.heard_at + IDLE_SHARE * self._silence_s
        if self._owed_since is None:
            return idle_at
        often_s = max(PING_ROUND_TRIPS * self.rtt_s, SHORTEST_PING_S)
        busy_at = max(self.heard_at, self._owed_since) + min(often_s, BUSY_SHARE * self._silence_s)
        return min(idle_at, busy_at)

    def gone_at(self, held_up_s: float) -> float | None:
        """When the edge is given up if nothing is heard before; None while nothing was asked.

        held_up_s: how long what is under way may hold up every answer.
        """
        asked_at = self.asked_at
        if asked_at is None:
            return None
        silent_at = self.heard_at + self._silence_s
        asked_until = asked_at + ASKED_SHARE * self._silence_s
        return max(silent_at, asked_until) + self.rtt_s + held_up_s
