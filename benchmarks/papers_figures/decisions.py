"""Neurosurgeon's decision table: where each network is split, by device, radio and objective."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ionn_client.devices import load_device
from ionn_client.quantities import bit_rate
from layergraph import LayerGraph
from papers_figures.agreement import World, nearest_factor
from papers_figures.costs import as_served, costs_on
from papers_figures.published import (
    DECISIONS,
    EITHER_END,
    FULLY_CONNECTED,
    PHOTO_BYTES,
    PHOTO_s,
    Printed,
)
from planner import Link
from planner.neurosurgeon import Target, neurosurgeon, split_prices
from planner.objective import LATENCY, mobile_energy
from planner.power import LINKS, RADIOS, Power

NETWORKS = ("alexnet", "vgg16", "deepface", "lenet", "asr", "pos", "ner", "chk")
DEVICES = ("jetson-tk1-cpu", "jetson-tk1-gpu")
SERVER = "tesla-k40"
OBJECTIVES: tuple[Target, ...] = ("latency", "energy")
_RADIO = {"Wi-Fi": "wifi", "LTE": "4g", "3G": "3g"}
INPUT, END = "input", "end"


def links() -> dict[str, Link]:
    """The paper's radios: rates up from its photo's bytes over its seconds, rates down as
    JointDNN has them (Neurosurgeon's split does not count the way down)."""
    return {
        radio: Link(PHOTO_BYTES / float(printed.value), LINKS[_RADIO[radio]].down_Bps)
        for radio, printed in PHOTO_s.items()
    }


@dataclass(frozen=True, slots=True)
class Decision:
    """One cell: the layer after which we split ("input": nothing runs on the device, "end":
    everything does), what the paper has there, if that is known, and why they differ, if they do.

    gain: what all on the server costs over this split, in the paper's sums. second: the next best
    split, and what it costs over the best.
    """

    objective: Target
    device: str
    radio: str
    network: str
    split: str
    printed: Printed | None
    why: str
    gain: float
    second: tuple[str, float]

    @property
    def agrees(self) -> bool | None:
        """None where the printed cell is not known."""
        return None if self.printed is None else self.split in _accepted(self.printed)


def decide(graphs: Mapping[str, LayerGraph]) -> Iterator[Decision]:
    """Every cell for these networks."""
    server = load_device(SERVER)
    for objective in OBJECTIVES:
        for device in DEVICES:
            for radio, link in links().items():
                for network, graph in graphs.items():
                    costs = costs_on(graph, load_device(device), server)
                    world = World(as_served(network, costs), link)
                    yield _decide(objective, device, radio, network, world)


def _decide(objective: Target, device: str, radio: str, network: str, world: World) -> Decision:
    power = load_device(device).power(RADIOS[_RADIO[radio]])
    split = _split(world, power, objective)
    printed = DECISIONS.get((objective, device, radio, network))
    if printed is None and network in FULLY_CONNECTED:
        printed = EITHER_END
    why = ""
    if printed is not None and split not in _accepted(printed):
        why = _why(world, power, objective, printed)
    target = LATENCY if objective == "latency" else mobile_energy(power)
    totals = split_prices(target.prices(world.costs, world.link))
    best, second = (int(point) for point in np.argsort(totals)[:2])
    runner_up = _name(world, second), float(totals[second] / totals[best])
    gain = float(totals[0] / totals[best])
    return Decision(objective, device, radio, network, split, printed, why, gain, runner_up)


def _split(world: World, power: Power, objective: Target) -> str:
    return _name(world, neurosurgeon(world.costs, world.link, power, objective).point)


def _name(world: World, point: int) -> str:
    if point == 0:
        return INPUT
    names = world.costs.names or ()
    return END if point == len(world.costs) else names[point - 1]


def _accepted(printed: Printed) -> Iterable[str]:
    return str(printed.value).split(" or ")


def _why(world: World, power: Power, objective: Target, printed: Printed) -> str:
    """The nearest change of one thing that would give the printed cell."""
    accepted = _accepted(printed)
    told = []
    for change, text in (
        (world.uplink, lambda f: f"an uplink of {bit_rate(world.link.up_Bps * f)}"),
        (world.device, lambda f: f"a device {_speed(f)}"),
        (world.edge, lambda f: f"a server {_speed(f)}"),
    ):
        factor = nearest_factor(lambda f: _split(change(f), power, objective) in accepted)  # noqa: B023
        if factor is not None:
            told.append((max(factor, 1 / factor), text(factor)))
    if not told:
        return "no uplink, device or server within 64 times of these gives the printed split"
    return "with " + ", or ".join(text for _, text in sorted(told)[:2]) + " they agree"


def _speed(factor: float) -> str:
    return f"{factor:.3g} times as fast"
