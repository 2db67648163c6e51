"""A query on the several processors of one device, without an edge: `ionn plan --processors`.

The processors are stated ones, on one board: they share its memory, so that nothing is copied
between them, and each is taken to be as fast beside the others as alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ionn_client.devices import DeviceProfile, load_device
from ionn_client.quantities import joules, seconds
from layergraph import LayerGraph, NodeWork, work
from planner import Infeasible, LocalCosts, Processor, limited_route, split_layers

Amount: TypeAlias = Literal["latency_s", "energy_J"]
Shares: TypeAlias = tuple[tuple[float, ...], ...]

# Layers whose output channels are computed apart from each other.
_DIVISIBLE = {"conv", "depthwise_conv", "linear"}
_RAISED: dict[str, tuple[str, Callable[[float], str]]] = {
    "latency_s": ("the deadline", seconds),
    "energy_J": ("the battery budget", joules),
}


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """One way to run a query: per layer, the share that each processor runs.

    shares: None where no way keeps the limits; `note` then says what to raise. broken: whether
    a limit is exceeded. cpu_s: processor time of planning.
    """

    planner: str
    latency_s: float
    energy_J: float
    shares: Shares | None
    cpu_s: float
    broken: bool = False
    note: str = ""


def stated_processors(text: str) -> tuple[DeviceProfile, ...]:
    """Two or more device profiles, by names or files with commas between. ValueError if not."""
    names = [name.strip() for name in text.split(",")]
    if len(names) < 2:
        raise ValueError("--processors names two or more, with commas between")
    if len(set(names)) < len(names):
        raise ValueError("--processors names one twice")
    found = tuple(load_device(name) for name in names)
    if any(each.compute_W is None or each.idle_W is None for each in found):
        raise ValueError("--processors counts joules: their profiles need compute_W and idle_W")
    if len({each.idle_W.value for each in found if each.idle_W is not None}) > 1:
        raise ValueError("--processors are of one board, and these idle at different powers")
    return found


def local_costs(graph: LayerGraph, profiles: Sequence[DeviceProfile]) -> LocalCosts:
    """What the layers cost on processors from `stated_processors`."""
    idle_W = profiles[0].idle_W.value if profiles[0].idle_W is not None else 0.0
    processors = [
        Processor(
            profile.key,
            profile.layer_s(graph),
            max(0.0, (profile.compute_W.value if profile.compute_W is not None else 0.0) - idle_W),
        )
        for profile in profiles
    ]
    units = [_units(graph, i, nodes) for i, nodes in enumerate(work(graph))]
    cuts = np.zeros(len(graph.layers) + 1)
    return LocalCosts(processors, graph.weight_bytes, cuts, units, idle_W=idle_W)


def _units(graph: LayerGraph, layer: int, nodes: Sequence[NodeWork]) -> int:
    """The output channels of a layer that multiplies by one weight; 1 for others."""
    shapes = [graph.weights[weight].spec.shape for weight in graph.layers[layer].weights]
    multiplied = [shape for shape in shapes if len(shape) >= 2]
    divisible = [node for node in nodes if node.kind.partition("/")[0] in _DIVISIBLE]
    return int(multiplied[0][0]) if len(multiplied) == len(divisible) == 1 else 1


def local_plans(
    costs: LocalCosts,
    minimise: Amount,
    latency_s: float | None = None,
    energy_J: float | None = None,
) -> tuple[LocalPlan, ...]:
    """Each processor alone; the best with every layer on one; and the best with layers split.

    `latency_s`, `energy_J`: what a query may take at most.
    """
    k = len(costs.processors)
    limits = {"latency_s": latency_s, "energy_J": energy_J}

    def route() -> tuple[float, float, Shares]:
        found = limited_route(costs, minimise, latency_s=latency_s, energy_J=energy_J)
        shares = tuple(_only(processor, k) for processor in found.processors)
        return found.latency_s, found.energy_J, shares

    def split() -> tuple[float, float, Shares]:
        found = split_layers(costs, minimise, latency_s=latency_s, energy_J=energy_J)
        shares = tuple(
            tuple(mine / units for mine in parts)
            for parts, units in zip(found.units, costs.units.tolist(), strict=True)
        )
        return found.latency_s, found.energy_J, shares

    # Loads the solver, so that the first plan is not told to take that long.
    limited_route(LocalCosts([Processor("any", [0.0], 0.0)], [0.0], [0.0, 0.0]))
    return (
        *(_alone(costs, processor, limits) for processor in range(k)),
        _planned("each layer on one", route),
        _planned("layers split", split),
    )


def _only(processor: int, k: int) -> tuple[float, ...]:
    return tuple(float(each == processor) for each in range(k))


def _alone(costs: LocalCosts, processor: int, limits: dict[str, float | None]) -> LocalPlan:
    began = time.process_time()
    runs = costs.processors[processor]
    latency_s = float(runs.layer_s.sum())
    taken = {"latency_s": latency_s, "energy_J": latency_s * (runs.active_W + costs.idle_W)}
    broken = any(
        at_most is not None and taken[name] > at_most * (1 + 1e-9)
        for name, at_most in limits.items()
    )
    shares = (_only(processor, len(costs.processors)),) * len(costs)
    cpu_s = time.process_time() - began
    return LocalPlan(runs.name, latency_s, taken["energy_J"], shares, cpu_s, broken)


def _planned(name: str, planner: Callable[[], tuple[float, float, Shares]]) -> LocalPlan:
    began = time.process_time()
    try:
        latency_s, energy_J, shares = planner()
    except Infeasible as error:
        raised = " and ".join(
            f"{_RAISED[limit][0]} by {_RAISED[limit][1](more)}"
            for limit, more in error.excess.items()
        )
        cpu_s = time.process_time() - began
        return LocalPlan(name, 0.0, 0.0, None, cpu_s, note=f"none keeps all limits; raise {raised}")
    return LocalPlan(name, latency_s, energy_J, shares, time.process_time() - began)
