"""Whether products in bfloat16 are worth it here: only some processors have instructions for them.

Elsewhere they take as long as those in float32, or longer, so it is measured and not asked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache

import torch

from layergraph import LayerGraph
from layergraph.bfloat16 import by_either, roundable_weights

# Of a convolution's time in float32, with maps that are rounded there and back.
PAYS = 0.8
RUNS = 5


def rounded_weights(graph: LayerGraph, device: str) -> Mapping[int, str]:
    """Weights, with their names, that are to be bfloat16 for as long as they are not exact."""
    if device != "cpu" or not bfloat16_pays():
        return {}
    return {index: graph.weights[index].name for index in sorted(roundable_weights(graph))}


@cache
def bfloat16_pays() -> bool:
    """Takes some 20 ms at first, of this thread alone."""
    maps, weight = torch.ones(1, 64, 56, 56), torch.ones(64, 64, 3, 3)
    seconds = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    convolve = by_either(torch.conv2d)
    with torch.inference_mode():
        for _ in range(RUNS):
            for dtype, known_s in seconds.items():
                given = weight.to(dtype)
                began = time.thread_time()
                convolve(maps, given, None, [1, 1], [1, 1])
                seconds[dtype] = min(known_s, time.thread_time() - began)
    return seconds[torch.bfloat16] <= PAYS * seconds[torch.float32]
