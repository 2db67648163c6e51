"""A stream of frames with a real edge process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import torch
from torch import nn

import ionn_client
from ionn_client.processes import EdgeProcess


async def test_a_stream_through_a_real_edge_answers_each_frame_as_the_model_does(
    edge: EdgeProcess,
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    frames = [torch.full((1, 32), float(number)) for number in range(40)]
    options = ionn_client.Options(device_slowdown=3000.0, profile_runs=1)
    served = set()

    async def camera(net: ionn_client.Offload) -> AsyncIterator[torch.Tensor]:
        await net.uploaded(timeout_s=60)
        for frame in frames:
            yield frame
            await asyncio.sleep(0)

    with torch.inference_mode():
        references = [model(frame) for frame in frames]
    async with ionn_client.connect(model, frames[:1], edge=edge.address, options=options) as net:
        last = -1
        async for each in net.stream(camera(net)):
            assert each.frame - last - 1 == each.dropped
            assert torch.equal(each.result.value, references[each.frame])
            last = each.frame
            served.add(each.result.served_by)
    assert last == len(frames) - 1
    assert served & {"edge", "both"}
