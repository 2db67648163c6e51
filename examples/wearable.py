"""A model of your own together with an edge box. Start one first: ionn edge serve --unpaired

Run: python examples/wearable.py [a paired box's name, or ionn://127.0.0.1:7431]
"""

import asyncio
import sys

import torch
from torch import nn

import ionn_client

EDGE = sys.argv[1] if len(sys.argv) > 1 else "ionn://127.0.0.1:7431"


async def main() -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 7, 4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(512))
    frame = torch.rand(1, 3, 112, 112)
    model(frame)  # LazyLinear learns its size
    async with ionn_client.connect(model.eval(), (frame,), edge=EDGE) as net:
        for _ in range(10):
            result = await net.query(torch.rand(1, 3, 112, 112), deadline_s=1.0)
            status = net.status
            print(
                f"{result.latency_s * 1e3:6.1f} ms on {result.served_by:6}"
                f"  {status.phase}: {status.held_bytes / 1e6:.1f} of"
                f" {status.total_bytes / 1e6:.1f} MB there; {status.reason}"
            )
            await asyncio.sleep(0.2)


asyncio.run(main())
