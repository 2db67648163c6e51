"""From the options of `ionn plan` to the numbers that planners take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ionn_client.commands.energy import (
    POWER_NEEDED,
    GoalKey,
    RadioKey,
    check_finite,
    stated_objective,
    stated_power,
    stated_time,
)
from ionn_client.device import device_slowdown
from ionn_client.devices import DeviceProfile, load_device
from ionn_client.emulate import LinkSpec
from ionn_client.local import profile_grouped
from ionn_client.machine.kept import KeepLocal
from ionn_client.profiled import Profiled, prepare
from ionn_client.reports.comparison import Problem
from ionn_client.reports.schedule_file import cached_schedules, check_cache
from ionn_client.trial import planner_link
from layergraph import capture, flatten_inputs
from layergraph.load import load
from planner import LayerCosts, Link
from planner.objective import Limit, Objective, battery, deadline, edge_time
from planner.power import LINKS, Power

DEFAULT_RATE = "80mbit"
_OPTIONS = {
    "server_load": "--server-load",
    "battery_J": "--battery",
    "s_per_J": "--seconds-per-joule",
    "edge_speed": "--edge-speed",
    "slowdown": "--device-slowdown",
    "queries_per_h": "--queries-per-hour",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, in texts and numbers as a person gave them. See `ionn plan --help`."""

    network: str = "alexnet"
    rate: str | None = None
    up: str | None = None
    down: str | None = None
    rtt: str = "5ms"
    slowdown: float | None = None
    edge_speed: float | None = None
    device: str | None = None
    edge: str | None = None
    radio: RadioKey | None = None
    power: str | None = None
    objective: GoalKey = "latency"
    s_per_J: float | None = None
    battery_J: float | None = None
    deadline: str | None = None
    edge_limit: str | None = None
    server_load: float = 1.0
    grouped: bool = False
    stay: str | None = None
    queries_per_h: float = 360.0
    cache: str | None = None
    training: bool = False
    explain: bool = False
    keep_local: KeepLocal = (0, 0)


@dataclass(frozen=True)
class Subject:
    """A network on a device and an edge: how the person calls them, and the planner's problem.

    stay_s: how long the device stays near the edge, where that was given.
    """

    profiled: Profiled
    problem: Problem
    device: str
    edge: str
    stay_s: float | None

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names."""
        return tuple(layer.name for layer in self.profiled.graph.layers)


def subject(asked: Asked) -> Subject:
    """Load the network, price its layers on both sides, and set the problem up.

    Raises ValueError that names the option for what does not fit together, before anything is
    loaded or measured.
    """
    for name, option in _OPTIONS.items():
        check_finite(option, getattr(asked, name))
    device, edge = _profiles(asked)
    link = _link(asked)
    power = stated_power(asked.power, asked.radio, device)
    objective = stated_objective(asked.objective, asked.s_per_J, power)
    _check_together(asked, power, objective)
    stay_s = stated_time("--stay", asked.stay)
    late_s = stated_time("--deadline", asked.deadline)
    busy_s = stated_time("--edge-limit", asked.edge_limit)
    profiled, factor = _profiled(asked, device, edge)
    idle = _costs(asked, profiled, factor, link, device, edge)
    costs = replace(idle, edge_s=asked.server_load * idle.edge_s)
    limits: list[Limit] = []
    if asked.battery_J is not None and power is not None:
        limits.append(battery(costs, link, power, asked.battery_J))
    if late_s is not None:
        limits.append(deadline(costs, link, late_s))
    if busy_s is not None:
        limits.append(edge_time(costs, busy_s))
    ranges = profiled.ranges if asked.grouped else None
    schedules = None
    if asked.cache is not None:
        path = Path(asked.cache)
        schedules = cached_schedules(path, idle, link, asked.server_load, objective)
    return Subject(
        profiled,
        Problem(
            costs,
            link,
            objective,
            tuple(limits),
            None if ranges is None else factor * ranges,
            schedules,
        ),
        device.name if device else _this_machine(factor, "slower"),
        edge.name if edge else _this_machine(asked.edge_speed or 1.0, "faster"),
        stay_s,
    )


def _check_together(asked: Asked, power: Power | None, objective: Objective) -> None:
    """ValueError that names the option for options that do not go together."""
    for option, given in (("--battery", asked.battery_J), ("--stay", asked.stay)):
        if given is not None and power is None:
            raise ValueError(f"{option} counts joules: {POWER_NEEDED}")
    if asked.grouped and asked.device is not None:
        raise ValueError("--grouped measures this machine; a stated --device has no such times")
    if asked.cache is not None:
        if asked.device is None or asked.edge is None:
            raise ValueError(
                "--cache keeps schedules for later: state --device and --edge, because times"
                " measured here are others each time"
            )
        check_cache(Path(asked.cache), objective)
    if asked.training:
        for option, given in (
            ("--stay", asked.stay),
            ("--cache", asked.cache),
            ("--grouped", asked.grouped),
            ("--explain", asked.explain),
            ("--keep-local", any(asked.keep_local)),
        ):
            if given:
                raise ValueError(f"{option} is of queries; --training plans a training step")


def _this_machine(factor: float, how: str) -> str:
    shown = f"{factor:.3g}"
    return "this machine" if shown == "1" else f"this machine, {shown} times {how}"


def _profiles(asked: Asked) -> tuple[DeviceProfile | None, DeviceProfile | None]:
    for stated, measured, name, other in (
        (asked.device, asked.slowdown, "--device", "--device-slowdown"),
        (asked.edge, asked.edge_speed, "--edge", "--edge-speed"),
    ):
        if stated is not None and measured is not None:
            raise ValueError(f"{name} states the speed and {other} scales this machine's: give one")
    return (
        None if asked.device is None else load_device(asked.device),
        None if asked.edge is None else load_device(asked.edge),
    )


def _link(asked: Asked) -> Link:
    if asked.radio is not None and asked.rate is None:
        usual = LINKS[asked.radio]
        up, down = (f"{rate_Bps:.15g}B/s" for rate_Bps in (usual.up_Bps, usual.down_Bps))
        spec = LinkSpec.parse(up=asked.up or up, down=asked.down or down, rtt=asked.rtt)
    else:
        spec = LinkSpec.parse(asked.rate or DEFAULT_RATE, asked.up, asked.down, asked.rtt)
    return planner_link(spec)


def _profiled(
    asked: Asked, device: DeviceProfile | None, edge: DeviceProfile | None
) -> tuple[Profiled, float]:
    """The network, measured here unless both sides are stated, and the device's slowdown."""
    loaded = load(asked.network)
    if device is not None and edge is not None:
        graph, weights = capture(loaded.model, loaded.args, loaded.kwargs)
        return Profiled(graph, weights, device.layer_s(graph)), 1.0
    profiled = prepare(loaded.model, loaded.args, loaded.kwargs)
    if device is not None:
        return replace(profiled, ranges=None), 1.0
    if asked.grouped:
        live = flatten_inputs(profiled.graph, loaded.args, dict(loaded.kwargs))
        times = profile_grouped(profiled.graph, profiled.weights, live, 5, 1).times
        profiled = replace(profiled, ranges=times, client_s=tuple(times.layer_s.tolist()))
    return profiled, device_slowdown(
        asked.slowdown, profiled if asked.network == "alexnet" else None
    )


def _costs(
    asked: Asked,
    profiled: Profiled,
    factor: float,
    link: Link,
    device: DeviceProfile | None,
    edge: DeviceProfile | None,
) -> LayerCosts:
    graph = profiled.graph
    costs = profiled.costs(link, factor, asked.edge_speed or 1.0, asked.keep_local)
    client_s = costs.client_s if device is None else np.array(device.layer_s(graph))
    edge_s = costs.edge_s if edge is None else np.array(edge.layer_s(graph))
    return replace(
        costs,
        client_s=client_s,
        edge_s=edge_s,
        names=tuple(layer.name for layer in graph.layers),
    )
