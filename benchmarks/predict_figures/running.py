"""A network as an edge's worker runs it: whole ranges, weights from files, a process of its own.

Weights come from memory, as where an edge serves several clients: a network that would fit into
the processor's cache has copies that take turns.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import time
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any

import torch

from ionn_edge.allocator import keep_freed_memory
from ionn_edge.measure import ARENA_BYTES
from layergraph import Executor, LayerGraph, capture, flatten_inputs
from layergraph.networks import NETWORKS

# What ran before makes a range up to a tenth slower, which is not so in a stream of queries: the
# first run is not measured, then the shorter the more often.
SHORT_S, MOST_RUNS = 0.02, 10
# More than a processor's cache, as much as where layers are calibrated.
COLD_BYTES = ARENA_BYTES
Range = tuple[int, int]
Weights = dict[str, torch.Tensor]


class Running:
    """A network, copies of its weights, and example inputs, in this process."""

    def __init__(self, name: str) -> None:
        network = NETWORKS[name]
        model, args = network.build(), network.example()
        self.graph, weights = capture(model, args)
        self._example = tuple(flatten_inputs(self.graph, args, {}))
        total = max(1, sum(self.graph.weight_bytes))
        # So many that no cache holds them all.
        self.copies = [_mapped(weights) for _ in range(max(1, -(-COLD_BYTES // total)))]
        # The copy that is bound.
        self._weights = dict(self.copies[0])
        self._executor = Executor(self.graph, self._weights)
        self._compiled: set[Range] = set()

    @cached_property
    def _cuts(self) -> list[tuple[torch.Tensor, ...]]:
        """What is alive at each cut."""
        found = [self._example]
        for index in range(len(self.graph.layers)):
            found.append(self._executor.run(index, index + 1, found[-1]))
        return found

    def taken_s(self, layers: Range) -> list[float]:
        """Seconds of some runs of a range; its first run, after others, is not counted."""
        if layers not in self._compiled:
            self._timed(layers)
            self._compiled.add(layers)
        runs = max(2, min(MOST_RUNS, int(SHORT_S / self._timed(layers))))
        return [self._timed(layers) for _ in range(runs)]

    def _timed(self, layers: Range) -> float:
        if len(self.copies) > 1:
            self._exchange()
        live = self._cuts[layers[0]]
        began = time.thread_time()
        made = self._executor.run(*layers, live)
        taken_s = time.thread_time() - began
        del made
        return taken_s

    def _exchange(self) -> None:
        self.copies.append(self.copies.pop(0))
        self._weights.update(self.copies[0])
        for name in self._weights:
            self._executor.rebind(name)


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
