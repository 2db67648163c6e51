"""EMDL'19's upload order: K. Shin, H.-J. Jeong and S.-M. Moon, "Enhanced Partitioning of DNN Layers
for Uploading from Mobile Devices to Edge Servers", EMDL 2019.

IONN's partitions come from shortest paths under a penalty K^n on uploading; this order comes from
*efficiency*, what a query gains per byte uploaded, which "generates a more fine-grained uploading
plan" (abstract). Reconstructed from the abstract's terms, since the algorithm itself was not at
hand:

    repeat
        of all contiguous blocks of layers that are not uploaded yet, the next partition is the
        one with the largest (latency now - latency with the block) / bytes
    until no block makes queries faster

What is between two of its layers and uploaded already belongs to a block and costs no bytes. As
with IONN, the graph is cut at the dominators of the output only, a partition's layers go front to
back, a partition counts once it is acknowledged as a whole, and what pays nothing is not uploaded.

Differs from the default (`planner.efficiency`), which cuts between any two layers, orders the
layers inside a block, uses them one by one as they are acknowledged, improves the order across
blocks and uploads the rest.
"""

from __future__ import annotations

from itertools import pairwise

from planner.costs import LayerCosts, Link
from planner.efficiency import greedy_blocks
from planner.ionn import dominators


def emdl_partitions(costs: LayerCosts, link: Link) -> tuple[tuple[int, ...], ...]:
    """Partitions in upload order, each with the layers that have weights, front to back."""
    n = len(costs)
    if not n:
        return ()
    boundaries = [layer + 1 for layer in dominators(costs)[:-1]]
    members = [range(start, stop) for start, stop in pairwise([0, *boundaries, n])]
    blocks, _ = greedy_blocks(costs.grouped(boundaries), link)
    return tuple(
        tuple(layer for unit in sorted(block) for layer in members[unit]
              if costs.weight_bytes[layer])
        for block in blocks
    )  # fmt: skip
