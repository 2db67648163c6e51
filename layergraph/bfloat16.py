"""Products by weights of which no more is known than a bfloat16: in bfloat16, summed in float32.

Weights that are known to 8 bits or fewer gain nothing from maps of 24. Processors that multiply
bfloat16 take half the time for a convolution, or less; what goes in and comes out is rounded to
8 bits, which adds less noise than the weights have already. All that lies between products stays
float32. (That networks bear it: D. Kalamkar et al., "A Study of BFLOAT16 for Deep Learning
Training", 2019.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod

import torch

from layergraph.graph import LayerGraph
from layergraph.nodes import Node, WeightRef

PRODUCTS = frozenset({"aten.conv2d.default", "aten.conv2d.padding", "aten.linear.default"})
# Smaller ones take no less time: maps are rounded for few products each.
LEAST_ELEMENTS, LEAST_INPUTS = 1 << 15, 16


def roundable_weights(graph: LayerGraph) -> frozenset[int]:
    """Weights that an `Executor` may be given as bfloat16, though the graph has them as float32.

    They are the weights of products, at least so large that it pays, and nothing else uses them.
    """
    uses = Counter(
        argument.index
        for node in graph.nodes
        for argument in node.arguments()
        if isinstance(argument, WeightRef)
    )
    products = Counter(map(product_weight, graph.nodes))
    return frozenset(
        index
        for index, weight in enumerate(graph.weights)
        if products[index] == uses[index] > 0
        and weight.spec.dtype == "float32"
        and prod(weight.spec.shape) >= LEAST_ELEMENTS
        and weight.spec.shape[1] >= LEAST_INPUTS
    )


def product_weight(node: Node) -> int | None:
    """The weight by which a product multiplies; None of anything else."""
    if node.op not in PRODUCTS or len(node.args) < 2:
        return None
    maps, weight = node.args[:2]
    if isinstance(weight, WeightRef) and not isinstance(maps, WeightRef):
        return weight.index
    return None


def by_either(product: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The product, by a weight in float32 or in bfloat16; its maps and its result are float32."""

    def run(
        maps: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *rest: object,
        **named: object,
    ) -> torch.Tensor:
        if weight.dtype is not torch.bfloat16:
            return product(maps, weight, bias, *rest, **named)
        short = None if bias is None else bias.bfloat16()
        return product(maps.bfloat16(), weight, short, *rest, **named).float()

    return run
