"""Computes audits: on a thread of its own, so that no query waits for its turn behind one."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

from ionn_client.machine.audit import difference
from ionn_client.machine.events import AuditRange, RangeAudited
from ionn_client.machine.rough import MIXES, nudged, run_roughly
from ionn_client.machine.tensors import live_from_wire
from layergraph import Executor, LayerGraph, weight_bytes_view
from layergraph.execute import Live
from wire import PRECISIONS
from wire.activations import decode_tensor


class Auditor:
    """A second executor over the same weights: the one that runs queries is one thread's."""

    def __init__(
        self, graph: LayerGraph, weights: Mapping[str, torch.Tensor], threads: int
    ) -> None:
        self._graph = graph
        self._weights = weights
        self._executor = Executor(graph, weights)
        # Of the audit under way, what its next slice is given by weights as the edge claims them.
        self._rough: tuple[int, list[Live]] | None = None
        self._pool = ThreadPoolExecutor(1, "ionn-audit", torch.set_num_threads, (threads,))

    async def run(self, asked: AuditRange) -> RangeAudited:
        """Raises what the model or the tensors raise."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._run, asked)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check_weights(self) -> None:
        """Raises ValueError if the program has changed them: no edge answers for that."""
        for weight in self._graph.weights:
            here = hashlib.sha256(weight_bytes_view(self._weights[weight.name])).digest()
            if here != weight.digest:
                raise ValueError(f"{weight.name} is not what it was when the model was captured")

    def _run(self, asked: AuditRange) -> RangeAudited:
        began, live = time.thread_time(), asked.live
        if asked.coded:
            live = live_from_wire(tuple(map(decode_tensor, asked.coded)), self._graph, asked.start)
        rough = self._roughly(asked, live)
        given = live
        live = self._executor.run(asked.start, asked.stop, live)
        apart = explained = None
        if asked.claimed is not None:
            apart = difference(live, asked.claimed, asked.tolerance)
            if rough is not None:
                explained = max(difference(live, each, asked.tolerance) for each in rough)
            elif apart > asked.tolerance:
                explained = self._rounding(asked, given, live)
            if apart > asked.tolerance or (explained is not None and apart > explained):
                self._check_weights()
        seconds = time.thread_time() - began
        return RangeAudited(asked.audit, asked.stop, live, apart, seconds, explained)

    def _roughly(self, asked: AuditRange, live: Live) -> list[Live] | None:
        """The same slice by weights of the claimed precision; None where that is exact."""
        if asked.precision == PRECISIONS[-1]:
            return None
        lives = [live] * MIXES
        if self._rough is not None and self._rough[0] == asked.audit:
            lives = self._rough[1]
        layers = (asked.start, asked.stop)
        rough = [
            run_roughly(self._graph, self._weights, layers, each, asked.precision, mix)
            for mix, each in enumerate(lives)
        ]
        self._rough = None if asked.claimed is not None else (asked.audit, rough)
        return rough

    def _rounding(self, asked: AuditRange, given: Live, live: Live) -> float:
        """How far off other roundings on the way to the last slice may be at its end."""
        chance = torch.Generator().manual_seed(asked.audit)
        others = (nudged(given, chance) for _ in range(MIXES))
        ran = (self._executor.run(asked.start, asked.stop, other) for other in others)
        return max(difference(live, other, asked.tolerance) for other in ran)
