"""Progressive precision with a real edge process: sooner, rough and said so, exact at the end."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import ionn_client
from ionn_client import Options, Profiled, QueryResult, prepare
from ionn_client.emulate import LinkProcess, LinkSpec
from ionn_client.processes import EdgeProcess
from planner import Link
from tests.support import quick_edge

SLOW = Options(
    precision="progressive",
    device_slowdown=1000.0,
    assumed_link=Link(2.5e5, 2.5e5, 0.002),
    profile_runs=1,
    silence_s=10.0,
    patience=50.0,
)
LINK = LinkSpec.parse("2mbit", rtt="2ms")
X = torch.linspace(-1, 1, 256).reshape(1, 256)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    ).eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network()


@pytest.fixture(scope="module")
def profiled(model: nn.Module) -> Profiled:
    return prepare(model, (X,), options=SLOW)


@pytest.fixture(scope="module")
def reference(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        answer: torch.Tensor = model(X)
    return answer


def difference(result: QueryResult, reference: torch.Tensor) -> float:
    return float((result.value - reference).abs().max() / reference.abs().max())


async def test_answers_say_their_precision_and_are_as_close_and_exact_is_exact(
    edge: EdgeProcess, profiled: Profiled, reference: torch.Tensor
) -> None:
    worst = {"float8": 0.0, "bfloat16": 0.0, "exact": 0.0}
    seen: dict[str, int] = dict.fromkeys(worst, 0)
    with LinkProcess(LINK, edge.address) as link:
        address = f"{link.host}:{link.port}"
        async with ionn_client.connect(profiled, (X,), edge=address, options=SLOW) as net:
            while net.status.phase != "ready":
                best = await net.query(X)
                worst[best.precision] = max(worst[best.precision], difference(best, reference))
                seen[best.precision] += best.served_by != "client"
                exact = await net.query(X, precision="exact")
                assert exact.precision == "exact"
                assert torch.equal(exact.value, reference)
            result = await net.query(X)
            status = net.status
    assert seen["float8"] > 0
    assert 0 < worst["float8"] < 0.1
    assert worst["bfloat16"] < 0.01
    assert worst["exact"] == 0
    assert result.precision == "exact"
    assert result.served_by != "client"
    assert torch.equal(result.value, reference)
    assert status.uploaded_layers == status.exact_layers == status.weighted_layers
    assert status.sent_bytes < 1.01 * 0.9 * status.total_bytes


async def test_a_precision_that_does_not_exist_is_refused(profiled: Profiled) -> None:
    async with ionn_client.connect(profiled, (X,), edge="127.0.0.1:9", options=SLOW) as net:
        with pytest.raises(ValueError, match="float8, bfloat16, exact"):
            await net.query(X, precision="perfect")


async def test_planes_survive_a_killed_edge_and_an_exact_session_finishes_them(
    profiled: Profiled, reference: torch.Tensor, tmp_path: Path
) -> None:
    edge = quick_edge(str(tmp_path)).__enter__()
    try:
        with LinkProcess(LINK, edge.address) as link:
            address = f"{link.host}:{link.port}"
            async with ionn_client.connect(profiled, (X,), edge=address, options=SLOW) as net:
                while net.status.uploaded_layers < net.status.weighted_layers:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                assert net.status.exact_layers < net.status.weighted_layers
                sent_before = net.status.sent_bytes
        edge.kill()
        edge = quick_edge(str(tmp_path)).__enter__()
        exact = Options(
            device_slowdown=1000.0, assumed_link=Link(2.5e5, 2.5e5, 0.002), profile_runs=1
        )
        async with ionn_client.connect(profiled, (X,), edge=edge.address, options=exact) as net:
            rough_or_local = await net.query(X)
            assert torch.equal(rough_or_local.value, reference)
            await net.uploaded(timeout_s=60)
            result = await net.query(X)
            status = net.status
        assert torch.equal(result.value, reference)
        assert status.skipped_bytes > 0.2 * status.total_bytes
        assert sent_before + status.sent_bytes < status.total_bytes
    finally:
        edge.__exit__(None, None, None)


@pytest.mark.parametrize(("precision", "seed"), [("exact", 1), ("progressive", 2)])
async def test_of_a_fine_tuned_model_only_the_head_is_sent(
    edge: EdgeProcess, precision: str, seed: int
) -> None:
    model = network(seed)
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        tuned[4].weight += 0.01  # type: ignore[operator, union-attr]
        tuned[4].bias += 0.01  # type: ignore[operator, union-attr]
    # An edge that a busy machine keeps waiting for seconds is not given up.
    options = Options(precision=precision, device_slowdown=1000.0, profile_runs=1, silence_s=10.0)
    for each in (model, tuned):
        async with ionn_client.connect(each, (X,), edge=edge.address, options=options) as net:
            await net.uploaded(timeout_s=60)
            result = await net.query(X)
            status = net.status
        with torch.inference_mode():
            assert torch.equal(result.value, each(X))
    head_bytes = 4 * (256 * 10 + 10)
    # What a connection that broke had under way is sent again, and no part of the head.
    assert 0 < status.sent_bytes - status.resent_bytes <= head_bytes
    assert status.skipped_bytes == status.total_bytes - head_bytes
