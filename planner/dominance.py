"""Cuts that no schedule needs to cross, whatever it minimises and whatever limits it.

A crossing may move to the next cut where that makes no price greater: the layer between changes
sides, and each of the prices tells what that does. Where crossings both up and down can move
away, the two layers at the cut stay together. Long models shrink to a few groups (most cuts are
wider than their neighbours), and an ILP over them with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planner.costs import Floats
from planner.prices import Prices


def needed_cuts(criteria: Sequence[Prices], may: NDArray[np.bool_]) -> list[int]:
    """The cuts inside the model (1..n-1) that some schedule may need to cross.

    `criteria`: what is minimised, and what is limited; all of n layers. `may` (n): whether the
    edge may run layer i. For every placement there is one that crosses at none of the other cuts
    and costs no more by any of the criteria.
    """
    cuts = np.arange(len(may) + 1)
    while len(cuts) > 2:
        merged = [merge(prices, cuts) for prices in criteria]
        crossed = _crossed(merged, np.logical_and.reduceat(may, cuts[:-1]))
        crossed[[0, -1]] = True
        if crossed.all():
            break
        cuts = cuts[crossed]
    return [int(cut) for cut in cuts[1:-1]]


def merge(prices: Prices, cuts: NDArray[np.intp]) -> Prices:
    """The prices of the groups of layers between `cuts` (0 and n among them)."""
    starts = cuts[:-1]
    return Prices(
        np.add.reduceat(prices.client, starts),
        np.add.reduceat(prices.edge, starts),
        prices.up[cuts],
        prices.down[cuts],
    )


def _crossed(criteria: Sequence[Prices], may: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Per cut, whether a crossing up or down cannot move away from it."""
    up, down = (np.array([getattr(p, side) for p in criteria]) for side in ("up", "down"))
    to_edge = np.array([p.edge - p.client for p in criteria])  # what changing layer i adds
    # Layer i is between cuts i and i + 1. Changing it to the client moves a crossing up from i to
    # i + 1, and one down from i + 1 to i; at the ends of the model, where there is nothing to move
    # to, the edge's part vanishes with both its crossings.
    later_up = np.hstack([up[:, 1:-1], -down[:, -1:]]) - to_edge - up[:, :-1]
    sooner_down = np.hstack([-up[:, :1], down[:, 1:-1]]) - to_edge - down[:, 1:]
    # Changing it to the edge, if that may run it, moves them the other way.
    sooner_up = up[:, :-1] + to_edge - up[:, 1:]
    later_down = down[:, 1:] + to_edge - down[:, :-1]
    up_moves = np.zeros(len(may) + 1, dtype=bool)
    down_moves = up_moves.copy()
    up_moves[:-1] = _no_worse(later_up)
    down_moves[1:] = _no_worse(sooner_down)
    # Better by one of them, so that no two cuts point at each other.
    up_moves[1:] |= may & _no_worse(sooner_up) & (sooner_up < 0).any(axis=0)
    down_moves[:-1] |= may & _no_worse(later_down) & (later_down < 0).any(axis=0)
    return ~(up_moves & down_moves)


def _no_worse(changes: Floats) -> NDArray[np.bool_]:
    better: NDArray[np.bool_] = np.logical_and.reduce(changes <= 0, axis=0)
    return better
