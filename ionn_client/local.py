"""Runs layer ranges on the client: one thread, in turn, at the emulated device's speed."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType

import torch

from ionn_client.auditor import Auditor
from ionn_client.emulate import SlowDevice
from layergraph import Executor, LayerGraph
from layergraph.execute import Live
from planner import RangeTimes, fit_ranges, range_tilings
from planner.grouped import RangeErrors, random_tilings, range_errors, spans

# What took a thread no longer than this takes longer to be given to it, and back.
BRIEF_S = 0.0005


class LocalRunner:
    """The client's processor. Ranges wait for each other, as on a device with one core.

    They run in a thread, but for those that were seen to be brief (`run_at_once`).

    With a `device`, each range takes as long as that slow device would: what is left after the
    real computation is slept. `auditor` computes beside it, for nobody's answer.
    """

    def __init__(
        self,
        graph: LayerGraph,
        weights: Mapping[str, torch.Tensor],
        threads: int,
        device: SlowDevice | None = None,
    ) -> None:
        self._executor = Executor(graph, weights)
        self.auditor = Auditor(graph, weights, threads)
        self._device = device
        self._threads = threads
        self._brief: set[tuple[int, int]] = set()
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
        self.auditor.close()

    def run_at_once(self, start: int, stop: int, live: Live) -> tuple[Live, float] | None:
        """As `run`, on this very thread; None, without running them, if they may keep it waiting.

        As many threads compute here as there, since their number may show in the last bit.
        """
        if (start, stop) not in self._brief or self._turn.locked():
            return None
        if torch.get_num_threads() != self._threads:
            return None
        return self._timed(start, stop, live)

    def _timed(self, start: int, stop: int, live: Live) -> tuple[Live, float]:
        began = time.perf_counter()
        result = self._executor.run(start, stop, live)
        took_s = time.perf_counter() - began
        if took_s <= BRIEF_S and self._device is None:
            self._brief.add((start, stop))
        else:
            self._brief.discard((start, stop))
        return result, took_s

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
            result, took_s = await loop.run_in_executor(self._pool, self._timed, start, stop, live)
            if self._device is None:
                return result, took_s
            elapsed_s = time.perf_counter() - began
            await asyncio.sleep(self._device.remaining_s(range(start, stop), elapsed_s))
            return result, time.perf_counter() - began


def profile_ranges(
    graph: LayerGraph,
    weights: Mapping[str, torch.Tensor],
    live: Live,
    tilings: Sequence[Sequence[int]],
    runs: int,
    threads: int,
) -> dict[tuple[int, int], float]:
    """Median seconds of every range of `tilings` on this machine, as queries run them.

    live: tensors at cut 0. tilings: per run of the model the cuts at which it is divided, from 0
    to the last. Each is run `runs` times, in turn, so that all see the same moods of the machine;
    a first round is not counted. One thread's time is its own CPU time, which neighbours on the
    machine do not lengthen; that of several is the clock's.
    """
    # An executor each: one would forget the first ranges over the last, and build them again.
    executors = [Executor(graph, weights) for _ in tilings]
    clock = time.thread_time if threads == 1 else time.perf_counter
    samples: dict[tuple[int, int], list[float]] = {}
    with ThreadPoolExecutor(1, "ionn-profile", torch.set_num_threads, (threads,)) as pool:
        for counted in [False, *[True] * runs]:
            for executor, cuts in zip(executors, tilings, strict=True):
                for span, seconds in pool.submit(_time_run, executor, cuts, live, clock).result():
                    if counted:
                        samples.setdefault(span, []).append(seconds)
    return {span: statistics.median(times) for span, times in samples.items()}


def _time_run(
    executor: Executor, cuts: Sequence[int], live: Live, clock: Callable[[], float]
) -> list[tuple[tuple[int, int], float]]:
    times = []
    for start, stop in pairwise(cuts):
        began = clock()
        live = executor.run(start, stop, live)
        times.append(((start, stop), clock() - began))
    return times


@dataclass(frozen=True, slots=True)
class GroupedProfile:
    """Times of ranges, and how well they predict ranges that were measured but held out."""

    times: RangeTimes
    errors: RangeErrors


def profile_grouped(
    graph: LayerGraph,
    weights: Mapping[str, torch.Tensor],
    live: Live,
    runs: int,
    threads: int,
    held_out_runs: int = 8,
) -> GroupedProfile:
    """Measure `range_tilings` of the model, and beside them random ones to check the fit with.

    live: tensors at cut 0. Takes 2 log2(layers) + `held_out_runs` times as long as profiling the
    layers alone.
    """
    layers = len(graph.layers)
    tilings = range_tilings(layers, graph.cut_bytes, graph.cut_bytes)
    random = random_tilings(layers, held_out_runs, seed=1)
    measured = profile_ranges(graph, weights, live, (*tilings, *random), runs, threads)
    fitted = spans(tilings)
    times = fit_ranges(layers, {span: measured[span] for span in measured if span in fitted})
    return GroupedProfile(times, range_errors(times, measured))
