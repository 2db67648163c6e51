"""How busy the box is: what a range takes now against what it took at best."""

from __future__ import annotations

from collections import OrderedDict

# Enough for every range of a few models in use; the oldest give way.
_REMEMBERED = 4096
_WEIGHT = 0.1
_MEMORY_S = 5.0


class LoadMeter:
    """The slowdown (Neurosurgeon's K): recent ratio of a range's time to its best ever."""

    def __init__(self) -> None:
        self._best_s: OrderedDict[tuple[str, int, int], float] = OrderedDict()
        self._ratio = 1.0
        self._measured_at = 0.0
        self._reported = 1.0
        self.answered: dict[str, int] = {}

    def ran(self, fingerprint: str, start: int, stop: int, seconds: float, now: float) -> None:
        """A model's layers [start, stop) took this long."""
        key = (fingerprint, start, stop)
        best_s = min(seconds, self._best_s.get(key, seconds))
        self._best_s[key] = best_s
        self._best_s.move_to_end(key)
        if len(self._best_s) > _REMEMBERED:
            self._best_s.popitem(last=False)
        ratio = seconds / best_s if best_s > 0 else 1.0
        self._ratio = self.slowdown(now) + _WEIGHT * (ratio - self.slowdown(now))
        self._measured_at = now
        self.answered[fingerprint] = self.answered.get(fingerprint, 0) + 1

    def slowdown(self, now: float) -> float:
        """1 or more. Fades to 1 while nothing runs: an idle box is not slow."""
        faded: float = 0.5 ** ((now - self._measured_at) / _MEMORY_S)
        return max(1.0, 1.0 + (self._ratio - 1.0) * faded)

    def changed_much(self, now: float) -> bool:
        """Whether clients should be told; True once per change by half."""
        ratio = self.slowdown(now) / self._reported
        if 2 / 3 < ratio < 3 / 2:
            return False
        self._reported = self.slowdown(now)
        return True
