"""A network as an edge's worker runs it: whole ranges, weights from files, a process of its own.

Weights come from memory, as where layers are calibrated, and where an edge serves several clients:
copies of those that a range reads take turns, more of them than a processor's cache holds.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import time
from functools import cached_property
from itertools import cycle
from multiprocessing.connection import Connection
from typing import Any

import torch

from ionn_edge.calibration.measure import WARM_S
from ionn_edge.workers.allocator import keep_freed_memory
from layergraph import Executor, LayerGraph, capture, flatten_inputs
from layergraph.networks import NETWORKS
from layergraph.nodes import WeightRef

# What ran before makes a range up to a tenth slower, and one of microseconds half as slow again,
# which is not so in a stream of queries: as where layers are calibrated, what runs first is not
# measured. Then the shorter the more often: a range is rather visited at more times.
SHORT_S, MOST_RUNS = 0.02, 10
# Twice what a processor's caches hold, for copies; of few bytes not more than turns are taken.
COLD_BYTES, MOST_COPIES = 64 << 20, 300
_LINE = 64
Range = tuple[int, int]
Weights = dict[str, torch.Tensor]


class Running:
    """A network, its weights, and example inputs, in this process."""

    def __init__(self, name: str) -> None:
        network = NETWORKS[name]
        model, args = network.build(), network.example()
        self.graph, weights = capture(model, args)
        self._example = tuple(flatten_inputs(self.graph, args, {}))
        self._stored = _mapped(weights)
        self._bound = dict(self._stored)
        self._arena = _mapped_bytes(COLD_BYTES)
        self._executor = Executor(self.graph, self._bound)
        self._compiled: set[Range] = set()
        # Of tables a query reads few rows: they are not copied.
        self._tables = {
            node.args[0] for node in self.graph.nodes if node.op.startswith("aten.embedding.")
        }

    @cached_property
    def _cuts(self) -> list[tuple[torch.Tensor, ...]]:
        """What is alive at each cut."""
        found = [self._example]
        for index in range(len(self.graph.layers)):
            found.append(self._executor.run(index, index + 1, found[-1]))
        return found

    def taken_s(self, layers: Range) -> list[float]:
        """Seconds of some runs of a range; its first runs, after others, are not counted."""
        if layers not in self._compiled:
            self._timed(layers, {})
            self._compiled.add(layers)
        copies = cycle(self.copies(layers))
        warm_s = latest_s = self._timed(layers, next(copies))
        while warm_s < WARM_S:
            latest_s = self._timed(layers, next(copies))
            warm_s += latest_s
        runs = max(1, min(MOST_RUNS, int(SHORT_S / latest_s)))
        return [self._timed(layers, next(copies)) for _ in range(runs)]

    def copies(self, layers: Range) -> list[Weights]:
        """Of the weights of a range, so many that none is in a cache when its turn comes."""
        names = {
            self.graph.weights[index].name
            for layer in self.graph.layers[slice(*layers)]
            for index in layer.weights
            if WeightRef(index) not in self._tables
        }
        made: list[Weights] = [{name: self._stored[name] for name in names}]
        size = sum(_lines(weight) for weight in made[0].values())
        used = 0
        while size and used + size <= COLD_BYTES and len(made) < MOST_COPIES:
            made.append(_copy(made[0], self._arena[used : used + size]))
            used += size
        if used < COLD_BYTES:
            # What is left displaces the copies from caches.
            self._arena[used:].max()
        return made

    def _timed(self, layers: Range, weights: Weights) -> float:
        self._bound.update(weights)
        for name in weights:
            self._executor.rebind(name)
        live = self._cuts[layers[0]]
        began = time.thread_time()
        made = self._executor.run(*layers, live)
        taken_s = time.thread_time() - began
        del made
        return taken_s


def _mapped(weights: Weights) -> Weights:
    """In mapped pages, as a worker has them."""
    return _copy(weights, _mapped_bytes(max(1, sum(map(_lines, weights.values())))))


def _mapped_bytes(size: int) -> torch.Tensor:
    descriptor = os.memfd_create("weights")
    os.ftruncate(descriptor, size)
    mapping = mmap.mmap(descriptor, size)
    os.close(descriptor)
    return torch.frombuffer(mapping, dtype=torch.uint8)


def _copy(weights: Weights, memory: torch.Tensor) -> Weights:
    """One after the other, from whole lines of a cache on."""
    copied, offset = {}, 0
    for name, weight in weights.items():
        there = memory[offset : offset + weight.nbytes].view(weight.dtype).view(weight.shape)
        copied[name] = there.copy_(weight.detach())
        offset += _lines(weight)
    return copied


def _lines(weight: torch.Tensor) -> int:
    return -(-weight.nbytes // _LINE) * _LINE


class Apart:
    """A network that runs in another process, where nothing else was ever allocated.

    As in a box, whose workers are one client's each. In a process that had run other networks
    too, whole networks took 3 to 7% longer: their blocks lie apart from each other there.
    """

    def __init__(self, name: str) -> None:
        context = multiprocessing.get_context("forkserver")
        self._pipe, theirs = context.Pipe()
        self._process: Any = context.Process(target=_serve, args=(theirs, name), daemon=True)
        self._process.start()
        theirs.close()
        self.graph = LayerGraph.from_plain(self._pipe.recv())

    def taken_s(self, layers: Range) -> list[float]:
        """As of `Running`."""
        self._pipe.send(layers)
        taken: list[float] = self._pipe.recv()
        return taken

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()
        self._process.close()


def _serve(pipe: Connection, name: str) -> None:
    torch.set_num_threads(1)
    running = Running(name)
    # After loading, which leaves less room than workers have.
    keep_freed_memory()
    pipe.send(running.graph.to_plain())
    while True:
        try:
            layers = pipe.recv()
        except EOFError:
            return
        pipe.send(running.taken_s(layers))
