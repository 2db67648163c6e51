"""Local execution beside a late reply: in slices, so that it ends soon once nobody wants it.

One query is hedged at a time, the one that was asked first: several at once would only make each
other late. No I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from layergraph.execute import Live

# Of the whole model, or this long at least: a slice that runs cannot be stopped.
SLICES = 16
SHORTEST_SLICE_S = 0.02


@dataclass(slots=True)
class Hedge:
    """A query that runs here too: the live tensors at `position`, and what it took so far."""

    position: int
    live: Live
    seconds: float = 0.0

    def reached(self, stop: int, live: Live, seconds: float) -> None:
        self.position, self.live = stop, live
        self.seconds += seconds


class Slices:
    """Where a run here is divided. Fixed cuts: each range is compiled when it first runs."""

    def __init__(self, layer_s: Sequence[float]) -> None:
        layers = len(layer_s)
        slice_s = max(SHORTEST_SLICE_S, sum(layer_s) / SLICES)
        self._cuts, passed_s = [], 0.0
        for layer, seconds in enumerate(layer_s):
            passed_s += seconds
            if passed_s >= slice_s and layer + 1 < layers:
                self._cuts.append(layer + 1)
                passed_s = 0.0
        self._cuts.append(layers)

    def stop(self, start: int) -> int:
        """Where the slice ends that begins at cut `start`, which is not the last."""
        return self._cuts[bisect_right(self._cuts, start)]
