"""A slow processor, emulated by waiting: arithmetic only, the runner owns clock and sleep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate


class SlowDevice:
    """A processor on which every layer takes `slowdown` times its profiled time.

    `profile_s`: seconds per layer measured on this machine, in layer order. `slowdown`: 1 or
    more. ValueError for anything else.
    """

    def __init__(self, slowdown: float, profile_s: Sequence[float]) -> None:
        if not (math.isfinite(slowdown) and slowdown >= 1):
            raise ValueError(f"slowdown must be 1 or more (waiting only adds time), got {slowdown}")
        _check_profile(profile_s)
        self.slowdown = slowdown
        self._until_s = list(accumulate(profile_s, initial=0.0))

    def target_s(self, layers: int | range) -> float:
        """Seconds that one layer, or a range of consecutive layers, takes on the slow device."""
        if isinstance(layers, int):
            layers = range(layers, layers + 1)
        last = len(self._until_s) - 1
        if layers.step != 1 or not 0 <= layers.start <= layers.stop <= last:
            raise ValueError(f"{layers} is not a range of the {last} profiled layers")
        return self.slowdown * (self._until_s[layers.stop] - self._until_s[layers.start])

    def remaining_s(self, layers: int | range, elapsed_s: float) -> float:
        """Seconds still to wait when the layers' real computation took `elapsed_s`; never negative.

        A layer that took longer than its slow time has nothing to wait for, and runs late.
        """
        return max(0.0, self.target_s(layers) - elapsed_s)


def slowdown_for(target_s: float, profile_s: Sequence[float]) -> float:
    """The factor that makes the whole model take `target_s`: IONN section 2 has AlexNet at 1.3 s.

    1.0 where this machine already needs `target_s` or more. ValueError for a target that is not
    positive and for a profile that is empty, negative or zero in total.
    """
    _check_profile(profile_s)
    if not (math.isfinite(target_s) and target_s > 0):
        raise ValueError(f"target_s must be positive, got {target_s}")
    total_s = math.fsum(profile_s)
    if total_s <= 0:
        raise ValueError("the profile adds up to nothing: no factor reaches a target from it")
    return max(1.0, target_s / total_s)


def _check_profile(profile_s: Sequence[float]) -> None:
    if any(not (math.isfinite(seconds) and seconds >= 0) for seconds in profile_s):
        raise ValueError("profile_s must hold finite seconds, none of them negative")
