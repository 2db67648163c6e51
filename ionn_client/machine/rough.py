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
from wire.planes import COARSE, MIDDLE, approximate, coarse_words, rounded

# An edge may have some weights exactly and others not, which differs otherwise than having none
# exactly: by up to 3.7 times as much in eight such mixes of each of five networks (LeNet, AlexNet,
# MobileNet, ResNet-50, POS), as their parts of the error cancel by chance.
SLACK = 8.0
# Of one or two numbers they may cancel altogether: by all weights alone, 2 to 6 of 100 honest
# answers of small networks with one output were further off than that. Several mixes, of which the
# worst counts, left none of 5,760.
MIXES = 5
# As many of the last binary place.
NUDGE = 8


def run_roughly(
    graph: LayerGraph,
    weights: Mapping[str, torch.Tensor],
    layers: tuple[int, int],
    live: Live,
    precision: str,
    mix: int = 0,
) -> Live:
    """Layers [start, stop) by weights of no more than this precision; they are not kept.

    mix: below MIXES; which of the weights are so, and not exact. All of them in the first.
    """
    start, stop = layers
    needed = {index for layer in graph.layers[start:stop] for index in layer.weights}
    mixed = {}
    for index in needed:
        weight = graph.weights[index]
        tensor = weights[weight.name]
        mixed[weight.name] = _rough(weight, tensor, precision) if _in(index, mix) else tensor
    return Executor(graph, mixed).run(start, stop, live)


def _in(weight: int, mix: int) -> bool:
    """All; every other weight; every other two: what one has of kernels, its rival has not."""
    if mix == 0:
        return True
    return (weight // (1 + (mix > 2)) + mix) % 2 == 0


def _rough(weight: Weight, tensor: torch.Tensor, precision: str) -> torch.Tensor:
    """As an edge makes it of the planes that it has; what has no planes comes whole."""
    if weight.spec.dtype != "float32" or precision == "exact":
        return tensor
    blob = weight_bytes_view(tensor)
    if precision == "bfloat16":
        words = (np.frombuffer(blob, "<u4") >> 16).astype("<u2").data
        # Edges that multiply bfloat16 round to it, which is twice as far off as the others are.
        words = rounded(MIDDLE, words)
        return tensor_from_weight_bytes(approximate(COARSE, words), weight.spec)
    return tensor_from_weight_bytes(approximate(COARSE, coarse_words(blob)), weight.spec)


def nudged(live: Live, chance: torch.Generator) -> Live:
    """Each number some roundings up or down, as drawn."""
    return tuple(_nudged(each, chance) if each.is_floating_point() else each for each in live)


def _nudged(tensor: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    signs = torch.randint(0, 2, tensor.shape, generator=chance).to(tensor.dtype) * 2 - 1
    return tensor * (1 + signs * (NUDGE * torch.finfo(tensor.dtype).eps))
