"""What layers take on this machine: a designed spread of single layers, run as queries run them.

For a worker process. Every layer is a small graph of its own, run by the Executor that runs
clients' layers. Its weights lie in a mapped file, as clients' do, and a layer runs again only
after all others of its round, so that its weights come from memory and not from the processor's
cache: a query runs each layer once, with weights last touched a query ago.

Times are of the processor, not of the clock, where one thread runs on it, so that what else the
machine does meanwhile counts less. Caches, memory and cores are shared all the same, often with
other machines, and slow for moments or for seconds: every layer is visited at several times, and
its calmest visit counts, which is what a query takes where a box has nothing else to do.
"""

from __future__ import annotations

import mmap
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch

from ionn_edge.calibration.disturbed import remeasured
from ionn_edge.calibration.energy import LEAST_S as LEAST_S_OF_ENERGY
from ionn_edge.calibration.energy import EnergyCounter, energy_counter
from ionn_edge.calibration.probes import Call, Probe, example
from ionn_edge.calibration.spread import spread
from ionn_edge.workers.allocator import keep_freed_memory
from layergraph import Executor
from layergraph.graph import LayerGraph
from layergraph.nodes import Argument, Constant, Layer, Node, Ref, TensorSpec, Weight, WeightRef
from layergraph.work import LayerWork, work

ARENA_BYTES = 192 << 20
LEAST_ROUNDS, MOST_WAITING = 3, 3
# Not measured, as what runs first finds caches full of other code and data: in a stream of queries
# code is warm.
WARM_S = 2e-3
# As many runs as fit into so long, and at least and at most so many.
VISIT_S, LEAST_RUNS, MOST_RUNS = 2e-3, 3, 10
# Of each layer, as far apart as can be.
VISITS = 2
# The clock itself takes as long as a short layer.
LONG_ENOUGH_S, MOST_TOGETHER = 60e-6, 3
# Of the time, the rest of which is for layers that were disturbed.
FIRST_SHARE = 0.85
# No operator takes less; what seems to was disturbed.
LEAST_S = 2e-7


Row = tuple[str, tuple[tuple[Any, ...], ...], float, float | None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One layer: its type, its operators' work, its seconds, and joules where asked for."""

    type: str
    work: LayerWork
    seconds: float
    joules: float | None = None

    def plain(self) -> Row:
        """As tuples, strings and numbers."""
        return self.type, tuple(map(astuple, self.work)), self.seconds, self.joules


def measure(
    device: str, seconds: float, energy: bool = False, seed: int = 0
) -> tuple[tuple[Row, ...], float]:
    """Layers of the spread as rows, and what it takes to enter a range.

    As many rounds, each gone through twice, as fit into about `seconds` of the processor's time,
    all threads together as one, at least three; on a busy machine into three times as many seconds.
    Layers that were disturbed both times have another turn. With `energy` joules as well, where
    this machine counts them.
    """
    keep_freed_memory()
    bench = Bench(device, energy_counter() if energy else None)
    threads = torch.get_num_threads()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    share_s = FIRST_SHARE * seconds / VISITS
    measured: list[tuple[Probe, Measured]] = []
    for number, probes in enumerate(spread(seed)):
        spent_s = max(
            (time.process_time() - began_cpu_s) / threads,
            (time.perf_counter() - began_s) / MOST_WAITING,
        )
        # The next round will take as long as the others did.
        if number >= LEAST_ROUNDS and spent_s * (number + 1) / number > share_s:
            break
        measured.extend((probe, bench.measured(probe)) for probe in probes)
    for _ in range(VISITS - 1):
        measured = [(probe, calmer(layer, bench.measured(probe))) for probe, layer in measured]
    layers = remeasured(measured, bench.measured)
    return tuple(layer.plain() for layer in layers), bench.entry_s


def undisturbed(seconds: Sequence[float]) -> float:
    """What runs that follow each other tell of one visit: their lower quartile.

    What else a machine does only makes them longer; the shortest found more in caches than most.
    Raises ValueError without any.
    """
    if not seconds:
        raise ValueError("no run was measured")
    return sorted(seconds)[len(seconds) // 4]


def calmer(one: Measured, other: Measured) -> Measured:
    """Of two visits to a layer, the one that less else went on beside."""
    return min(one, other, key=lambda layer: layer.seconds)


class Bench:
    """Where probes are measured: the memory of their weights, the clock, the energy counter."""

    def __init__(self, device: str, energy: EnergyCounter | None = None) -> None:
        self._device = device
        self._energy = energy
        self._arena = _arena()
        self._position = 0
        self._entries: list[float] = []
        alone = device == "cpu" and torch.get_num_threads() == 1
        self._clock: Callable[[], float] = time.thread_time if alone else time.perf_counter

    @property
    def entry_s(self) -> float:
        """What it takes to enter a range of layers, whatever they are."""
        return statistics.median(self._entries)

    def measured(self, probe: Probe) -> Measured:
        """A few runs, each with other weights, after some that find algorithms and warm up."""
        together = self._together(probe)
        graph = _graph(probe, together)
        weights = self._weights(graph)
        executor = Executor(graph, weights, self._device)
        live = tuple(example(spec, probe).to(self._device) for spec in graph.inputs)
        taken_s = warm_s = self._run(executor, 1, live)
        while warm_s < WARM_S:
            self._exchange(weights, graph, executor)
            taken_s = self._run(executor, 1, live)
            warm_s += taken_s
        runs = max(LEAST_RUNS, min(MOST_RUNS, int(VISIT_S / taken_s)))
        entries, times = [], []
        for _ in range(runs):
            self._exchange(weights, graph, executor)
            # One that was disturbed would make a short layer seem to take nothing.
            entries.append(self._run(executor, 0, live))
            times.append(self._run(executor, 1, live))
        self._entries.append(min(entries))
        seconds = max(undisturbed(times) - min(entries), LEAST_S) / together
        of_one = work(graph)[0][: len(probe.calls)]
        return Measured(probe.type, of_one, seconds, self._joules(executor, live, together))

    def _exchange(
        self, weights: dict[str, torch.Tensor], graph: LayerGraph, executor: Executor
    ) -> None:
        weights.update(self._weights(graph))
        for name in weights:
            executor.rebind(name)

    def _joules(
        self, executor: Executor, live: tuple[torch.Tensor, ...], together: int
    ) -> float | None:
        if self._energy is None:
            return None
        runs, began = 0, time.perf_counter()
        self._energy.lap_J()
        while time.perf_counter() - began < LEAST_S_OF_ENERGY:
            self._run(executor, 1, live)
            runs += 1
        # Of the whole package: what it takes idle is part of what a layer costs.
        return self._energy.lap_J() / (runs * together) or None

    def _together(self, probe: Probe) -> int:
        """How many to time at once: the clock itself takes as long as a short layer."""
        size = sum(torch.Size(shape).numel() for call in probe.calls for shape in call.outputs)
        size += sum(torch.Size(shape).numel() for shape in probe.weights)
        guess_s = 2e-6 + probe.flops / 50e9 + size / 2e9
        return max(1, min(MOST_TOGETHER, int(LONG_ENOUGH_S / guess_s)))

    def _run(self, executor: Executor, stop: int, live: tuple[torch.Tensor, ...]) -> float:
        began = self._clock()
        executor.run(0, stop, live)
        if self._device == "cuda":
            torch.cuda.synchronize()
        return self._clock() - began

    def _weights(self, graph: LayerGraph) -> dict[str, torch.Tensor]:
        """Views of the arena one after the other, from the start again when it ends."""
        weights = {}
        for weight in graph.weights:
            count = weight.spec.nbytes // 4
            if self._position + count > self._arena.numel():
                self._position = 0
            view = self._arena[self._position : self._position + count].view(weight.spec.shape)
            weights[weight.name] = view.to(self._device)
            self._position += -(-count // 1024) * 1024
        return weights


def _arena() -> torch.Tensor:
    """Memory full of ordinary numbers, in small pages like those of a mapped file."""
    mapping = mmap.mmap(-1, ARENA_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        mapping.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(mapping, dtype=torch.float32).fill_(0.01)


def _graph(probe: Probe, together: int) -> LayerGraph:
    """One layer of the probe's calls, several times, each time with other weights."""
    nodes, weights = [], []
    inputs, made = len(probe.inputs), sum(len(call.outputs) for call in probe.calls)
    for copy in range(together):
        shift = _Shift(inputs, copy * made, copy * len(probe.weights))
        nodes += [shift.node(call) for call in probe.calls]
        weights += [TensorSpec("float32", shape) for shape in probe.weights]
    last = inputs + made * together - len(probe.calls[-1].outputs)
    return LayerGraph(
        inputs=tuple(TensorSpec(probe.dtype, shape) for shape in probe.inputs),
        weights=tuple(Weight(str(i), spec, bytes(32)) for i, spec in enumerate(weights)),
        constants=tuple(
            Constant(spec, bytes(spec.nbytes))
            for spec in (TensorSpec("float32", shape) for shape in probe.constants)
        ),
        nodes=tuple(nodes),
        layers=(Layer("", 0, len(nodes), tuple(range(len(weights)))),),
        outputs=(Ref(last),),
    )


@dataclass(frozen=True, slots=True)
class _Shift:
    """By how much a copy's references differ from the first's; inputs are all copies' own."""

    inputs: int
    made: int
    weights: int

    def node(self, call: Call) -> Node:
        outputs = tuple(TensorSpec(call.dtype, shape) for shape in call.outputs)
        return Node(call.op, tuple(map(self._argument, call.args)), (), outputs, "")

    def _argument(self, argument: Argument) -> Argument:
        match argument:
            case tuple():
                return tuple(map(self._argument, argument))
            case WeightRef(index):
                return WeightRef(index + self.weights)
            case Ref(value) if value >= self.inputs:
                return Ref(value + self.made)
        return argument
