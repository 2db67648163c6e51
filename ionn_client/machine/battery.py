"""Joules for queries: how many the next one may take, so that they last as long as wanted.

Counts what the power model says that queries draw; it measures nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.costs import is_finite


@dataclass(frozen=True, slots=True)
class Battery:
    """So many joules, to last for so many queries.

    Raises ValueError that names the field unless `energy_J` is finite and not negative and
    `queries` is a whole number from 1.
    """

    energy_J: float
    queries: int

    def __post_init__(self) -> None:
        if not (is_finite(self.energy_J) and self.energy_J >= 0):
            raise ValueError(f"energy_J is a number of joules from 0, not {self.energy_J!r}")
        if not (isinstance(self.queries, int) and self.queries >= 1):
            raise ValueError(f"queries is a whole number from 1, not {self.queries!r}")


class Rations:
    """What is left of a battery, shared out evenly among the queries that are left.

    While every query draws at most its ration, all together draw at most the battery; what one
    leaves is shared among the next. Without a battery, nothing is rationed.
    """

    def __init__(self, battery: Battery | None) -> None:
        self._left_J = math.inf if battery is None else battery.energy_J
        self._queries = 1 if battery is None else battery.queries

    @property
    def left_J(self) -> float | None:
        """Joules left, below 0 if overdrawn; None without a battery."""
        return None if self._left_J == math.inf else self._left_J

    @property
    def most_J(self) -> float | None:
        """What the next query may draw; None without a battery."""
        return None if self._left_J == math.inf else max(0.0, self._left_J) / self._queries

    def asked(self, expected_J: float | None) -> None:
        """A query begins that is expected to draw so much."""
        self._left_J -= expected_J or 0.0
        self._queries = max(1, self._queries - 1)

    def also_drawn(self, drawn_J: float) -> None:
        """Something else than a query drew so much."""
        self._left_J -= drawn_J

    def answered(self, expected_J: float | None, drawn_J: float | None) -> None:
        """A query drew something else than was expected."""
        self._left_J += (expected_J or 0.0) - (drawn_J or 0.0)
