"""Cost tables of the papers' networks on stated devices: no layer is run or timed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from ionn_client.devices import DeviceProfile
from layergraph import LayerGraph, capture
from layergraph.networks import NETWORKS
from planner import LayerCosts


def graphs(names: Iterable[str]) -> Iterator[tuple[str, LayerGraph]]:
    """Each network's graph. Its weights are let go before the next is made."""
    for name in names:
        info = NETWORKS[name]
        graph, _ = capture(info.build(), info.example(), {})
        yield name, graph


def costs_on(graph: LayerGraph, client: DeviceProfile, edge: DeviceProfile) -> LayerCosts:
    """The planner's numbers, tensors and weights crossing as they are."""
    return LayerCosts(
        client.layer_s(graph),
        edge.layer_s(graph),
        graph.weight_bytes,
        graph.cut_bytes,
        graph.cut_bytes,
        names=[layer.name for layer in graph.layers],
    )


# The first layer of each as Neurosurgeon's own service has it. What comes before (looking words
# up, putting frames side by side) the device does before it asks, and its results are the input.
SERVED_FROM = {"asr": "hidden.0", "pos": "hidden", "ner": "hidden", "chk": "hidden"}


def as_served(network: str, costs: LayerCosts) -> LayerCosts:
    """The layers that Neurosurgeon splits, from its input on."""
    names = costs.names or ()
    start = names.index(SERVED_FROM[network]) if network in SERVED_FROM else 0
    return LayerCosts(
        costs.client_s[start:],
        costs.edge_s[start:],
        costs.weight_bytes[start:],
        costs.cut_up_bytes[start:],
        costs.cut_down_bytes[start:],
        names=names[start:],
    )


def in_8_bits(graph: LayerGraph, costs: LayerCosts) -> LayerCosts:
    """The same with a byte for each number that crosses, as JointDNN quantises (from memory)."""
    sizes = [
        sum(math.prod(spec.shape) for spec in graph.cut_specs(cut))
        for cut in range(len(graph.layers) + 1)
    ]
    return replace(costs, cut_up_bytes=np.array(sizes), cut_down_bytes=np.array(sizes))
