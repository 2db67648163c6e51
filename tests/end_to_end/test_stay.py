"""A real client and a real edge: what a stay does not pay for stays here."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ionn_client
from ionn_client import Options, Profiled, Stay, prepare
from ionn_client.processes import EdgeProcess
from planner import Link, Objective, Power, Radio

POWER = Power(2.0, 0.5, Radio(1e-8, 1e-8, 0.1))
SLOWDOWN = 3000.0
X = torch.linspace(-1, 1, 192).reshape(1, 192)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(11)
    layers = [layer for _ in range(3) for layer in (nn.Linear(192, 192), nn.ReLU())]
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def profiled(model: nn.Module) -> Profiled:
    return prepare(model, (X,), options=Options(profile_runs=1))


def options(stay: Stay) -> Options:
    return Options(
        device_slowdown=SLOWDOWN,
        assumed_link=Link(1e7, 1e7, 0.001),
        patience=1000.0,
        objective=Objective(power=POWER),
        stay=stay,
    )


async def test_only_a_stay_that_pays_uploads(
    model: nn.Module, profiled: Profiled, edge: EdgeProcess
) -> None:
    with torch.no_grad():
        reference = model(X)
    # The edge keeps what it has: what is not worth it first.
    for stay, served_by in (
        (Stay(0.0, 360), "client"),
        (Stay(3600.0, 0), "client"),
        (Stay(36_000.0, 1e9), "edge"),
    ):
        async with ionn_client.connect(
            profiled, (X,), edge=edge.address, options=options(stay)
        ) as net:
            await net.uploaded(timeout_s=60)
            result = await net.query(X)
            status = net.status
        assert torch.equal(result.value, reference)
        assert result.served_by == served_by
        assert (status.sent_bytes > 0) == (served_by == "edge")
        assert status.held_bytes == (status.total_bytes if served_by == "edge" else 0)
