"""What a machine's `wake_at` promises: nothing is due before, and it moves on once that is past."""

from __future__ import annotations

# So often TimePassed may find `wake_at` passed again at once.
MOST_WAKES = 20
# Sums of times may be rounded the other way than differences.
ROUNDED_S = 1e-6


def is_early(wake_at: float | None, now: float) -> bool:
    """Whether nothing may be due yet."""
    return wake_at is not None and now < wake_at - ROUNDED_S


class Wakes:
    """That a machine which was woken does not want to be woken at once, again and again."""

    def __init__(self) -> None:
        self._wakes = 0

    def too_often(self, time_passed: bool, wake_at: float | None, now: float) -> bool:
        if time_passed and wake_at is not None and wake_at <= now:
            self._wakes += 1
        else:
            self._wakes = 0
        return self._wakes > MOST_WAKES
