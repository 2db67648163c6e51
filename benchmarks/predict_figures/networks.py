"""Networks whose ranges are measured as an edge runs them: whole ranges, weights from files.

Weights come from memory, as where an edge serves several clients: a network that would fit into
the processor's cache has copies that take turns.
"""

from __future__ import annotations

import mmap
import os
import random
import statistics
import time
from dataclasses import dataclass, field
from itertools import chain

import torch

from ionn_edge.measure import ARENA_BYTES
from layergraph import Executor, LayerGraph, LayerWork, capture, flatten_inputs, work
from layergraph.networks import NETWORKS

LEAST_LAYERS = 5
# Shorter ranges run once unmeasured, so that what ran before matters less, and the shorter the
# more often. In long ones it matters little.
SHORT_S, MOST_RUNS = 0.02, 10
# More than a processor's cache, as much as where layers are calibrated.
COLD_BYTES = ARENA_BYTES
Range = tuple[int, int]
Weights = dict[str, torch.Tensor]


@dataclass
class Network:
    """One network: its executor, what is alive at each cut, and the seconds of its ranges."""

    name: str
    graph: LayerGraph
    executor: Executor
    cuts: list[tuple[torch.Tensor, ...]]
    ranges: list[Range]
    weights: Weights
    copies: list[Weights]
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
        """The median of a range's times, as calibration takes it."""
        return statistics.median(self.seconds(layers))

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
        one, other = (chain.from_iterable(visits[first::2]) for first in (0, 1))
        return statistics.median(one), statistics.median(other)

    def visit(self, layers: Range) -> None:
        """Measure a range once more; its first run of all is not counted."""
        if layers not in self.visits:
            self._timed(layers)
            self.visits[layers] = []
        taken_s = [self._timed(layers)]
        if taken_s[0] <= SHORT_S:
            runs = max(2, min(MOST_RUNS, int(SHORT_S / taken_s[0])))
            taken_s = [self._timed(layers) for _ in range(runs)]
        self.visits[layers].append(taken_s)

    def _timed(self, layers: Range) -> float:
        if len(self.copies) > 1:
            self._exchange()
        live = self.cuts[layers[0]]
        began = time.thread_time()
        made = self.executor.run(*layers, live)
        taken_s = time.thread_time() - began
        del made
        return taken_s

    def _exchange(self) -> None:
        self.copies.append(self.copies.pop(0))
        self.weights.update(self.copies[0])
        for name in self.weights:
            self.executor.rebind(name)


def load(name: str, count: int) -> Network:
    """The network, with all single layers and `count` longer ranges to measure, the whole in it."""
    network = NETWORKS[name]
    model, args = network.build(), network.example()
    graph, weights = capture(model, args)
    total = max(1, sum(graph.weight_bytes))
    copies = [_mapped(weights) for _ in range(max(1, -(-COLD_BYTES // total)))]
    bound = dict(copies[0])
    executor = Executor(graph, bound)
    live = flatten_inputs(graph, args, {})
    cuts = [live]
    for index in range(len(graph.layers)):
        live = executor.run(index, index + 1, live)
        cuts.append(live)
    layers = len(graph.layers)
    longer = [(i, j) for i in range(layers) for j in range(i + LEAST_LAYERS, layers + 1)]
    chosen = random.Random(name).sample(longer, min(count, len(longer)))
    ranges = {(index, index + 1) for index in range(layers)} | {*chosen, (0, layers)}
    return Network(name, graph, executor, cuts, sorted(ranges), bound, copies)


def _mapped(weights: Weights) -> Weights:
    """In mapped pages, as a worker has them."""
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in weights.items()}
    total = sum(-(-size // 64) * 64 for size in sizes.values())
    descriptor = os.memfd_create("weights")
    os.ftruncate(descriptor, max(total, 1))
    mapping = mmap.mmap(descriptor, max(total, 1))
    os.close(descriptor)
    mapped, offset = {}, 0
    for name, tensor in weights.items():
        if not tensor.numel():
            mapped[name] = tensor.detach()
            continue
        view = torch.frombuffer(mapping, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
        mapped[name] = view.view(tensor.shape).copy_(tensor.detach())
        offset += -(-sizes[name] // 64) * 64
    return mapped
