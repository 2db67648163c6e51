"""JointDNN's schedules: the sides that a query visits, by network, radio and objective."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from ionn_client.devices import DeviceProfile
from ionn_client.quantities import bit_rate, byte_count
from layergraph import LayerGraph
from papers_figures.agreement import World, nearest_factor
from papers_figures.costs import costs_on, in_8_bits
from papers_figures.published import PATTERNS, Printed
from papers_figures.skips import Middle, best_middle
from planner import LayerCosts
from planner.jointdnn import jointdnn_placement
from planner.objective import LATENCY, Objective, mobile_energy
from planner.power import LINKS, RADIOS
from planner.prices import Placement, Prices

KINDS = {
    "alexnet": "discriminative",
    "overfeat": "discriminative",
    "nin": "discriminative",
    "vgg16": "discriminative",
    "resnet50": "discriminative",
    "deepspeech": "discriminative",
    "chair": "generative",
    "pix2pix": "autoencoder",
}
RADIO_NAMES = {"3g": "3G", "4g": "4G", "wifi": "Wi-Fi"}
OBJECTIVES = ("latency", "energy")


@dataclass(frozen=True, slots=True)
class Schedule:
    """One network's schedule over one radio: the sides in turn, and the layer of each change.

    over_client, over_edge: what all on the client, or on the edge, costs over it.
    """

    objective: str
    radio: str
    network: str
    kind: str
    placement: Placement
    names: tuple[str, ...]
    printed: Printed
    why: str
    over_client: float
    over_edge: float

    @property
    def pattern(self) -> str:
        """ "client-edge", say"""
        return pattern(self.placement)

    @property
    def told(self) -> str:
        """The sides with the layers that each runs, counted from 1."""
        return spans(self.placement)


def pattern(placement: Placement) -> str:
    """The sides that a schedule visits, in turn."""
    return "-".join(side for side, _ in groupby(placement))


def spans(placement: Placement) -> str:
    """ "client 1-6, edge 7-9": the sides with their layers, counted from 1."""
    parts, start = [], 0
    for side, layers in groupby(placement):
        stop = start + len(list(layers))
        span = f"{start + 1}-{stop}" if stop - start > 1 else str(stop)
        parts.append(side if len(placement) == stop - start else f"{side} {span}")
        start = stop
    return ", ".join(parts)


def best_with(wanted: str, prices: Prices) -> tuple[float, Placement]:
    """The cheapest placement that visits the sides of `wanted` in turn, at least a layer each.

    ValueError where there are fewer layers than sides.
    """
    sides = ["edge" if side == "edge" else "client" for side in wanted.split("-")]
    n, start = len(prices), prices.up[0] if sides[0] == "edge" else 0.0
    # The cheapest way to run the layers so far with the k-th side now running, and its choices.
    best: list[tuple[float, Placement]] = [(float(start), ())] + [(math.inf, ())] * (len(sides) - 1)
    for i in range(n):
        cost = {"client": float(prices.client[i]), "edge": float(prices.edge[i])}
        then = []
        for k, side in enumerate(sides):
            ways = [best[k]] if i or not k else []
            if k and i:
                crossing = prices.up[i] if side == "edge" else prices.down[i]
                ways.append((best[k - 1][0] + float(crossing), best[k - 1][1]))
            price, placement = min(ways, default=(math.inf, ()), key=lambda way: way[0])
            then.append((price + cost[side], (*placement, side)))
        best = then
    price, placement = best[-1]
    if not math.isfinite(price):
        raise ValueError(f"{n} layers cannot visit {wanted}")
    return price + (float(prices.down[n]) if sides[-1] == "edge" else 0.0), placement


def schedule_all(
    graphs: Mapping[str, LayerGraph], device: DeviceProfile, edge: DeviceProfile
) -> Iterator[Schedule]:
    """Every network over every radio, for the best latency and then for the best energy."""
    for objective in OBJECTIVES:
        for network, graph in graphs.items():
            for radio, link in LINKS.items():
                energy = mobile_energy(device.power(RADIOS[radio]))
                target = LATENCY if objective == "latency" else energy
                world = World(in_8_bits(graph, costs_on(graph, device, edge)), link)
                yield _scheduled(objective, RADIO_NAMES[radio], network, graph, world, target)


def _scheduled(
    objective: str, radio: str, network: str, graph: LayerGraph, world: World, target: Objective
) -> Schedule:
    prices = target.prices(world.costs, world.link)
    price, placement = jointdnn_placement(prices)
    printed = PATTERNS[KINDS[network]]
    why = ""
    if pattern(placement) != printed.value:
        why = _why(graph, world, target, str(printed.value))
    return Schedule(
        objective, radio, network, KINDS[network], placement, world.costs.names or (), printed,
        why, _all("client", prices) / price, _all("edge", prices) / price,
    )  # fmt: skip


def _all(side: str, prices: Prices) -> float:
    if side == "client":
        return prices.along(("client",) * len(prices))
    return prices.along(("edge",) * len(prices))


def _why(graph: LayerGraph, world: World, target: Objective, wanted: str) -> str:
    """What the printed pattern costs more, and which change would make it the best."""
    prices = target.prices(world.costs, world.link)
    least, (price, placement) = jointdnn_placement(prices)[0], best_with(wanted, prices)
    told = f"{spans(placement)}: {_more(price / least)}"
    found = []
    for change, text in (
        (world.both, lambda f: f"rates of {_rates(world, f)}"),
        (world.device, lambda f: f"a client {f:.3g} times as fast"),
        (world.edge, lambda f: f"an edge {f:.3g} times as fast"),
    ):

        def agrees(factor: float) -> bool:
            there = change(factor)  # noqa: B023
            prices = target.prices(there.costs, there.link)
            return pattern(jointdnn_placement(prices)[1]) == wanted

        factor = nearest_factor(agrees)
        if factor is not None:
            found.append((max(factor, 1 / factor), text(factor)))
    if wanted == "client-edge-client" and _skips(graph):
        middle = best_middle(graph, world.costs, prices)
        told += _without_skips(middle, least, len(prices))
    elif not found:
        told += _narrow(world.costs, wanted)
    return f"{told}; would be the best with {min(found)[1]}" if found else told


def _skips(graph: LayerGraph) -> bool:
    return any(len(cut) > 1 for cut in graph.cuts)


def _without_skips(middle: Middle, least: float, layers: int) -> str:
    share = 100 * (1 - middle.crossing / middle.alive)
    sides = ("client", "edge", "client")
    counts = (middle.start, middle.stop - middle.start, layers - middle.stop)
    where = spans(tuple(side for side, n in zip(sides, counts, strict=True) for _ in range(n)))
    return (
        f"; planners send the skips past the edge's layers too: if they stayed on the client,"
        f" {where}: {_more(middle.price / least)} ({share:.0f}% fewer numbers cross there)"
    )


def _narrow(costs: LayerCosts, wanted: str) -> str:
    """That no cut inside is narrower than the end which the pattern avoids sending."""
    inside = costs.cut_up_bytes[1:-1].min()
    if wanted.startswith("client") and inside >= costs.cut_up_bytes[0]:
        return (
            f"; no cut inside is narrower than the input: {byte_count(costs.cut_up_bytes[0])},"
            f" {byte_count(inside)} at least"
        )
    return "; not the best with any rates, client or edge within 64 times of these"


def _more(ratio: float) -> str:
    if ratio >= 2:
        return f"{ratio:.1f} times as much"
    return f"{100 * abs(ratio - 1):.1f}% {'more' if ratio >= 1 else 'less'}"


def _rates(world: World, factor: float) -> str:
    up, down = (bit_rate(rate * factor) for rate in (world.link.up_Bps, world.link.down_Bps))
    return f"{up} up and {down} down"
