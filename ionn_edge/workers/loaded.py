"""A worker's model: a graph that may run, and what is here of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch

from ionn_edge.storage.places import Place
from ionn_edge.storage.weights import Weights
from ionn_edge.workers import jobs
from ionn_edge.workers.rounding import rounded_weights
from layergraph import Executor, LayerGraph, tensor_from_weight_bytes
from layergraph.symbols import DTYPES
from wire.messages import PRECISIONS

Live: TypeAlias = tuple[torch.Tensor, ...]


class LoadedModel:
    """A graph that may run, with what is here of its weights."""

    def __init__(self, graph: LayerGraph, places: tuple[Place, Place], device: str) -> None:
        self.graph = graph
        rounded = rounded_weights(graph, device)
        self.weights = Weights(*places, device, self._replaced, frozenset(rounded.values()))
        for weight in graph.weights:
            if not weight.spec.nbytes:
                self.weights.put(weight, tensor_from_weight_bytes(b"", weight.spec))
        self.executor = Executor(graph, self.weights.tensors, device, frozenset(rounded))
        # Where to warm up next. Only where all is there at once: uploads bring queries meanwhile.
        self.cold_layer: int | None = None
        self._cold_live: Live = ()
        # Ranges whose weights are all here and exact: no better ones come.
        self._exact: set[tuple[int, int]] = set()

    def load(self, weights: Sequence[int], precision: str, number: int) -> None:
        for index in weights:
            self.weights.load(self.graph.weights[index], precision, number)
        if precision == "exact" and len(weights) == len(self.graph.weights):
            self.cold_layer = 0

    def warm_up(self, device: str) -> None:
        layer = self.cold_layer
        assert layer is not None
        if not layer:
            self._cold_live = tuple(
                torch.zeros(spec.shape, dtype=DTYPES[spec.dtype], device=device)
                for spec in self.graph.cut_specs(0)
            )
        for index in self.graph.layers[layer].weights:
            self.weights.rank(self.graph.weights[index].name, len(PRECISIONS) - 1)
        self._cold_live = self.executor.run(layer, layer + 1, self._cold_live)
        self.cold_layer = layer + 1
        if self.cold_layer == len(self.graph.layers):
            self.cold_layer, self._cold_live = None, ()

    def reachable(self, job: jobs.Run) -> tuple[int, int]:
        """How far the range can run with the weights that are here, and their least precision."""
        least, best = PRECISIONS.index(job.precision), len(PRECISIONS) - 1
        if (job.start, job.stop) in self._exact:
            return job.stop, best
        lowest = best
        for layer in range(job.start, job.stop):
            names = (self.graph.weights[index].name for index in self.graph.layers[layer].weights)
            ranks = [self.weights.rank(name, least) for name in names]
            present = [rank for rank in ranks if rank is not None]
            if len(present) < len(ranks):
                return layer, lowest
            lowest = min([lowest, *present])
        if lowest == best:
            self._exact.add((job.start, job.stop))
        return job.stop, lowest

    def _replaced(self, name: str) -> None:
        self.executor.rebind(name)


def places_of(job: jobs.Check) -> tuple[Place, Place]:
    """Where files of the worker's device are, and those of all devices."""
    own, public = Place(Path(job.store), job.key), Place(Path(job.published), job.published_key)
    return own, public
