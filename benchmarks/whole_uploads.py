"""How many bytes whole uploads take: every network's weights, exactly and by planes.

Weights go through what an upload's pieces go through, but for the link: cut, coded and put into
messages, both ways in turn. Bytes are of payload, as `Status.sent_bytes` has them, and of whole
frames, announcements included. Seeded weights are the hardest case: trained ones compress more.

`python benchmarks/whole_uploads.py [--quick] [--networks NAME ...] [--rate-mbit R] [--json FILE]`
exits 1 where planes take more than 1% above exact. `--quick` takes the smallest networks.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import wire
from ionn_client.coding import code_segment
from ionn_client.machine.sender import Sender
from ionn_client.machine.upload import Upload
from layergraph import LayerGraph, capture, weight_bytes_view
from layergraph.networks import NETWORKS
from wire import messages

QUICK = ("lenet", "mobilenet")
MOST = 1.01
CHUNK_BYTES = 1 << 16
PLANES = {"exact": (wire.WHOLE,), "progressive": (wire.COARSE, wire.MIDDLE, wire.FINE)}


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes of a whole upload, and how many segments it took."""

    payload_bytes: int
    frame_bytes: int
    segments: int


def sent(graph: LayerGraph, blobs: list[memoryview], precision: str, rate_Bps: float) -> Sent:
    """Everything, one plane of all layers after another; each segment is coded in time."""
    upload = Upload(graph, precision)
    sender = Sender(upload, blobs)
    layers = range(len(graph.layers))
    upload.follow([[(layer, plane)] for plane in PLANES[precision] for layer in layers])
    payload_bytes = frame_bytes = segments = 0
    while True:
        for command in sender.ahead(rate_Bps):
            sender.coded(code_segment(command))
        out = sender.next(CHUNK_BYTES)
        if not out:
            return Sent(payload_bytes, frame_bytes, segments)
        for message in out:
            frame_bytes += sum(memoryview(frame).nbytes for frame in wire.encode(message))
            if isinstance(message, messages.Chunk):
                payload_bytes += memoryview(message.payload).nbytes
            segments += isinstance(message, messages.Segment)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest networks only")
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--rate-mbit", type=float, default=18.88, help="what coding is chosen for")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    titles = ("raw, MB", "exact", "planes", "over exact", "frames", "segments")
    widths = (9, 9, 9, 12, 9, 17)
    print(" " * 16, *map(str.rjust, titles, widths), sep="")
    rows, worst = [], 0.0
    for name in options.networks or (QUICK if options.quick else NETWORKS):
        graph, weights = capture(NETWORKS[name].build(), NETWORKS[name].example())
        blobs = [weight_bytes_view(weights[weight.name]) for weight in graph.weights]
        exact, planes = (
            sent(graph, blobs, precision, options.rate_mbit * 125e3) for precision in PLANES
        )
        ratio = planes.payload_bytes / exact.payload_bytes
        worst = max(worst, ratio)
        raw_MB = sum(weight.spec.nbytes for weight in graph.weights) / 1e6
        print(
            f"{name:16}{raw_MB:>9.2f}{exact.payload_bytes / 1e6:>9.2f}"
            f"{planes.payload_bytes / 1e6:>9.2f}{ratio:>12.4f}"
            f"{planes.frame_bytes / exact.frame_bytes:>9.4f}"
            f"{f'{exact.segments:,} {planes.segments:,}':>17}",
            flush=True,
        )
        rows.append({"network": name, "exact": asdict(exact), "progressive": asdict(planes)})
    print(f"planes take at most {worst:.4f} of exact's bytes; {MOST} must hold")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
