"""A paired box that lies: from the audits that fail to the file of known boxes, and ever after."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ionn_client
from ionn_client import Options, prepare
from ionn_client.boxes.address import EdgeAddress
from ionn_client.boxes.known_boxes import KnownBoxes
from ionn_client.boxes.pair import Attempt, pair
from ionn_client.errors import EdgeQuarantined
from ionn_edge.machine.session import Session as EdgeSession
from ionn_edge.workers.nursery import Nursery
from planner import Link
from tests.ionn_edge.visitors import house
from tests.support import FAST_EDGE
from wire import tensor_from_numpy, tensor_to_numpy

pytestmark = pytest.mark.asyncio(loop_scope="session")

X = torch.linspace(-1, 1, 64).reshape(1, 64)
SOON_S = 60.0


@pytest.fixture
def lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What real workers compute is altered before a real edge answers."""
    honest = EdgeSession._ran

    def altered(self: EdgeSession, ran: Any) -> None:
        wrong = [tensor_from_numpy(tensor_to_numpy(tensor) + 0.5) for tensor in ran.tensors]
        orders = [tensor.order for tensor in ran.tensors]
        tensors = map(lambda t, order: dataclasses.replace(t, order=order), wrong, orders)
        honest(self, dataclasses.replace(ran, tensors=tuple(tensors)))

    monkeypatch.setattr(EdgeSession, "_ran", altered)


@pytest.mark.usefixtures("lies")
async def test_a_paired_box_that_lies_is_remembered_until_it_is_paired_anew(
    tmp_path: Path, nursery: Nursery
) -> None:
    state = tmp_path / "client"
    options = Options(
        device_slowdown=3000.0,
        assumed_link=Link(1e7, 1e7, 0.001),
        profile_runs=1,
        audit_share=1.0,
        state=state,
    )
    torch.manual_seed(6)
    model = nn.Sequential(*[nn.Linear(64, 64) for _ in range(4)]).eval()
    profiled = prepare(model, (X,), options=options)
    async with house(tmp_path, nursery) as at:
        at.box.predictor = FAST_EDGE
        box = await pair(
            Attempt.by_code(EdgeAddress("127.0.0.1", at.port), at.desk.code or ""), state
        )
        async with ionn_client.connect(profiled, (X,), edge=box.name, options=options) as net:
            await net.uploaded(timeout_s=SOON_S)
            async with asyncio.timeout(SOON_S):
                while net.status.quarantine is None:
                    await net.query(X)
                    await asyncio.sleep(0.01)
            verdict = net.status.quarantine
        (known,) = KnownBoxes(state).all()
        assert known.quarantined == verdict
        assert "wrong answers: layers [0, " in verdict
        # The next program does not even ask.
        async with ionn_client.connect(profiled, (X,), edge=box.name, options=options) as net:
            with pytest.raises(EdgeQuarantined, match="hall is quarantined: the edge gave wrong"):
                await net.uploaded(timeout_s=SOON_S)
            result = await net.query(X)
            with torch.inference_mode():
                assert torch.equal(result.value, model(X))
            assert result.served_by == "client"
            assert net.status.sent_bytes == 0
