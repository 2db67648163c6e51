"""A camera that is faster than the link: the newest frame wins. First: ionn edge serve --unpaired

Run: python examples/stream.py [a paired box's name, or ionn://127.0.0.1:7431]
"""

import asyncio
import sys
import time
from collections.abc import Iterator

import torch

import ionn_client
from layergraph.load import load

EDGE = sys.argv[1] if len(sys.argv) > 1 else "ionn://127.0.0.1:7431"


def camera(like: torch.Tensor, frames: int, frames_per_s: float) -> Iterator[torch.Tensor]:
    """A stand-in for a real one: blocks until the next frame is there."""
    for _ in range(frames):
        time.sleep(1 / frames_per_s)
        yield torch.randint_like(like, 256) if like.dtype == torch.uint8 else torch.rand_like(like)


async def main() -> None:
    network = load("alexnet")
    async with ionn_client.connect(network.model, network.args, edge=EDGE) as net:
        async for seen in net.stream(camera(network.args[0], 100, 30.0), tokens=2):
            print(
                f"frame {seen.frame:3}: {seen.result.latency_s * 1e3:6.1f} ms"
                f" on {seen.result.served_by:6}, waited {seen.waited_s * 1e3:5.1f} ms,"
                f" {seen.dropped} dropped"
            )


asyncio.run(main())
