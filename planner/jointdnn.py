"""JointDNN's schedule: a shortest path through groups of layers that each run in one go.

Eshratifar, Abrishami and Pedram, "JointDNN: An Efficient Training and Inference Engine for
Intelligent Mobile Cloud Computing Services", IEEE TMC 2019 (arXiv 1801.08618). Consecutive layers
that run together take less than the sum of their times (their Figure 3), so the execution graph
has a node for each group of layers on the client and one for each on the edge, joined by uploads
and downloads. `planner.route` is the case where layers add up, in O(n).

Only the abstract and the opening of the paper were at hand. Reconstructed: that a group is as long
as it can be (the side changes after every group), since what runs without a break is what the
ranges were measured for. `planner.residual` has its residual blocks, `planner.training` its
training, `planner.larac` its limited schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.costs import Floats
from planner.prices import Placement, Prices, Where, checked_available


def jointdnn_placement(
    prices: Prices,
    client_ranges: ArrayLike | None = None,
    edge_ranges: ArrayLike | None = None,
    available: Sequence[bool] | None = None,
) -> tuple[float, Placement]:
    """The least price over all placements, groups priced as groups, and a placement that has it.

    `client_ranges`, `edge_ranges` ((n + 1, n + 1), None: layers add up): [i, j] is what layers
    [i, j) cost in one go, for i < j; the rest is not looked at. They replace `prices.client` and
    `prices.edge`. `available` (n): whether the edge may run layer i; None: all. O(n^2); on a tie
    the client runs the layer.

    Raises ValueError that names the argument when a shape is wrong or a price of a range is
    negative, infinite or NaN.
    """
    n = len(prices)
    client = checked_ranges("client_ranges", client_ranges, prices.client)
    edge = checked_ranges("edge_ranges", edge_ranges, prices.edge)
    ends = edge_ends(available_array(available, n))
    if n == 0:
        return 0.0, ()
    # What remains to the end when a group starts at cut i on the client, or on the edge.
    after_client, after_edge = np.full(n + 1, np.inf), np.full(n + 1, np.inf)
    at_client, at_edge = after_client.copy(), after_edge.copy()
    client_stop, edge_stop = np.zeros(n, int), np.zeros(n, int)
    after_client[n], after_edge[n] = 0.0, prices.down[n]
    for i in range(n - 1, -1, -1):
        onwards = client[i, i + 1 :] + after_client[i + 1 :]
        client_stop[i] = n - np.argmin(onwards[::-1])  # the longest of the cheapest
        at_client[i] = onwards[client_stop[i] - i - 1]
        if ends[i] > i:
            onwards = edge[i, i + 1 : ends[i] + 1] + after_edge[i + 1 : ends[i] + 1]
            edge_stop[i] = i + 1 + np.argmin(onwards)
            at_edge[i] = onwards[edge_stop[i] - i - 1]
        after_client[i] = prices.up[i] + at_edge[i]
        after_edge[i] = prices.down[i] + at_client[i]
    starts_on_edge = after_client[0] < at_client[0]
    placement = _follow(client_stop.tolist(), edge_stop.tolist(), bool(starts_on_edge))
    return float(min(after_client[0], at_client[0])), placement


def _follow(client_stop: list[int], edge_stop: list[int], on_edge: bool) -> Placement:
    placement: list[Where] = []
    while (i := len(placement)) < len(client_stop):
        stop = edge_stop[i] if on_edge else client_stop[i]
        placement += ["edge" if on_edge else "client"] * (stop - i)
        on_edge = not on_edge
    return tuple(placement)


def grouped_price(
    prices: Prices,
    placement: Sequence[Where],
    client_ranges: ArrayLike | None = None,
    edge_ranges: ArrayLike | None = None,
) -> float:
    """What a placement costs when each of its maximal ranges runs in one go.

    Arguments and errors as of `jointdnn_placement` and `Prices.along`.
    """
    n = len(prices)
    client = checked_ranges("client_ranges", client_ranges, prices.client)
    edge = checked_ranges("edge_ranges", edge_ranges, prices.edge)
    nothing = np.zeros(n)
    total = Prices(nothing, nothing, prices.up, prices.down).along(placement)
    start = 0
    for where, layers in groupby(placement):
        stop = start + len(list(layers))
        total += float((client if where == "client" else edge)[start, stop])
        start = stop
    return total


def range_sums(values: Floats) -> Floats:
    """(n + 1, n + 1): [i, j] is the sum of values [i, j) for i < j, and zero elsewhere."""
    n = len(values)
    sums = np.zeros((n + 1, n + 1))
    # Row by row, because differences of sums lose what is small beside what came before.
    sums[:n, 1:] = np.cumsum(np.triu(np.broadcast_to(values, (n, n))), axis=1)
    return sums


def checked_ranges(name: str, given: ArrayLike | None, layers: Floats) -> Floats:
    """`given` as an (n + 1, n + 1) array, or the sums of `layers` (n) where it is None."""
    if given is None:
        return range_sums(layers)
    try:
        ranges = np.array(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is a square of numbers: {error}") from None
    cuts = len(layers) + 1
    if ranges.shape != (cuts, cuts):
        raise ValueError(f"{name} is of shape {(cuts, cuts)}, not {ranges.shape}")
    starts, stops = np.triu_indices(cuts, 1)
    wrong = np.flatnonzero(~(np.isfinite(ranges[starts, stops]) & (ranges[starts, stops] >= 0)))
    if len(wrong):
        i, j = int(starts[wrong[0]]), int(stops[wrong[0]])
        raise ValueError(f"{name}[{i}, {j}] is {ranges[i, j]}; it must be finite and >= 0")
    return ranges


def available_array(available: Sequence[bool] | None, n: int) -> NDArray[np.bool_]:
    """`available` as n booleans, all true where it is None; ValueError where it has not n."""
    try:
        may = np.array(checked_available(available, n), dtype=bool)
    except TypeError as error:
        raise ValueError(f"available is a list of {n} booleans: {error}") from None
    if may.shape != (n,):
        raise ValueError(f"available is a list of {n} booleans, not of shape {may.shape}")
    return may


def edge_ends(may: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Per layer i, the first layer from i on that the edge may not run (n where it may all)."""
    n = len(may)
    blocked = np.where(may, n, np.arange(n))
    ends: NDArray[np.intp] = np.minimum.accumulate(blocked[::-1])[::-1]
    return ends
