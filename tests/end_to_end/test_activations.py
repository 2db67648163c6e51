"""Coded live tensors with a real edge process: bit for bit, unless a tolerance is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import ionn_client
from ionn_client import Options, QueryResult
from ionn_client.emulate import LinkProcess, LinkSpec
from ionn_client.processes import EdgeProcess
from planner import Link

LINK = LinkSpec.parse("20mbit", rtt="2ms")
# Half zeros, as behind a ReLU, and 300 KB: enough to be coded in a thread.
X = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(1)).relu()


class Filter(nn.Module):
    """An image in, an image out, and a few numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(160, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        image = self.second(self.first(x).relu()).relu()
        return {"image": image, "numbers": self.head(image.mean((1, 2)))}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Filter().eval()


async def ask(
    edge: EdgeProcess, model: nn.Module, tolerance: float | None, precision: str | None = None
) -> tuple[QueryResult, dict[str, Any]]:
    """An answer of the edge's, and the record of its way there."""
    records: list[dict[str, Any]] = []
    options = Options(
        # Nothing runs here, however slow a busy machine makes the link look.
        device_slowdown=50_000.0,
        hedging=False,
        assumed_link=Link(2.5e6, 2.5e6, 0.002),
        profile_runs=1,
        activation_tolerance=tolerance,
        trace=records.append,
    )
    with LinkProcess(LINK, edge.address) as link:
        address = f"{link.host}:{link.port}"
        async with ionn_client.connect(model, (X,), edge=address, options=options) as net:
            await net.uploaded(timeout_s=60)
            result = await net.query(X, precision=precision)
    (hop,) = [record for record in records if record["event"] == "hop"]
    return result, hop


async def test_coded_without_loss_the_answer_is_the_models_bit_for_bit(
    edge: EdgeProcess, model: nn.Module
) -> None:
    assert_lossless(model, *await ask(edge, model, None))


async def test_a_query_that_demands_exact_has_no_loss_whatever_is_tolerated(
    edge: EdgeProcess, model: nn.Module
) -> None:
    assert_lossless(model, *await ask(edge, model, 0.05, "exact"))


def assert_lossless(model: nn.Module, result: QueryResult, hop: dict[str, Any]) -> None:
    assert (result.served_by, result.lossy) == ("edge", False)
    assert hop["up_coding"] == "planes"
    assert hop["down_codings"] == ["planes", "raw"]
    assert hop["up_bytes"] < 0.8 * X.nbytes
    assert hop["coding_s"] > 0
    with torch.inference_mode():
        reference = model(X)
    for name, tensor in reference.items():
        assert torch.equal(result.value[name], tensor), name


async def test_lossy_only_with_a_tolerance_and_within_it(
    edge: EdgeProcess, model: nn.Module
) -> None:
    result, hop = await ask(edge, model, 0.05)
    assert result.lossy
    assert hop["up_coding"] in ("float16", "affine8", "affine8-png")
    assert hop["up_bytes"] < 0.5 * X.nbytes
    assert set(hop["down_codings"]) <= {"raw", "planes"}
    with torch.inference_mode():
        reference = model(X)
    assert not torch.equal(result.value["image"], reference["image"])
    for name, tensor in reference.items():
        difference = (result.value[name] - tensor).abs().max() / tensor.abs().max()
        assert difference <= 0.05, name
