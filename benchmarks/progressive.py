"""What progressive precision is predicted to gain over exact uploads, on every network.

The ratio of the mean latencies until the exact upload ends, with the bytes that weights of each
size take, coded, if they are normally distributed (both uploads end together, to 1%); layers timed
on this CPU as in benchmarks/plan.py, the device by default one on which AlexNet takes 1.3 s. Both
have products in float32: an edge that has them in bfloat16 until weights are exact (decision 0028)
gains more, and more than the bounds. The better the edge and the slower the device, the more: the
ratio of bytes, 4.7 to 7.8, is approached where the latency that remains at the end is nothing, but
it counts on both sides. "bits" is what an element takes at float8, all layers together; "noise" is
the mean of the relative noise of all weights that are used, added up. Two bounds stand beside each
gain:

"equal noise" is what a perfect code could gain whose answers are as noisy. Of normally distributed
weights, which seeded convolutions are, no code of b bits each leaves less noise than 4^-b of their
power (Shannon 1959; T. M. Cover and J. A. Thomas, "Elements of Information Theory", section 10.3).
Layers run whole, and the noise of all at float8 may be spread over them as shortens the upload
most. A layer's bytes delay by s / rate what all later ones gain, so the area under the latency
curve above its end is a sum over layers of b times weights times the latency until then that is
above the last; under a given sum of 4^-b it is least where 4^-b is in proportion to that (reverse
water-filling).

"no bytes" is the exact mean over the latency that remains at the end: what the edge would gain if
it had all layers from the first moment, which no order, plane, piece of a layer or code can beat.

`python benchmarks/progressive.py [--quick] [--json FILE]`; `--quick` takes small made-up tables
instead of networks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from cost_tables import made_up_tables, measured_tables

from ionn_client.device import device_slowdown
from planner import (
    PRECISION_NOISE,
    LayerCosts,
    Link,
    Plane,
    progressive_plan,
    progressive_timeline,
    timeline,
    upload_plan,
)
from wire.byteplanes import compress_part
from wire.float8 import BLOCK, float8_codes, float8_noise, float8_words, step_of
from wire.refinement import refinement
from wire.segments import CODED_SHARE

RATES_Mbit = (5.85, 18.88, 80.0)  # JointDNN's 4G and Wi-Fi uplinks, IONN's Wi-Fi
FINE_SHARE = 16 / 32
SAMPLE_BLOCKS = 8
# The networks whose gain must be 2.5, and on which link.
MUST_GAIN, MUST_RATE_Mbit = ("resnet50", "vgg16"), 18.88
GAIN = 2.5
LOCAL_s, EDGE_SPEEDS = (1, 2, 4, 8, 16, 32), (1, 10)
MOST_BITS, ROUNDS = 24, 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small made-up tables")
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--slowdown", type=float, help="device times over measured")
    parser.add_argument("--rtt-ms", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=7, help="times each layer is measured")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    if not options.quick:
        options.slowdown = device_slowdown(options.slowdown)
    tables = dict(made_up_tables() if options.quick else measured_tables(options))
    rows = list(progressive_rows(tables, options.rtt_ms / 1e3))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 0


def progressive_rows(tables: dict[str, LayerCosts], rtt_s: float) -> Iterator[dict[str, Any]]:
    """Progressive over exact on every link, then for devices and edges of other speeds."""
    print("Progressive over exact, mean latency until the exact upload ends (predicted)")
    print(f"{'network':16}{'Mbit/s':>8}{'local, s':>10}{'edge':>6}{'upload, s':>11}", end="")
    print(
        f"{'final, s':>10}{'exact, s':>10}{'progr., s':>11}{'bits':>6}{'noise':>9}{'gain':>7}",
        end="",
    )
    print(f"{'equal noise':>13}{'no bytes':>10}")
    for name, costs in tables.items():
        for rate in RATES_Mbit:
            row = _gain(name, costs, rate, rtt_s, 1)
            if rate == MUST_RATE_Mbit and name in MUST_GAIN:
                print(f"{'':16}{_verdict(row)}")
            yield row
    print()
    for name in [name for name in MUST_GAIN if name in tables] or tables:
        costs = tables[name]
        for speed in EDGE_SPEEDS:
            for local_s in LOCAL_s:
                client_s = costs.client_s * (local_s / costs.client_s.sum())
                other = replace(costs, client_s=client_s, edge_s=costs.edge_s / speed)
                yield _gain(name, other, MUST_RATE_Mbit, rtt_s, speed)


def _gain(
    name: str, costs: LayerCosts, rate_Mbit: float, rtt_s: float, edge_speed: int
) -> dict[str, Any]:
    link = Link(rate_Mbit * 125e3, rate_Mbit * 125e3, rtt_s)
    coded = replace(costs, weight_bytes=costs.weight_bytes * CODED_SHARE)
    exact = timeline(coded, link, upload_plan(coded, link))
    counts = [round(size / 4) for size in costs.weight_bytes.tolist()]
    planes = [_planes(count) if count else () for count in counts]
    plan = progressive_plan(costs, link, planes)
    found = progressive_timeline(costs, link, planes, plan, exact.horizon_s)
    row = {
        "network": name,
        "Mbit": rate_Mbit,
        "local_s": float(costs.client_s.sum()),
        "edge_speed": edge_speed,
        "upload_s": exact.horizon_s,
        "final_s": exact.points[-1].latency_s,
        "exact_mean_s": exact.mean_latency_s,
        "progressive_mean_s": found.mean_latency_s,
        "float8_bits": 8 * sum(own[0].missing_bytes for own in planes if own) / sum(counts),
        "mean_noise": found.mean_noise,
        "gain": exact.mean_latency_s / found.mean_latency_s,
        "gain_at_equal_noise": exact.mean_latency_s / _least_mean_s(costs, link, exact.horizon_s),
        "gain_without_bytes": exact.mean_latency_s / exact.points[-1].latency_s,
    }
    print(
        f"{name:16}{rate_Mbit:>8.2f}{row['local_s']:>10.3f}{edge_speed:>5}x{row['upload_s']:>11.1f}"
        f"{row['final_s']:>10.3f}{row['exact_mean_s']:>10.3f}{row['progressive_mean_s']:>11.3f}"
        f"{row['float8_bits']:>6.2f}{row['mean_noise']:>9.1e}{row['gain']:>7.2f}{row['gain_at_equal_noise']:>13.2f}"
        f"{row['gain_without_bytes']:>10.2f}",
        flush=True,
    )
    return row


@cache
def _planes(count: int) -> tuple[Plane, ...]:
    """A layer's of so many weights: coded bytes as seeded blocks of them take, and noise."""
    coarse_bytes, middle_bytes, elements = 0, 0, SAMPLE_BLOCKS * BLOCK
    weights = np.random.default_rng(0).normal(0, 0.05, elements).astype("<f4").view("<u4")
    for number in range(SAMPLE_BLOCKS):
        block = weights[number * BLOCK : (number + 1) * BLOCK]
        step = step_of(block, number, count)
        codes = float8_codes(block, step)
        rest = refinement((block >> 16).astype("<u2"), float8_words(codes, step))
        coarse_bytes += _coded_bytes([codes])
        middle_bytes += _coded_bytes(rest)
    shares = coarse_bytes / elements, middle_bytes / elements, 4 * FINE_SHARE
    noises = float8_noise(count), *PRECISION_NOISE.values()
    return tuple(Plane(share * count, noise) for share, noise in zip(shares, noises, strict=True))


def _coded_bytes(parts: list[Any]) -> int:
    return sum(memoryview(each).nbytes for part in parts for each in compress_part(part))


def _least_mean_s(costs: LayerCosts, link: Link, horizon_s: float) -> float:
    """The mean latency with first planes that no code can make shorter at equal noise."""
    noise = np.array([float8_noise(round(size / 4)) for size in costs.weight_bytes.tolist()])
    total = noise[costs.weight_bytes > 0].sum()
    bits = np.log2(1 / noise) / 2
    for _ in range(ROUNDS):
        first = replace(costs, weight_bytes=costs.weight_bytes * bits / 32)
        found = timeline(first, link, upload_plan(first, link), horizon_s=horizon_s)
        delays = np.zeros(len(costs))
        for before, after in pairwise(found.points):
            above_s = before.latency_s - found.points[-1].latency_s
            delays[after.layer] = costs.weight_bytes[after.layer] * above_s
        shares = delays / delays.sum() if delays.any() else delays
        spread = shares * total
        bits = np.log2(1 / np.clip(spread, 4.0**-MOST_BITS, 1)) / 2
    return found.mean_latency_s


def _verdict(row: dict[str, Any]) -> str:
    if row["gain"] >= GAIN:
        return f"must gain {GAIN}: it does"
    bound = row["gain_at_equal_noise"]
    within = "no code of equal noise can" if bound < GAIN else "a better code could"
    return f"must gain {GAIN}, and {within} with this edge and device"


if __name__ == "__main__":
    sys.exit(main())
