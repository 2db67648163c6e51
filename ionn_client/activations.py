"""What each coding makes of a model's own live tensors: measured on the example, per cut.

Sizes and times are of real activations, because zeros after a ReLU are what coding lives on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from ionn_client.machine.tensors import live_from_wire, live_to_wire
from layergraph import Executor, LayerGraph
from layergraph.execute import Live
from planner import CutCoding
from wire import TENSOR_CODINGS, messages
from wire.activations import LOSSY, decode_tensor, encode_tensor

LOSSLESS = tuple(coding for coding in TENSOR_CODINGS if coding not in LOSSY)
# Up to this size a second look costs nothing, and the first is often cold.
TWICE_BYTES = 1 << 18

Codings: TypeAlias = tuple[tuple[CutCoding, ...], ...]


@dataclass(frozen=True)
class Activations:
    """Measured codings of each of the n + 1 cuts, "raw" first, then the others there were.

    errors: of lossy codings, by (cut, coding): the largest difference in the model's answer to
    the example, relative to the answer's largest element. Measured only where a lossy coding has
    fewer bytes than every lossless one at this cut and all earlier ones: elsewhere something
    exact is both sooner and shorter.
    """

    codings: Codings
    errors: Mapping[tuple[int, str], float] = field(default_factory=dict)

    def up(self, tolerance: float | None) -> Codings:
        """What may cross upwards: the lossless codings, and the lossy within `tolerance`."""
        return tuple(
            tuple(each for each in cut if self._within(index, each.coding, tolerance))
            for index, cut in enumerate(self.codings)
        )

    def down(self) -> Codings:
        """What may cross downwards: nothing lossy, so that a query has one error at most."""
        return self.up(None)

    def _within(self, cut: int, coding: str, tolerance: float | None) -> bool:
        if coding in LOSSLESS:
            return True
        error = self.errors.get((cut, coding))
        return tolerance is not None and error is not None and error <= tolerance


def raw_only(graph: LayerGraph) -> Activations:
    """No measurements: every cut as it is."""
    return Activations(tuple((CutCoding("raw", size, 0.0, 0.0),) for size in graph.cut_bytes))


def measure_activations(
    graph: LayerGraph,
    weights: Mapping[str, torch.Tensor],
    live: Live,
    threads: int,
    *,
    lossy: bool = False,
) -> Activations:
    """Code each live tensor of one pass over the example once, and add up per cut.

    live: the tensors at cut 0. With `lossy`, the lossy codings are measured too, and the rest of
    the model is run on what they leave, for the error in the answer.
    """
    with ThreadPoolExecutor(1, "ionn-measure", torch.set_num_threads, (threads,)) as pool:
        return pool.submit(_measure, Executor(graph, weights), live, lossy).result()


def _measure(executor: Executor, live: Live, lossy: bool) -> Activations:
    graph = executor.graph
    codings = TENSOR_CODINGS if lossy else LOSSLESS
    layers = len(graph.layers)
    answer = executor.run(0, layers, live)
    by_value: dict[int, dict[str, _Sample]] = {}
    cuts: list[tuple[CutCoding, ...]] = []
    errors: dict[tuple[int, str], float] = {}
    exact_bytes = math.inf
    for cut in range(layers + 1):
        values = [value for value in graph.cuts[cut] if graph.values[value] is not None]
        for value, tensor in zip(values, live_to_wire(live), strict=True):
            if value not in by_value:
                by_value[value] = {coding: _sample(tensor, coding) for coding in codings}
        cuts.append(tuple(_added(c, [by_value[value][c] for value in values]) for c in codings))
        exact_bytes = min(exact_bytes, *(o.bytes for o in cuts[cut] if o.coding in LOSSLESS))
        if cut == layers:
            break
        for option in cuts[cut]:
            if option.coding in LOSSY and option.bytes < exact_bytes:
                errors[cut, option.coding] = _error(executor, cut, live, option.coding, answer)
        live = executor.run(cut, cut + 1, live)
    return Activations(tuple(cuts), errors)


@dataclass(frozen=True, slots=True)
class _Sample:
    bytes: int
    encode_s: float
    decode_s: float


def _sample(tensor: messages.Tensor, coding: str) -> _Sample:
    raw_bytes = memoryview(tensor.data).nbytes
    if coding == "raw":
        return _Sample(raw_bytes, 0.0, 0.0)
    samples = [_timed(tensor, coding) for _ in range(2 if raw_bytes <= TWICE_BYTES else 1)]
    return min(samples, key=lambda sample: sample.encode_s + sample.decode_s)


def _timed(tensor: messages.Tensor, coding: str) -> _Sample:
    began = time.perf_counter()
    coded = encode_tensor(tensor, coding)
    encoded = time.perf_counter()
    decode_tensor(coded)
    decoded = time.perf_counter()
    return _Sample(memoryview(coded.data).nbytes, encoded - began, decoded - encoded)


def _added(coding: str, samples: Sequence[_Sample]) -> CutCoding:
    return CutCoding(
        coding,
        sum(sample.bytes for sample in samples),
        sum(sample.encode_s for sample in samples),
        sum(sample.decode_s for sample in samples),
    )


def _error(executor: Executor, cut: int, live: Live, coding: str, answer: Live) -> float:
    graph = executor.graph
    coded = tuple(decode_tensor(encode_tensor(t, coding)) for t in live_to_wire(live))
    rest = executor.run(cut, len(graph.layers), live_from_wire(coded, graph, cut))
    return max((_difference(a, b) for a, b in zip(rest, answer, strict=True)), default=0.0)


def _difference(ours: torch.Tensor, reference: torch.Tensor) -> float:
    if not reference.numel() or torch.equal(ours, reference):
        return 0.0
    scale = reference.abs().max().double().clamp_min(1e-30)
    difference = float((ours.double() - reference.double()).abs().max() / scale)
    return math.inf if math.isnan(difference) else difference
