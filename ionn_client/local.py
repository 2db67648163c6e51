"""Runs layer ranges on the client: one thread, in turn, at the emulated device's speed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import torch

from ionn_client.emulate import SlowDevice
from layergraph import Executor, LayerGraph
from layergraph.execute import Live


class LocalRunner:
    """The client's processor. Ranges wait for each other, as on a device with one core.

    With a `device`, each range takes as long as that slow device would: what is left after the
    real computation is slept.
    """

    def __init__(
        self,
        graph: LayerGraph,
        weights: Mapping[str, torch.Tensor],
        threads: int,
        device: SlowDevice | None = None,
    ) -> None:
        self._executor = Executor(graph, weights)
        self._device = device
        self._turn = asyncio.Lock()
        self._pool = ThreadPoolExecutor(1, "ionn-local", torch.set_num_threads, (threads,))

    def __enter__(self) -> LocalRunner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(
        self, start: int, stop: int, live: Live, wanted: Callable[[], bool]
    ) -> tuple[Live, float] | None:
        """Layers [start, stop): the live tensors at `stop`, and the seconds it took.

        None, without running them, if nobody wants them any more when their turn comes.
        """
        loop = asyncio.get_running_loop()
        async with self._turn:
            if not wanted():
                return None
            began = time.perf_counter()
            result = await loop.run_in_executor(self._pool, self._executor.run, start, stop, live)
            if self._device is not None:
                elapsed_s = time.perf_counter() - began
                await asyncio.sleep(self._device.remaining_s(range(start, stop), elapsed_s))
            return result, time.perf_counter() - began


def profile_layers(
    graph: LayerGraph, weights: Mapping[str, torch.Tensor], live: Live, runs: int, threads: int
) -> tuple[float, ...]:
    """Median seconds of each layer on this machine, one after the other as a query runs them.

    live: tensors at cut 0. The first pass is not counted.
    """
    executor, layers = Executor(graph, weights), len(graph.layers)
    samples: list[list[float]] = [[] for _ in range(layers)]
    with ThreadPoolExecutor(1, "ionn-profile", torch.set_num_threads, (threads,)) as pool:
        for counted in [False, *[True] * runs]:
            for layer, seconds in enumerate(pool.submit(_time_pass, executor, live).result()):
                if counted:
                    samples[layer].append(seconds)
    return tuple(sorted(times)[len(times) // 2] for times in samples)


def _time_pass(executor: Executor, live: Live) -> Sequence[float]:
    times = []
    for layer in range(len(executor.graph.layers)):
        began = time.perf_counter()
        live = executor.run(layer, layer + 1, live)
        times.append(time.perf_counter() - began)
    return times
