"""The conditions that schedules are solved for: from the lowest to the highest of each."""

from __future__ import annotations

from dataclasses import dataclass, fields

RECIPROCAL = ("up_Bps", "down_Bps")
# No rate, load or worth of a joule is larger, or one over it smaller.
MOST = 1e30


@dataclass(frozen=True, slots=True)
class Region:
    """The conditions to solve for, from the lowest to the highest of each.

    Rates in bytes per second, `server_load` a factor of the edge's times, `s_per_J` the seconds
    that a joule is worth. Raises ValueError that names the field unless 0 <= low <= high <= 1e30,
    and rates from 1e-30.
    """

    up_Bps: tuple[float, float]
    down_Bps: tuple[float, float]
    rtt_s: tuple[float, float]
    server_load: tuple[float, float] = (1.0, 1.0)
    s_per_J: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for field in fields(self):
            name, given = field.name, getattr(self, field.name)
            if not isinstance(given, list | tuple) or len(given) != 2:
                raise ValueError(f"{name} is a lowest and a highest value, not {given!r:.80}")
            if not all(is_number(value) for value in given):
                raise ValueError(f"{name} is two finite numbers from 0, not {given!r:.80}")
            low, high = map(float, given)
            if low > high or (low < 1 / MOST and name in RECIPROCAL):
                raise ValueError(f"{name} goes up, and rates from above 0, not {given!r:.80}")
            object.__setattr__(self, name, (low, high))

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """All conditions, in order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def axes(self) -> tuple[str, ...]:
        """Those that are not fixed."""
        return tuple(name for name, (low, high) in self.ranges.items() if low < high)


def is_number(value: object) -> bool:
    """Whether this is a number from 0 to `MOST`, which keeps sums and products finite."""
    return type(value) in (int, float) and 0 <= value <= MOST  # type: ignore[operator]
