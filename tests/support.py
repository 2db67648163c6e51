"""Small real models and graphs that several tests need."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from ionn_client.boxes.known_boxes import KnownBox, KnownBoxes
from ionn_client.processes import EdgeProcess
from layergraph import LayerGraph, weight_bytes_view
from layergraph.nodes import Layer, Node, Ref, TensorSpec, Weight, WeightRef
from pairing.identity import Identity
from planner.predictor import Predictor, Sample
from planner.work import OperatorWork

WIDTH = 8
# Of one weight of `chain`.
ELEMENTS = WIDTH * WIDTH
# As an edge says it in its Welcome: a nanosecond for each operation of a linear layer.
FAST_EDGE = Predictor.fit(
    [Sample((OperatorWork("linear", 10.0**k, 10.0**k),), 1e-9 * 10.0**k) for k in range(2, 8)]
).to_plain()


def chain(layers: int = 3, seed: int = 0) -> tuple[LayerGraph, dict[str, torch.Tensor]]:
    """A chain of linear layers, each with its weight, made by hand: no capture needed."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"fc{index}.weight": torch.randn(WIDTH, WIDTH, generator=generator)
        for index in range(layers)
    }
    spec = TensorSpec("float32", (WIDTH, WIDTH))
    row = TensorSpec("float32", (1, WIDTH))
    weights = tuple(
        Weight(name, spec, hashlib.sha256(weight_bytes_view(tensor)).digest())
        for name, tensor in tensors.items()
    )
    nodes = tuple(
        Node("aten.linear.default", (Ref(index), WeightRef(index)), (), (row,), f"fc{index}")
        for index in range(layers)
    )
    graph = LayerGraph(
        inputs=(row,),
        weights=weights,
        constants=(),
        nodes=nodes,
        layers=tuple(Layer(f"fc{i}", i, i + 1, (i,)) for i in range(layers)),
        outputs=(Ref(layers),),
    )
    return graph, tensors


def blobs(graph: LayerGraph, tensors: dict[str, torch.Tensor]) -> list[memoryview]:
    """The bytes of each weight, in the graph's order."""
    return [weight_bytes_view(tensors[weight.name]) for weight in graph.weights]


def know_box(state: Path, address: str, box: Identity | None = None, **fields: Any) -> KnownBox:
    """A box that the device with this state directory is paired with, as far as it knows."""
    box = box or Identity.create("box")
    Identity.load(state, "device")
    known = {"name": "box", "token": "t" * 43, "paired_at_s": 0.0, "confirmed": True, **fields}
    return KnownBoxes(state).add(
        KnownBox(address=address, certificate=box.certificate.decode(), **known)
    )


def quick_edge(store: str | None = None, port: int = 0) -> EdgeProcess:
    """An edge process that does not measure its machine first, which takes seconds."""
    return EdgeProcess(store, port=port, options=("--calibration", "off"))
