"""Errors of our own, put into the client on purpose: they cost no answer and end no session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import ionn_client
from ionn_client import Options, Profiled, prepare
from ionn_client.boxes import connection
from ionn_client.emulate import LinkProcess, LinkSpec
from ionn_client.processes import EdgeProcess
from planner import Link

RECORDS: list[dict[str, Any]] = []
OPTIONS = Options(
    device_slowdown=3000.0,
    # What the edge does is looked at, however busy this machine is.
    hedging=False,
    assumed_link=Link(2e6, 2e6, 0.002),
    profile_runs=1,
    trace=RECORDS.append,
)
# What is coded: weights, and tensors with many zeros.
X = torch.linspace(-1, 1, 1024).reshape(1, 1024).relu()


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 1024), nn.ReLU()).eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network(seed=0)


@pytest.fixture(scope="module")
def profiled(model: nn.Module) -> Profiled:
    return prepare(model, (X,), options=OPTIONS)


@pytest.fixture(scope="module")
def address(edge: EdgeProcess) -> Iterator[str]:
    with LinkProcess(LinkSpec.parse("16mbit"), edge.address) as link:
        yield f"{link.host}:{link.port}"


@pytest.fixture(autouse=True)
def _own_records() -> None:
    RECORDS.clear()


class Broken:
    """Fails the first `times` times it is called; then it is what it stands for."""

    def __init__(self, real: Any, times: int = 1 << 30) -> None:
        self.real, self.left, self.failed = real, times, 0

    def __call__(self, *args: Any, **named: Any) -> Any:
        if self.left:
            self.left -= 1
            self.failed += 1
            raise RuntimeError("a bug")
        return self.real(*args, **named)


async def ask(model: nn.Module, profiled: Profiled, address: str) -> ionn_client.QueryResult:
    """An answer after the upload, and the session still there."""
    async with ionn_client.connect(profiled, (X,), edge=address, options=OPTIONS) as net:
        await net.uploaded(timeout_s=60)
        result = await net.query(X)
        with torch.inference_mode():
            assert torch.equal(result.value, model(X))
        await net.uploaded(timeout_s=60)
        assert (await net.query(X)).served_by in ("client", "edge", "both")
    return result


async def test_weights_that_cannot_be_coded_go_as_they_are(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = network(seed=1)
    profiled = prepare(unknown, (X,), options=OPTIONS)
    broken = Broken(None)
    monkeypatch.setattr("ionn_client.coding.encode_segment", broken)
    assert (await ask(unknown, profiled, address)).served_by == "edge"
    assert broken.failed > 0
    (ready,) = [record for record in RECORDS if record.get("phase") == "ready"]
    assert ready["sent_bytes"] == sum(profiled.graph.weight_bytes)


async def test_tensors_that_cannot_be_coded_go_as_they_are(
    model: nn.Module, profiled: Profiled, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken(None)
    monkeypatch.setattr("ionn_client.machine.queries.INLINE_BYTES", 0)
    monkeypatch.setattr("ionn_client.coding.encode_tensor", broken)
    result = await ask(model, profiled, address)
    assert broken.failed > 0
    assert (result.served_by, result.fallback_reason) == ("edge", None)


async def test_an_answer_that_cannot_be_decoded_is_computed_here(
    model: nn.Module, profiled: Profiled, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken(None)
    monkeypatch.setattr("ionn_client.machine.queries.INLINE_BYTES", 0)
    monkeypatch.setattr("ionn_client.coding.decode_tensor", broken)
    result = await ask(model, profiled, address)
    assert broken.failed > 0
    assert result.served_by == "client"
    assert "internal error" in (result.fallback_reason or "")


@pytest.mark.parametrize("what", ["Decoder", "Encoder"])
async def test_a_connection_that_breaks_within_us_is_opened_again(
    model: nn.Module,
    profiled: Profiled,
    address: str,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = Broken(getattr(connection, what), times=2)
    monkeypatch.setattr(connection, what, broken)
    assert (await ask(model, profiled, address)).served_by == "edge"
    lost = [r["reason"] for r in RECORDS if r.get("phase") == "connecting"]
    assert broken.failed == 2
    assert all("internal error: RuntimeError" in reason for reason in lost)
