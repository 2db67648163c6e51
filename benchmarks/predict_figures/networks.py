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
from functools import cached_property
from itertools import chain

import torch

from ionn_edge.measure import ARENA_BYTES, undisturbed
from layergraph import Executor, LayerGraph, LayerWork, capture, flatten_inputs, work
from layergraph.networks import NETWORKS

LEAST_LAYERS = 5
# What ran before makes a range up to a tenth slower, which is not so in a stream of queries: the
# first run is not measured, then the shorter the more often.
SHORT_S, MOST_RUNS = 0.02, 10
# More than a processor's cache, as much as where layers are calibrated.
COLD_BYTES = ARENA_BYTES
Range = tuple[int, int]
Weights = dict[str, torch.Tensor]


@dataclass
class Network:
    """One network, copies of its weights, example inputs, and the seconds of its ranges."""

    name: str
    graph: LayerGraph
    copies: list[Weights]
    example: tuple[torch.Tensor, ...]
    ranges: list[Range]
    # Of each range, the seconds of all runs of each visit.
    visits: dict[Range, list[list[float]]] = field(default_factory=dict)
    _compiled: set[Range] = field(default_factory=set)

    @cached_property
    def weights(self) -> Weights:
        """The copy that is bound."""
        return dict(self.copies[0])

    @cached_property
    def executor(self) -> Executor:
        return Executor(self.graph, self.weights)

    @cached_property
    def cuts(self) -> list[tuple[torch.Tensor, ...]]:
        """What is alive at each cut."""
        found = [self.example]
        for index in range(self.layers):
            found.append(self.executor.run(index, index + 1, found[-1]))
        return found

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
        """The median of what the visits tell, each as calibration takes it."""
        return statistics.median(map(undisturbed, self.visits[layers]))

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
        one, other = (map(undisturbed, visits[first::2]) for first in (0, 1))
        return statistics.median(one), statistics.median(other)

    def visit(self, layers: Range) -> None:
        """Measure a range once more; its first run, after others, is not counted."""
        if layers not in self._compiled:
            self._timed(layers)
            self._compiled.add(layers)
        runs = max(2, min(MOST_RUNS, int(SHORT_S / self._timed(layers))))
        taken_s = [self._timed(layers) for _ in range(runs)]
        self.visits.setdefault(layers, []).append(taken_s)

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
    layers = len(graph.layers)
    longer = [(i, j) for i in range(layers) for j in range(i + LEAST_LAYERS, layers + 1)]
    chosen = random.Random(name).sample(longer, min(count, len(longer)))
    ranges = {(index, index + 1) for index in range(layers)} | {*chosen, (0, layers)}
    example = tuple(flatten_inputs(graph, args, {}))
    total = max(1, sum(graph.weight_bytes))
    # So many that no cache holds them all.
    copies = [_mapped(weights) for _ in range(max(1, -(-COLD_BYTES // total)))]
    return Network(name, graph, copies, example, sorted(ranges))


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
