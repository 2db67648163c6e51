"""IONN's partitioning: H.-J. Jeong et al., "IONN: Incremental Offloading of Neural Network
Computations from Mobile Devices to Edge Servers", SoCC 2018, Algorithm 1.

The NN execution graph has three nodes per layer i: its input on the client, its input on the
server, its output on the server.

    client_i  -> server_i    upload of the layer's input
    server_i  -> output_i    execution on the server + upload of its weights, times K^n
    output_i  -> server_i+1  nothing
    output_i  -> client_i+1  download of the layer's output
    client_i  -> client_i+1  execution on the client

Iteration n = 0, 1, ... while K^n >= 0.01 takes the shortest path. The layers it runs on the
server whose weights are not there yet become the next partition, and their upload costs nothing
from then on. Small K ends sooner, with fewer and larger partitions.

Where the layers form a graph, the path may change sides only at dominators of the output, the
layers that every path through the network passes; what lies between two of them moves as one.

Kept as published: layers that no iteration picks are in no partition, so they are never uploaded.
On a slow link that can be all of them, because the loop ends before their weighted upload time
is small enough. Reconstructed, where the paper leaves it open: a partition's layers go front to
back; transfers cost half a round trip each, as everywhere in this package; on a tie the client
runs the layer. The authors' published code differs from the paper: it goes on until K^n is below
0.001, adds an iteration without upload cost, and does not discount what is uploaded already.
"""

from __future__ import annotations

from itertools import count, pairwise, takewhile
from numbers import Real

from planner.costs import LayerCosts, Link
from planner.route import route

LEAST_WEIGHT = 0.01  # "while K^n >= 0.01"


def ionn_partitions(costs: LayerCosts, link: Link, k: float) -> tuple[tuple[int, ...], ...]:
    """Algorithm 1's partitions, each with the layers that have weights, front to back.

    Raises ValueError unless 0 < k < 1.
    """
    if not (isinstance(k, Real) and 0 < k < 1):
        raise ValueError(f"IONN's K lies between 0 and 1, not {k!r}")
    n = len(costs)
    boundaries = range(1, n) if costs.edges is None else [d + 1 for d in dominators(costs)[:-1]]
    units = costs.grouped(boundaries)
    starts = [0, *boundaries, n] if n else [0]
    members = [range(a, b) for a, b in pairwise(starts)]
    upload_s = units.weight_bytes / link.up_Bps
    partitions = []
    for weight in takewhile(lambda w: w >= LEAST_WEIGHT, (k**i for i in count())):
        graph = LayerCosts(
            units.client_s,
            units.edge_s + weight * upload_s,
            [0] * len(units),  # on the execution graph the server may run anything
            units.cut_up_bytes,
            units.cut_down_bytes,
            cut_up_s=units.cut_up_s,
            cut_down_s=units.cut_down_s,
        )
        path = route(graph, link).placement
        picked = [i for i, where in enumerate(path) if where == "edge" and upload_s[i] > 0]
        if picked:
            layers = (layer for unit in picked for layer in members[unit])
            partitions.append(tuple(layer for layer in layers if costs.weight_bytes[layer]))
            upload_s[picked] = 0.0
    return tuple(partitions)


def dominators(costs: LayerCosts) -> tuple[int, ...]:
    """Layers that every path from the model's input to its output passes, front to back.

    The last layer always counts: what follows it is the output. `costs.edges` None is a chain.
    Layers are in execution order, so a path can avoid layer d only by an edge across it.
    """
    n = len(costs)
    if costs.edges is None or n == 0:
        return tuple(range(n))
    edges = set(costs.edges)
    sources, targets = {a for a, _ in edges}, {b for _, b in edges}
    edges |= {(-1, layer) for layer in range(n) if layer not in targets}
    edges |= {(layer, n) for layer in range(n) if layer not in sources}
    crossed = [0] * (n + 1)  # difference array: edges that span layer d
    for source, target in edges:
        crossed[source + 1] += 1
        crossed[target] -= 1
    found, depth = [], 0
    for layer in range(n):
        depth += crossed[layer]
        if depth == 0 or layer == n - 1:
            found.append(layer)
    return tuple(found)
