"""A model as it is offloaded: captured, with what its layers and its crossings take here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ionn_client.activations import Activations, measure_activations, raw_only
from ionn_client.config import Options
from ionn_client.local import profile_ranges
from ionn_client.machine.crossings import Crossings
from ionn_client.machine.kept import KeepLocal, kept_layers
from ionn_client.machine.sender import coding_keeps_up
from layergraph import LayerGraph, capture, capture_cached, flatten_inputs
from layergraph.execute import Live
from planner import LayerCosts, Link, RangeTimes, fit_ranges
from wire.segments import CODED_SHARE


@dataclass(frozen=True)
class Profiled:
    """A captured model with its layer times on this machine, ready to be offloaded.

    client_s: seconds of each layer, before any emulated slowdown. activations: what each coding
    makes of the live tensors at each cut; None where that was not measured. ranges: what layers
    take in one go, with `client_s` as its layer times; None where only layers are known.
    """

    graph: LayerGraph
    weights: Mapping[str, torch.Tensor]
    client_s: tuple[float, ...]
    activations: Activations | None = None
    ranges: RangeTimes | None = None

    def costs(
        self,
        link: Link,
        device_slowdown: float,
        edge_speed: float = 1.0,
        keep_local: KeepLocal = (0, 0),
    ) -> LayerCosts:
        """The planner's numbers for a device so many times slower than this machine, and an
        edge so many times faster, with the lossless codings that suit the link, and weights
        as long as they are expected to be when coded."""
        graph = self.graph
        crossings = Crossings(*[(self.activations or raw_only(graph)).down()] * 2)
        crossings.follow(link)
        up, down = crossings.up.chosen, crossings.down.chosen
        costs = LayerCosts(
            [device_slowdown * seconds for seconds in self.client_s],
            [seconds / edge_speed for seconds in self.client_s],
            _crossing_bytes(graph, link),
            [option.bytes for option in up],
            [option.bytes for option in down],
            cut_up_s=[option.coding_s for option in up],
            cut_down_s=[option.coding_s for option in down],
            edges=graph.edges,
            shared=graph.shared,
            local=kept_layers(graph, keep_local),
        )
        return costs if self.ranges is None else (device_slowdown * self.ranges).on_client(costs)


def _crossing_bytes(graph: LayerGraph, link: Link) -> list[float]:
    """Bytes in which each layer's weights are expected to cross."""
    coded_share = CODED_SHARE if coding_keeps_up(link.up_Bps) else 1.0
    return [
        size * coded_share
        if all(graph.weights[weight].spec.dtype == "float32" for weight in layer.weights)
        else float(size)
        for layer, size in zip(graph.layers, graph.weight_bytes, strict=True)
    ]


def prepare(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    options: Options | None = None,
) -> Profiled:
    """Capture a model, profile its layers, and measure the codings of its live tensors here.

    What `connect` does first.

    Raises layergraph.GraphError if the model cannot be captured.
    """
    options = options or Options()
    if options.captures is None:
        graph, weights = capture(model, tuple(args), dict(kwargs or {}))
    else:
        graph, weights = capture_cached(model, tuple(args), kwargs, options.captures)
    live = flatten_inputs(graph, tuple(args), dict(kwargs or {}))
    ranges = _measure(graph, weights, live, options)
    activations = measure_activations(
        graph, weights, live, options.threads, lossy=options.activation_tolerance is not None
    )
    return Profiled(graph, weights, tuple(ranges.layer_s.tolist()), activations, ranges)


def _measure(
    graph: LayerGraph, weights: Mapping[str, torch.Tensor], live: Live, options: Options
) -> RangeTimes:
    """What layers take alone, by fours and all in one go: docs/decisions/0017.

    Each layer is seen three times in every run, so half as many runs will do.
    """
    layers, runs = len(graph.layers), -(-options.profile_runs // 2)
    tilings = (range(layers + 1), (*range(0, layers, 4), layers), (0, layers))
    return fit_ranges(layers, profile_ranges(graph, weights, live, tilings, runs, options.threads))
