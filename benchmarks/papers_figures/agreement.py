"""Why a decision differs from the printed one: how far the world would have to be another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from planner import LayerCosts, Link

# Factors that are tried, outwards from 1, before the nearest is closed in on.
_MOST, _STEPS, _HALVINGS = 64.0, 48, 30


@dataclass(frozen=True, slots=True)
class World:
    """What a decision is made from."""

    costs: LayerCosts
    link: Link

    def uplink(self, factor: float) -> World:
        """The same with another rate up."""
        return World(self.costs, replace(self.link, up_Bps=self.link.up_Bps * factor))

    def both(self, factor: float) -> World:
        """The same with another rate up and, as much, down."""
        link = replace(
            self.link, up_Bps=self.link.up_Bps * factor, down_Bps=self.link.down_Bps * factor
        )
        return World(self.costs, link)

    def device(self, factor: float) -> World:
        """The same with a device of another speed."""
        return World(replace(self.costs, client_s=self.costs.client_s / factor), self.link)

    def edge(self, factor: float) -> World:
        """The same with an edge of another speed."""
        return World(replace(self.costs, edge_s=self.costs.edge_s / factor), self.link)


def nearest_factor(agrees: Callable[[float], bool]) -> float | None:
    """The factor nearest to 1 (as a ratio) at which `agrees`; None from 1/64 to 64 where none is.

    Looks at 48 factors each way and closes in on the first, so that what holds for a range
    narrower than 9% can be missed.
    """
    ratio = _MOST ** (1 / _STEPS)
    for step in range(1, _STEPS + 1):
        for factor in (ratio**step, ratio**-step):
            if agrees(factor):
                return _closed_in(agrees, factor / ratio if factor > 1 else factor * ratio, factor)
    return None


def _closed_in(agrees: Callable[[float], bool], differs: float, same: float) -> float:
    for _ in range(_HALVINGS):
        middle = (differs * same) ** 0.5
        differs, same = (differs, middle) if agrees(middle) else (middle, same)
    return same
