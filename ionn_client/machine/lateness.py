"""How late replies come: when a reply is later than 95 of 100 of its kind.

Hedged requests, as in Dean and Barroso, "The Tail at Scale" (CACM 56(2), 2013): the second try
starts only when the first is later than the 95th percentile, so about one query in twenty costs
more. Pure bookkeeping over times.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque

SHARE = 0.95
MEMORY = 99
# Added to both times before they are divided: what a busy moment costs small and large alike.
GRAIN_S = 0.01
# No reply is late sooner after its predicted time: less is no news.
FLOOR_S = 0.01


class Lateness:
    """The ratio of a reply's time to its predicted time, over the last replies.

    prior: taken for true until there are enough replies for a quantile.
    """

    def __init__(self, prior: float) -> None:
        self._prior = prior
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def observe(self, expected_s: float, elapsed_s: float) -> None:
        """A reply came after so long; or it did not come for so long and was given up."""
        ratio = (elapsed_s + GRAIN_S) / (expected_s + GRAIN_S)
        if not math.isfinite(ratio):
            return
        if len(self._recent) == MEMORY:
            self._sorted.remove(self._recent.popleft())
        self._recent.append(ratio)
        insort(self._sorted, ratio)

    @property
    def ratio(self) -> float:
        """What the next ratio exceeds in one case of twenty, whatever they are distributed like.

        Of n exchangeable values the k-th exceeds the next one with probability k / (n + 1).
        """
        count = len(self._sorted)
        rank = math.ceil(SHARE * (count + 1))
        if rank <= count:
            return self._sorted[rank - 1]
        return max(self._prior, self._sorted[-1] if count else 0.0)

    def p95_s(self, expected_s: float) -> float:
        """Seconds after which a reply predicted to take `expected_s` is late."""
        late_s = self.ratio * (expected_s + GRAIN_S) - GRAIN_S
        return max(late_s, expected_s + FLOOR_S)
