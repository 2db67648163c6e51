"""A real edge whose answers are altered on their way: it is found out, named and left."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch
from torch import nn

import ionn_client
from ionn_client import Offload, Options, Profiled, prepare
from ionn_client.errors import EdgeQuarantined
from ionn_edge.machine.session import Session as EdgeSession
from planner import Link
from tests.ionn_edge.conftest import Serve
from tests.support import FAST_EDGE
from wire import tensor_from_numpy, tensor_to_numpy

pytestmark = pytest.mark.asyncio(loop_scope="session")

# So slow a device that the edge always pays, whose predictions say so.
OPTIONS = Options(device_slowdown=3000.0, assumed_link=Link(1e7, 1e7, 0.001), profile_runs=1)
X = torch.linspace(-1, 1, 64).reshape(1, 64)
SOON_S = 60.0


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(6)
    return nn.Sequential(*[nn.Linear(64, 64) for _ in range(4)]).eval()


@pytest.fixture(scope="module")
def profiled(model: nn.Module) -> Profiled:
    return prepare(model, (X,), options=OPTIONS)


@asynccontextmanager
async def lying_edge(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    alter: Callable[[Any], Any],
) -> AsyncIterator[str]:
    """A real edge with a real worker, whose answers are altered before they are sent."""
    honest = EdgeSession._ran

    def lies(self: EdgeSession, ran: Any) -> None:
        tensors = [dataclasses.replace(
                       tensor_from_numpy(alter(tensor_to_numpy(tensor))), order=tensor.order)
                   for tensor in ran.tensors]  # fmt: skip
        honest(self, dataclasses.replace(ran, tensors=tuple(tensors)))

    monkeypatch.setattr(EdgeSession, "_ran", lies)
    async with serve() as (box, url):
        box.predictor = FAST_EDGE
        yield url.removeprefix("http://").removesuffix("/ionn")


async def convicted(net: Offload) -> None:
    async with asyncio.timeout(SOON_S):
        while net.status.quarantine is None:
            await net.query(X)
            await asyncio.sleep(0.01)


async def test_an_edge_that_lies_is_found_out_named_and_left(
    profiled: Profiled,
    model: nn.Module,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = dataclasses.replace(OPTIONS, audit_share=1.0)
    async with (
        lying_edge(serve, monkeypatch, lambda a: a + 0.5) as address,
        ionn_client.connect(profiled, (X,), edge=address, options=options) as net,
    ):
        await net.uploaded(timeout_s=SOON_S)
        await convicted(net)
        status = net.status
        assert (status.audits, status.audits_failed, status.phase) == (2, 2, "rejected")
        assert "wrong answers: layers [0, " in (status.quarantine or "")
        assert "wrong answers" in status.reason
        with pytest.raises(EdgeQuarantined):
            await net.uploaded(timeout_s=1)
        result = await net.query(X)
        assert result.served_by == "client"
        with torch.inference_mode():
            assert torch.equal(result.value, model(X))


async def test_an_edge_that_answers_nan_is_never_believed(
    profiled: Profiled,
    model: nn.Module,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = dataclasses.replace(OPTIONS, audit_share=0.0)
    with torch.inference_mode():
        reference = model(X)
    async with (
        lying_edge(serve, monkeypatch, lambda a: a * float("nan")) as address,
        ionn_client.connect(profiled, (X,), edge=address, options=options) as net,
    ):
        await net.uploaded(timeout_s=SOON_S)
        async with asyncio.timeout(SOON_S):
            while net.status.quarantine is None:
                assert torch.equal(await net(X), reference)
                await asyncio.sleep(0.01)
        assert "by more than any rounding" in (net.status.quarantine or "")
