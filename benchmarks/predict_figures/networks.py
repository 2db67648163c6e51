"""Networks whose ranges are measured, and what their visits tell."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import chain

from ionn_edge.calibration.measure import undisturbed
from layergraph import LayerGraph, LayerWork, work
from predict_figures.running import Apart, Range

LEAST_LAYERS = 5


@dataclass
class Network:
    """One network that runs apart, and the seconds of its ranges."""

    name: str
    graph: LayerGraph
    ranges: list[Range]
    apart: Apart
    # Of each range, the seconds of all runs of each visit.
    visits: dict[Range, list[list[float]]] = field(default_factory=dict)

    @property
    def layers(self) -> int:
        return len(self.graph.layers)

    @property
    def work(self) -> tuple[LayerWork, ...]:
        return work(self.graph)

    @property
    def long_ranges(self) -> list[Range]:
        return [(start, stop) for start, stop in self.ranges if stop - start >= LEAST_LAYERS]

    @property
    def layer_s(self) -> list[float]:
        """Each layer as a range of its own."""
        return [self.cost_s((index, index + 1)) for index in range(self.layers)]

    def cost_s(self, layers: Range) -> float:
        """What the calmest visit tells, as calibration takes it."""
        return min(map(undisturbed, self.visits[layers]))

    def seconds(self, layers: Range) -> list[float]:
        """Of all runs of a range."""
        return list(chain.from_iterable(self.visits[layers]))

    def halves_s(self, layers: Range) -> tuple[float, float]:
        """A range's cost as measured by every other visit, and by those between them.

        How near they are is how well anyone could predict. Raises ValueError below two visits.
        """
        visits = self.visits[layers]
        if len(visits) < 2:
            raise ValueError(f"{self.name} {layers} was visited {len(visits)} times, not twice")
        one, other = (min(map(undisturbed, visits[first::2])) for first in (0, 1))
        return one, other

    def visit(self, layers: Range) -> None:
        """Measure a range once more."""
        self.visits.setdefault(layers, []).append(self.apart.taken_s(layers))


def load(name: str, count: int) -> Network:
    """The network in a process of its own; see `network_of`."""
    return network_of(name, Apart(name), count)


def network_of(name: str, apart: Apart, count: int) -> Network:
    """With all single layers and `count` longer ranges to measure, the whole in it."""
    layers = len(apart.graph.layers)
    longer = [(i, j) for i in range(layers) for j in range(i + LEAST_LAYERS, layers + 1)]
    chosen = random.Random(name).sample(longer, min(count, len(longer)))
    ranges = {(index, index + 1) for index in range(layers)} | {*chosen, (0, layers)}
    return Network(name, apart.graph, sorted(ranges), apart)
