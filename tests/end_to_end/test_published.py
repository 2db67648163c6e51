"""An operator publishes a model: devices that pair afterwards have it there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import ionn_client
from ionn_client import Options, Profiled, prepare
from ionn_client.boxes.pair import Attempt, pair
from ionn_client.processes import EdgeProcess
from ionn_edge.cli import app
from ionn_edge.doors.control import ask
from pairing.uri import PairingUri
from planner import Link

X = torch.linspace(-1, 1, 64).reshape(1, 64)


def network(changed: int | None = None) -> nn.Sequential:
    """The same for who asks, but for the bias of one layer."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        layers = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.Linear(128, 10)]
    model = nn.Sequential(*layers).eval()
    if changed is not None:
        with torch.no_grad():
            model[changed].weight.mul_(2)
    return model


def factory() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """What `ionn edge publish` is told of."""
    return network(), (X,)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeProcess]:
    kept = tmp_path_factory.mktemp("pairings")
    with EdgeProcess(paired=True, pairings=str(kept), options=("--calibration", "off")) as process:
        yield process


def _state(edge: EdgeProcess) -> Path:
    assert edge.state is not None
    return edge.state.parent / "edge"


def _command(edge: EdgeProcess, *arguments: str) -> Any:
    said = CliRunner().invoke(app, [*arguments, "--state", str(_state(edge)), "--json"])
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout)


async def _ask(profiled: Profiled, edge: EdgeProcess, state: Path) -> tuple[int, int]:
    """Bytes that a device sends and need not send, whose answers are right."""
    options = Options(
        device_slowdown=3000.0, assumed_link=Link(1e7, 1e7, 0.001), profile_runs=1, state=state
    )
    async with ionn_client.connect(profiled, (X,), edge=edge.address, options=options) as net:
        await net.uploaded(timeout_s=60)
        answers = [await net.query(X) for _ in range(5)]
        assert any(answer.served_by != "client" for answer in answers)
        first = answers[0].value
        assert all(torch.equal(answer.value, first) for answer in answers)
        return net.status.sent_bytes, net.status.skipped_bytes


async def test_devices_upload_what_they_have_of_their_own(
    edge: EdgeProcess, tmp_path: Path
) -> None:
    assert edge.state is not None
    what = f"{__name__}:factory"
    done = await asyncio.to_thread(_command, edge, "publish", what)
    total_bytes = sum(each.nbytes for each in network().state_dict().values())
    assert (done["total_bytes"], done["was_published"]) == (total_bytes, False)
    assert (await asyncio.to_thread(_command, edge, "publish", what))["was_published"]
    rows = await asyncio.to_thread(_command, edge, "cache", "ls")
    published = {"fingerprint": done["fingerprint"], "name": what, "total_bytes": total_bytes}
    assert rows["published"] == [published]

    # Paired afterwards, with a box that nobody has sent anything.
    shown = await asyncio.to_thread(ask, _state(edge), "pair")
    await pair(Attempt.by_uri(PairingUri.parse(shown["uri"])), tmp_path / "watch")
    same, other = [
        await asyncio.to_thread(prepare, model, (X,), options=Options(profile_runs=1))
        # One that may be trained has another graph, and the same weights.
        for model in (network().requires_grad_(False), network(changed=2))
    ]
    assert same.graph.fingerprint == done["fingerprint"]
    assert await _ask(same, edge, tmp_path / "watch") == (0, total_bytes)
    changed_bytes = 4 * 128 * 128
    sent, skipped = await _ask(other, edge, edge.state)
    assert (sent > 0, skipped) == (True, total_bytes - changed_bytes)
    assert sent <= changed_bytes + 100
    rows = await asyncio.to_thread(_command, edge, "cache", "ls")
    held = sorted(device["used_bytes"] for device in rows["devices"])
    # Beside graphs.
    assert held[-1] - changed_bytes < 30_000
    assert rows["used_bytes"] == total_bytes + changed_bytes

    assert await asyncio.to_thread(_command, edge, "unpublish", done["fingerprint"][:8])
    sent, skipped = await _ask(same, edge, tmp_path / "watch")
    assert (sent > 0, skipped) == (True, 0)
