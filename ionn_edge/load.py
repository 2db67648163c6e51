"""How busy the box is: what ranges take now against what they took at best."""

from __future__ import annotations

from collections import OrderedDict

# Enough for every range of a few models in use; the oldest give way.
_REMEMBERED = 4096
_HALF_LIFE_S = 5.0
# A range of microseconds varies by itself: nothing is slow before there is this much to compare.
_PRIOR_S = 0.02


class LoadMeter:
    """The slowdown (Neurosurgeon's K): recent execution time over the same ranges' best ever."""

    def __init__(self) -> None:
        self._best_s: OrderedDict[tuple[str, int, int], float] = OrderedDict()
        self._recent_s = 0.0
        self._uncontended_s = 0.0
        self._measured_at = 0.0
        self._reported = 1.0

    def ran(self, fingerprint: str, start: int, stop: int, seconds: float, now: float) -> None:
        """A model's layers [start, stop) took this long."""
        key = (fingerprint, start, stop)
        best_s = min(seconds, self._best_s.get(key, seconds))
        self._best_s[key] = best_s
        self._best_s.move_to_end(key)
        if len(self._best_s) > _REMEMBERED:
            self._best_s.popitem(last=False)
        faded = self._faded(now)
        self._recent_s = self._recent_s * faded + seconds
        self._uncontended_s = self._uncontended_s * faded + best_s
        self._measured_at = now

    def forget(self, whose: str) -> None:
        """Know no more of models whose names begin so."""
        for key in [key for key in self._best_s if key[0].startswith(whose)]:
            del self._best_s[key]

    def slowdown(self, now: float) -> float:
        """1 or more. Fades to 1 while nothing runs: an idle box is not slow."""
        faded = self._faded(now)
        return (self._recent_s * faded + _PRIOR_S) / (self._uncontended_s * faded + _PRIOR_S)

    def changed_much(self, now: float) -> bool:
        """Whether clients should be told; True once per change by half."""
        ratio = self.slowdown(now) / self._reported
        if 2 / 3 < ratio < 3 / 2:
            return False
        self._reported = self.slowdown(now)
        return True

    def _faded(self, now: float) -> float:
        faded: float = 0.5 ** ((now - self._measured_at) / _HALF_LIFE_S)
        return faded
