"""A real client and a real edge: queries routed by joules, and kept within a battery."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ionn_client
from ionn_client import Battery, Options, Profiled, QueryResult, prepare
from ionn_client.processes import EdgeProcess
from planner import Link, Objective, Power, Radio, mobile_energy

# A device so slow that the edge is always faster, on a busy machine too.
SLOWDOWN = 3000.0
COMPUTE_W = 2.0
FRUGAL = Power(COMPUTE_W, 0.5, Radio(1e-8, 1e-8, 0.1))
# Its radio draws more for one message than computing does for many queries.
HUNGRY = Power(COMPUTE_W, 0.0, Radio(0.0, 0.0, 1e9))
X = torch.linspace(-1, 1, 256).reshape(1, 256)


def options(objective: Objective, battery: Battery | None = None) -> Options:
    return Options(
        device_slowdown=SLOWDOWN,
        assumed_link=Link(1e7, 1e7, 0.001),
        profile_runs=1,
        patience=1000.0,
        objective=objective,
        battery=battery,
    )


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = [layer for _ in range(3) for layer in (nn.Linear(256, 256), nn.ReLU())]
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def profiled(model: nn.Module) -> Profiled:
    return prepare(model, (X,), options=options(Objective()))


async def queried(
    profiled: Profiled, edge: EdgeProcess, chosen: Options, count: int = 1
) -> tuple[list[QueryResult], ionn_client.Status]:
    """Results of `count` queries once everything is uploaded."""
    async with ionn_client.connect(profiled, (X,), edge=edge.address, options=chosen) as net:
        await net.uploaded(timeout_s=60)
        results = [await net.query(X) for _ in range(count)]
        return results, net.status


async def test_the_objective_decides_where_layers_run(
    model: nn.Module, profiled: Profiled, edge: EdgeProcess
) -> None:
    with torch.inference_mode():
        reference = model(X)
    served = {}
    for name, objective in {
        "fast": Objective(power=HUNGRY),
        "thrifty": mobile_energy(HUNGRY),
        "both": mobile_energy(FRUGAL),
    }.items():
        (result,), _ = await queried(profiled, edge, options(objective))
        assert torch.equal(result.value, reference)
        assert result.fallback_reason is None
        served[name] = result
    assert served["fast"].served_by == "edge"
    assert served["thrifty"].served_by == "client"
    assert served["both"].served_by == "edge"
    fast_J, thrifty_J = served["fast"].energy_J, served["thrifty"].energy_J
    assert fast_J is not None
    assert thrifty_J is not None
    assert thrifty_J < fast_J
    assert thrifty_J == pytest.approx(COMPUTE_W * served["thrifty"].predicted_s)


async def test_without_a_power_results_tell_no_joules(
    profiled: Profiled, edge: EdgeProcess
) -> None:
    (result,), status = await queried(profiled, edge, options(Objective()))
    assert result.energy_J is None
    assert status.battery_J is None


async def test_queries_stay_within_the_battery(
    model: nn.Module, profiled: Profiled, edge: EdgeProcess
) -> None:
    with torch.inference_mode():
        reference = model(X)
    local_J = COMPUTE_W * SLOWDOWN * sum(profiled.client_s)
    count = 3
    # Ten times what computing everything here draws, whatever is measured meanwhile.
    battery = Battery(10 * count * local_J, count)
    results, status = await queried(
        profiled, edge, options(Objective(power=HUNGRY), battery), count
    )
    assert all(torch.equal(result.value, reference) for result in results)
    # The faster way draws more than the whole battery.
    assert {result.served_by for result in results} == {"client"}
    assert status.battery_J is not None
    assert 0 <= status.battery_J < battery.energy_J
    drawn_J = sum(result.energy_J or 0.0 for result in results)
    assert status.battery_J == pytest.approx(battery.energy_J - drawn_J)


async def test_a_battery_that_allows_it_is_no_obstacle(
    profiled: Profiled, edge: EdgeProcess
) -> None:
    results, status = await queried(
        profiled, edge, options(Objective(power=FRUGAL), Battery(1e6, 3)), 3
    )
    assert {result.served_by for result in results} == {"edge"}
    assert status.battery_J is not None
    assert 0 < 1e6 - status.battery_J < 1e3


async def test_without_an_edge_joules_are_those_of_computing(profiled: Profiled) -> None:
    chosen = options(Objective(power=FRUGAL), Battery(1e6, 3))
    async with ionn_client.connect(
        profiled, (X,), edge="ionn://127.0.0.1:9", options=chosen
    ) as net:
        result = await net.query(X)
    assert result.energy_J == pytest.approx(COMPUTE_W * result.predicted_s)
