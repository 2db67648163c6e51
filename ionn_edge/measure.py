"""What layers take on this machine: a designed spread of single layers, run as queries run them.

For a worker process. Every layer is a small graph of its own, run by the Executor that runs
clients' layers. Its weights lie in a mapped file, as clients' do, and come in copies that take
turns, so that they come from memory and not from the processor's cache: a query runs each
layer once, with weights last touched a query ago.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from layergraph import Executor, LayerGraph
from layergraph.graph import (
    Argument,
    Constant,
    ConstantRef,
    Layer,
    Node,
    Ref,
    TensorSpec,
    Weight,
    WeightRef,
)
from layergraph.work import work

ARENA_BYTES = 192 << 20
# What one probe's copies of weights take together: more than a processor's cache.
_COLD_BYTES = 48 << 20
_MOST_COPIES = 8
_LEAST_RUNS = 3
_MOST_RUNS = 9

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """One operator to measure: its arguments, with shapes for inputs ("x") and weights ("w")."""

    op: str
    inputs: tuple[Shape, ...]
    weights: tuple[Shape, ...]
    args: tuple[Argument, ...]
    outputs: tuple[Shape, ...]
    dtype: str = "float32"
    constants: tuple[Shape, ...] = field(default=())


def measure(device: str, seconds: float) -> list[tuple[str, float, float, float]]:
    """Rows of (kind, flops, bytes, seconds), from runs of about `seconds` in all."""
    arena = _arena()
    probes = list(spread())
    began = time.perf_counter()
    rows = []
    for number, probe in enumerate(probes):
        # What a probe leaves of its share goes to those after it.
        left_s = began + seconds - time.perf_counter()
        rows.append(_measured(probe, arena, device, left_s / (len(probes) - number)))
    return rows


def _arena() -> torch.Tensor:
    """Mapped memory full of ordinary numbers, in pages like those of a file."""
    if not hasattr(os, "memfd_create"):
        return torch.full((ARENA_BYTES // 4,), 0.01)
    descriptor = os.memfd_create("ionn-calibration")
    try:
        os.ftruncate(descriptor, ARENA_BYTES)
        mapping = mmap.mmap(descriptor, ARENA_BYTES)
    finally:
        os.close(descriptor)
    return torch.frombuffer(mapping, dtype=torch.float32).fill_(0.01)


def _measured(
    probe: Probe, arena: torch.Tensor, device: str, share_s: float
) -> tuple[str, float, float, float]:
    weight_bytes = sum(TensorSpec("float32", shape).nbytes for shape in probe.weights)
    copies = max(1, min(_MOST_COPIES, _COLD_BYTES // max(weight_bytes, 1)))
    graph = _graph(probe, copies)
    executor = Executor(graph, _weights(graph, arena, device), device)
    live = tuple(_input(shape, probe.dtype).to(device) for shape in probe.inputs)
    (node, *_) = work(graph)[0]
    times: list[float] = []
    _run(executor, live, device)
    began = time.perf_counter()
    while len(times) < _LEAST_RUNS or (
        len(times) < _MOST_RUNS and time.perf_counter() - began < share_s
    ):
        times.append(_run(executor, live, device) / copies)
    return node.kind, node.flops, node.bytes, statistics.median(times)


def _run(executor: Executor, live: tuple[torch.Tensor, ...], device: str) -> float:
    began = time.perf_counter()
    executor.run(0, 1, live)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _graph(probe: Probe, copies: int) -> LayerGraph:
    """One layer with the operator several times, each time with other weights."""
    outputs = tuple(TensorSpec("float32", shape) for shape in probe.outputs)
    nodes, weights = [], []
    for copy in range(copies):
        first = copy * len(probe.weights)
        args = tuple(_shifted(argument, first) for argument in probe.args)
        nodes.append(Node(probe.op, args, (), outputs, ""))
        weights += [TensorSpec("float32", shape) for shape in probe.weights]
    last = len(probe.inputs) + len(outputs) * (copies - 1)
    return LayerGraph(
        inputs=tuple(TensorSpec(probe.dtype, shape) for shape in probe.inputs),
        weights=tuple(Weight(str(i), spec, bytes(32)) for i, spec in enumerate(weights)),
        constants=tuple(
            Constant(spec, bytes(spec.nbytes))
            for spec in (TensorSpec("float32", shape) for shape in probe.constants)
        ),
        nodes=tuple(nodes),
        layers=(Layer("", 0, copies, tuple(range(len(weights)))),),
        outputs=(Ref(last),),
    )


def _shifted(argument: Argument, first: int) -> Argument:
    if isinstance(argument, tuple):
        return tuple(_shifted(item, first) for item in argument)
    return WeightRef(argument.index + first) if isinstance(argument, WeightRef) else argument


def _weights(graph: LayerGraph, arena: torch.Tensor, device: str) -> dict[str, torch.Tensor]:
    """Views of the arena one after the other, from the start again when it ends."""
    weights, position = {}, 0
    for weight in graph.weights:
        count = weight.spec.nbytes // 4
        if position + count > arena.numel():
            position = 0
        view = arena[position : position + count].view(weight.spec.shape)
        weights[weight.name] = view.to(device)
        position += -(-count // 1024) * 1024
    return weights


def _input(shape: Shape, dtype: str) -> torch.Tensor:
    if dtype == "int64":
        return torch.arange(torch.Size(shape).numel()).view(shape) * 37 % 1000
    return torch.full(shape, 0.5)


def spread() -> Iterator[Probe]:
    """The layers measured: every kind of operator, from the smallest to the largest in use."""
    yield from _convolutions()
    yield from _products()
    yield from _sequences()
    yield from _reductions()
    yield from _element_by_element()


def _convolutions() -> Iterator[Probe]:
    for cin, cout, kernel, stride, size in (
        (1, 20, 5, 1, 28), (3, 64, 11, 4, 224), (3, 64, 7, 2, 224), (3, 32, 3, 2, 224),
        (64, 192, 5, 1, 27), (192, 384, 3, 1, 13), (256, 256, 3, 1, 13), (64, 64, 3, 1, 56),
        (128, 128, 3, 1, 28), (512, 512, 3, 1, 7), (64, 256, 1, 1, 56), (256, 64, 1, 1, 56),
        (1024, 256, 1, 1, 14), (512, 2048, 1, 1, 7), (16, 16, 3, 1, 14), (480, 96, 1, 1, 14),
    ):  # fmt: skip
        yield _convolution(cin, cout, kernel, stride, size, 1)
    for channels, stride, size in (
        (32, 1, 112), (128, 1, 56), (256, 2, 28), (512, 1, 14), (1024, 1, 7),
    ):  # fmt: skip
        yield _convolution(channels, channels, 3, stride, size, channels)
    for cin, cout, size in ((512, 256, 4), (256, 128, 8), (128, 64, 16), (64, 32, 32), (64, 3, 64)):
        yield Probe(
            "aten.conv_transpose2d.input",
            ((1, cin, size, size),),
            ((cin, cout, 4, 4), (cout,)),
            (Ref(0), WeightRef(0), WeightRef(1), (2, 2), (1, 1)),
            ((1, cout, 2 * size, 2 * size),),
        )


def _convolution(cin: int, cout: int, kernel: int, stride: int, size: int, groups: int) -> Probe:
    padding = kernel // 2
    out = (size + 2 * padding - kernel) // stride + 1
    return Probe(
        "aten.conv2d.default",
        ((1, cin, size, size),),
        ((cout, cin // groups, kernel, kernel), (cout,)),
        (
            *(Ref(0), WeightRef(0), WeightRef(1)),
            *((stride, stride), (padding, padding), (1, 1), groups),
        ),
        ((1, cout, out, out),),
    )


def _products() -> Iterator[Probe]:
    for rows, cin, cout in (
        (1, 9216, 4096), (1, 4096, 4096), (1, 4096, 1000), (1, 1024, 1000), (1, 2048, 2048),
        (1, 256, 256), (1, 64, 10), (16, 128, 128), (128, 768, 768), (128, 768, 3072),
        (197, 384, 1536),
    ):  # fmt: skip
        yield Probe(
            "aten.linear.default",
            ((rows, cin),),
            ((cout, cin), (cout,)),
            (Ref(0), WeightRef(0), WeightRef(1)),
            ((rows, cout),),
        )
    for heads, length, width in (
        (4, 16, 32), (8, 64, 64), (6, 197, 64), (12, 128, 64), (12, 384, 64),
    ):  # fmt: skip
        shape = (1, heads, length, width)
        yield Probe(
            "aten.scaled_dot_product_attention.default",
            (shape, shape, shape),
            (),
            (Ref(0), Ref(1), Ref(2)),
            (shape,),
        )


def _sequences() -> Iterator[Probe]:
    for length, cin, hidden in ((5, 32, 32), (10, 128, 128), (50, 256, 256), (20, 512, 1024)):
        state, out = (1, 1, hidden), (1, length, hidden)
        for op, gates in (("aten.lstm.input", 4), ("aten.gru.input", 3)):
            states = (ConstantRef(0), ConstantRef(1)) if gates == 4 else ConstantRef(0)
            weights = (
                *((gates * hidden, cin), (gates * hidden, hidden)),
                *((gates * hidden,), (gates * hidden,)),
            )
            yield Probe(
                op,
                ((1, length, cin),),
                weights,
                (
                    *(Ref(0), states, tuple(WeightRef(i) for i in range(4))),
                    *(True, 1, 0.0, False, False, True),
                ),
                (out, state, state) if gates == 4 else (out, state),
                constants=(state, state),
            )
    for vocabulary, width, length in ((1000, 64, 16), (10_000, 256, 50), (30_000, 768, 128)):
        yield Probe(
            "aten.embedding.default",
            ((1, length),),
            ((vocabulary, width),),
            (WeightRef(0), Ref(0)),
            ((1, length, width),),
            dtype="int64",
        )


def _reductions() -> Iterator[Probe]:
    shape: Shape
    for channels, size in ((64, 56), (256, 28), (512, 7), (32, 112), (1024, 14)):
        shape = (1, channels, size, size)
        yield Probe(
            "aten.batch_norm.default",
            (shape,),
            ((channels,),) * 4,
            (Ref(0), *(WeightRef(i) for i in range(4)), False, 0.1, 1e-5, False),
            (shape,),
        )
    for rows, width in ((1, 768), (128, 768), (197, 384)):
        yield Probe(
            "aten.layer_norm.default",
            ((rows, width),),
            ((width,), (width,)),
            (Ref(0), (width,), WeightRef(0), WeightRef(1), 1e-5, False),
            ((rows, width),),
        )
    for channels, size in ((64, 55), (192, 27), (256, 13), (64, 112), (480, 14)):
        out = (size - 3) // 2 + 1
        yield Probe(
            "aten.max_pool2d.default",
            ((1, channels, size, size),),
            (),
            (Ref(0), (3, 3), (2, 2)),
            ((1, channels, out, out),),
        )
    for shape in ((1, 1000), (1, 21841), (12, 128, 128), (6, 197, 197)):
        yield Probe("aten.softmax.int", (shape,), (), (Ref(0), -1), (shape,))


def _element_by_element() -> Iterator[Probe]:
    maps: tuple[Shape, ...] = (
        (1, 4096),
        (1, 256, 13, 13),
        (1, 64, 55, 55),
        (1, 512, 7, 7),
        (1, 64, 112, 112),
    )
    for shape in maps:
        yield Probe("aten.relu.default", (shape,), (), (Ref(0),), (shape,))
    for shape in maps[1:4]:
        yield Probe("aten.add.Tensor", (shape, shape), (), (Ref(0), Ref(1)), (shape,))
    yield Probe("aten.gelu.default", ((128, 3072),), (), (Ref(0),), ((128, 3072),))
    yield Probe("aten.sigmoid.default", ((1, 64, 55, 55),), (), (Ref(0),), ((1, 64, 55, 55),))
    for shape in maps[1:]:
        batch, channels, *size = shape
        doubled = (batch, 2 * channels, *size)
        yield Probe("aten.cat.default", (shape, shape), (), ((Ref(0), Ref(1)), 1), (doubled,))
    yield Probe("aten.flatten.using_ints", ((1, 256, 6, 6),), (), (Ref(0), 1), ((1, 9216),))
    yield Probe(
        "aten.pad.default", ((1, 64, 56, 56),), (), (Ref(0), (1, 1, 1, 1)), ((1, 64, 58, 58),)
    )
