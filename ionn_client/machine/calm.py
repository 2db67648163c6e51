"""Whether the upload is alone on a link that does what it did: then its chunks may be large.

What a chunk costs both processors depends little on its size. But the first query waits for what
of a chunk is under way; and of large chunks there are few, from which a change of the link would be
learned late. Hence this: pure bookkeeping over times, as the pacer's.
"""

from __future__ import annotations

from collections import deque
from statistics import median_low

# Silence that is longer than what lay between the last queries.
SILENCE_S, USUAL_INTERVALS = 1.0, 3.0
INTERVALS = 8
# A chunk that a first query may wait for: of the silence before it.
CHUNK_SHARE, MOST_CHUNK_S = 0.025, 0.036
# After anything changed.
SETTLING_S = 1.0
# Of what chunks should take: an edge that pauses makes one late and others early, a link that
# changed makes most of them so, and all of them together.
CHANGE, SLOWER = 1.25, 1.6
CHUNKS = 3


class Calm:
    """Told of queries, of chunks' arrivals and of what else upsets; times in seconds."""

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._silent_since: float | None = None
        self._intervals_s: deque[float] = deque(maxlen=INTERVALS)
        self._upset_at = float("-inf")
        self._rate_Bps = 0.0
        self._ratios: deque[float] = deque(maxlen=CHUNKS)

    def asked(self, now: float) -> None:
        """A query is under way."""
        if self._asked_at is not None:
            self._intervals_s.append(now - self._asked_at)
        self._asked_at = self._silent_since = now

    def alone(self, now: float) -> bool:
        """Whether nobody has asked for longer than is usual."""
        if self._asked_at is None:
            return True
        usual_s = USUAL_INTERVALS * max(self._intervals_s, default=0.0)
        return now - self._asked_at >= max(SILENCE_S, usual_s)

    def chunk_s(self, now: float) -> float:
        """How long a chunk may take while nobody asks: hardly any of how long nobody did."""
        since = now if self._silent_since is None else self._silent_since
        return min(CHUNK_SHARE * (now - since), MOST_CHUNK_S)

    def upset(self, now: float) -> None:
        """The link is not what it was, or is seen for the first time."""
        if self._silent_since is None:
            self._silent_since = now
        self._upset_at = now
        self._ratios.clear()

    def delivers(self, rate_Bps: float, now: float) -> None:
        """The link's rate, over the last second."""
        if not self._rate_Bps / CHANGE < rate_Bps < self._rate_Bps * CHANGE:
            self._rate_Bps = rate_Bps
            self.upset(now)

    def arrived(self, took_s: float, expected_s: float, now: float) -> float | None:
        """A large chunk came so long after the one before it. How many times longer chunks take
        now, if the link has changed."""
        self._ratios.append(took_s / expected_s)
        if len(self._ratios) < CHUNKS:
            return None
        # The first of those that tell crossed the change itself.
        last = self._ratios[-1]
        ratios = (median_low(self._ratios), sum(self._ratios) / CHUNKS, last)
        if max(ratios) > 1 / CHANGE and min(ratios) < SLOWER:
            return None
        self.upset(now)
        return last

    def settled(self, now: float) -> bool:
        """Whether the link has been what it is for long enough."""
        return now - self._upset_at >= SETTLING_S
