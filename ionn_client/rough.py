"""What weights of less than exact precision come to: how far off an honest answer can be by them.

No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from layergraph import Executor, LayerGraph, tensor_from_weight_bytes, weight_bytes_view
from layergraph.execute import Live
from layergraph.nodes import Weight
from wire.planes import approximate

# An edge may have some weights exactly and others not, which differs otherwise than having none
# exactly: by up to 3.7 times as much in eight such mixes of each of five networks (LeNet, AlexNet,
# MobileNet, ResNet-50, POS), as their parts of the error cancel by chance.
SLACK = 8.0


def run_roughly(
    graph: LayerGraph,
    weights: Mapping[str, torch.Tensor],
    layers: tuple[int, int],
    live: Live,
    precision: str,
) -> Live:
    """Layers [start, stop) by weights of no more than this precision; they are not kept."""
    start, stop = layers
    needed = {index for layer in graph.layers[start:stop] for index in layer.weights}
    rough = {
        weight.name: _rough(weight, weights[weight.name], precision)
        for weight in (graph.weights[index] for index in needed)
    }
    return Executor(graph, rough).run(start, stop, live)


def _rough(weight: Weight, tensor: torch.Tensor, precision: str) -> torch.Tensor:
    """As an edge makes it of the planes that it has; what has no planes comes whole."""
    if weight.spec.dtype != "float32" or precision == "exact":
        return tensor
    words = np.frombuffer(weight_bytes_view(tensor), np.dtype("<u4")) >> 16
    coarse = (words & 0xFFF0).astype("<u2")
    middle = (words & 0xF).astype(np.uint8).data if precision == "bfloat16" else None
    return tensor_from_weight_bytes(approximate(coarse.data, middle), weight.spec)
