"""Small models whose answers are exact in any order of summing, and what is right for each query.

Weights and inputs are small integers with few of them not zero, so that float32 rounds nothing;
weights that are known by their first planes only are rounded, but by the same function, layer by
layer, wherever they run. Made once per process, and shared by all seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import msgpack
import torch

from layergraph import Executor, LayerGraph, tensor_from_weight_bytes, weight_bytes_view
from layergraph.execute import Live
from layergraph.nodes import Layer, Node, Ref, TensorSpec, Weight, WeightRef
from wire import PRECISIONS
from wire.planes import COARSE, MIDDLE, approximate
from wire.segments import decode_segment, encode_segment

EXACT = len(PRECISIONS) - 1
# A layer's kind: a new matrix, one with a bias, the first matrix once more, ReLU, or the sum
# with what was `back` values before.
_KINDS = {
    "chain": "wwwwww",
    "mixed": "wrbrwrbw",
    "skips": "wrwabrwa",
    "shared": "wswrsw",
    "thin": "rwrrwr",
    "deep": "wrwrbrwawrwb",
    "wide": "wrww",
}
_WIDTHS = {"chain": 16, "mixed": 28, "skips": 24, "shared": 36, "thin": 48, "deep": 16, "wide": 112}
NAMES = tuple(name for name in _KINDS if name != "wide")
# An input with so large a number makes the model itself fail, wherever its first layer runs.
POISON = 1e5
# Answers of a model that are remembered: a few megabytes.
MOST_KNOWN = 1 << 13


class Poisoned(Exception):
    """The model fails on this input."""


@dataclass(frozen=True)
class Model:
    """A graph, its weights' bytes, and executors at every precision that they may have."""

    name: str
    graph: LayerGraph
    offer: bytes
    blobs: tuple[memoryview, ...]
    truths: tuple[tuple[bytes, ...], ...]
    executors: tuple[Executor, ...]
    # What ranges gave, by all that it depends on: most are asked for again in other seeds.
    known: dict[tuple[object, ...], Live] = field(default_factory=dict, compare=False)

    @property
    def layers(self) -> int:
        return len(self.graph.layers)

    def run(self, start: int, stop: int, live: Live, ranks: tuple[int, ...] | None = None) -> Live:
        """Layers [start, stop), each with its weights as they are at its rank, or exact ones."""
        key = (start, stop, ranks, *(tensor.numpy().tobytes() for tensor in live))
        ran = self.known.get(key)
        if ran is None:
            if len(self.known) >= MOST_KNOWN:
                self.known.clear()
            ran = self.known[key] = self._run(start, stop, live, ranks)
        return ran

    def _run(self, start: int, stop: int, live: Live, ranks: tuple[int, ...] | None) -> Live:
        if start == 0 < stop and float(live[0].abs().max()) >= POISON:
            raise Poisoned("the model fails on this input")
        # Memory as torch allocates it, which the wire's is not.
        live = tuple(tensor.clone() for tensor in live)
        for layer in range(start, stop):
            rank = EXACT if ranks is None else ranks[layer - start]
            live = self.executors[rank].run(layer, layer + 1, live)
        return live

    def run_with(self, layer: int, live: Live, wrong: Mapping[int, bytes]) -> Live:
        """One layer with these bytes as its weights, and exact ones for the others."""
        known = {
            weight.name: tensor_from_weight_bytes(wrong.get(index, exact), weight.spec)
            for index, (weight, exact) in enumerate(
                zip(self.graph.weights, self.truths[EXACT], strict=True)
            )
        }
        return Executor(self.graph, known).run(layer, layer + 1, live)

    def input(self, number: int) -> Live:
        """Whole numbers from -3 to 3."""
        known = self.known.get((number,))
        if known is not None:
            return known
        generator = torch.Generator().manual_seed(number)
        (spec,) = self.graph.inputs
        made = self.known[number,] = (
            torch.randint(-3, 4, spec.shape, generator=generator).float(),
        )
        return made


@cache
def model(name: str, variant: int = 0) -> Model:
    """One of NAMES, or "wide", whose upload takes long.

    Variants share the bytes of their first matrix, and nothing else.
    """
    graph, tensors = _graph(name, variant)
    blobs = tuple(weight_bytes_view(tensors[weight.name]) for weight in graph.weights)
    truths = tuple(
        tuple(_known(weight, blob, rank) for weight, blob in zip(graph.weights, blobs, strict=True))
        for rank in range(len(PRECISIONS))
    )
    executors = tuple(
        Executor(
            graph,
            {
                weight.name: tensor_from_weight_bytes(data, weight.spec).clone()
                for weight, data in zip(graph.weights, known, strict=True)
            },
        )
        for known in truths
    )
    return Model(name, graph, msgpack.packb(graph.to_plain()), blobs, truths, executors)


def _known(weight: Weight, blob: memoryview, rank: int) -> bytes:
    """A weight's bytes as far as its planes up to this rank tell; biases are never cut."""
    if rank == EXACT or len(weight.spec.shape) < 2:
        return bytes(blob)
    elements, words = len(blob) // 4, None
    for plane in (COARSE, MIDDLE)[: rank + 1]:
        coded = encode_segment("float32", plane, blob, 0, elements, "raw")
        words = decode_segment("float32", plane, elements, "raw", coded, words)
    assert words is not None
    return bytes(approximate(plane, words))


def _graph(name: str, variant: int) -> tuple[LayerGraph, dict[str, torch.Tensor]]:
    width, row = _WIDTHS[name], TensorSpec("float32", (1, _WIDTHS[name]))
    weights: list[Weight] = []
    tensors: dict[str, torch.Tensor] = {}
    nodes: list[Node] = []
    owned: list[tuple[int, ...]] = []
    generator = torch.Generator().manual_seed(sum(map(ord, name)))

    def weight(tensor: torch.Tensor) -> int:
        label = f"w{len(weights)}"
        digest = hashlib.sha256(weight_bytes_view(tensor)).digest()
        weights.append(Weight(label, TensorSpec("float32", tuple(tensor.shape)), digest))
        tensors[label] = tensor
        return len(weights) - 1

    for index, kind in enumerate(_KINDS[name]):
        before = Ref(index)
        if index == 1:
            generator.manual_seed(1000 * variant + sum(map(ord, name)))
        if kind in "wbs":
            first = tensors["w0"].clone() if kind == "s" else _matrix(width, generator)
            used = [weight(first)]
            if kind == "b":
                used.append(weight(torch.randint(-2, 3, (width,), generator=generator).float()))
            refs = (before, *map(WeightRef, used))
            nodes.append(Node("aten.linear.default", refs, (), (row,), f"l{index}"))
            owned.append(tuple(used))
        elif kind == "r":
            nodes.append(Node("aten.relu.default", (before,), (), (row,), f"l{index}"))
            owned.append(())
        else:
            other = Ref(index - 2)
            nodes.append(Node("aten.add.Tensor", (before, other), (), (row,), f"l{index}"))
            owned.append(())
    layers = tuple(Layer(f"l{i}", i, i + 1, used) for i, used in enumerate(owned))
    graph = LayerGraph((row,), tuple(weights), (), tuple(nodes), layers, (Ref(len(nodes)),))
    return graph, tensors


def _matrix(width: int, generator: torch.Generator) -> torch.Tensor:
    """Two entries of 1 or -1 in each row, and some zeros with a sign: numbers grow slowly."""
    matrix = torch.zeros(width, width)
    for row in range(width):
        for column in torch.randint(0, width, (2,), generator=generator).tolist():
            matrix[row, column] = 1.0 - 2.0 * int(torch.randint(0, 2, (), generator=generator))
    return matrix
