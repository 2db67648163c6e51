"""Improves an upload order: exactly, in windows of a few layers that are uploaded in succession.

What is there before a window and after it does not depend on the order inside, so each window is a
small problem of its own (`planner.exact`'s dynamic programme over subsets), and windows side by
side are solved at once. Then windows that begin half a window later, and again until nothing
changes: local search in the neighbourhood of all orders inside windows (large neighbourhoods
searched by dynamic programme: R. K. Congram, C. N. Potts and S. L. van de Velde, "An iterated
dynasearch algorithm for the single-machine total weighted tardiness scheduling problem",
INFORMS J. Comput. 14 (2002); the windows are ours).

The latency of a query with some of a window's layers on the edge needs only these layers: what
lies between them is contracted to the least times from either side of it to either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.costs import Floats, LayerCosts, Link, transfer_s

SIZE = 6  # 2^6 subsets; larger windows find no better orders
MOST_STEPS = 1000  # layers times passes, about 10 ms
LEAST_GAIN = 1e-12  # of a window's area; less is rounding

Ints = NDArray[np.intp]


def improve_order(costs: LayerCosts, link: Link, order: Sequence[int]) -> list[int]:
    """`order`, or one of a smaller area under the latency curve, of the same layers.

    `order` names layers with weights of their own; the others stay on the client. Of models with
    more than 500 layers it is left as it is: what a pass gains there is less than 0.1%. Raises
    ValueError for layers that do not exist or come twice.
    """
    order = list(order)
    if len({*order}) < len(order) or not {*order} <= {*costs.weighted}:
        raise ValueError("order names layers with weights of their own, each once")
    passes = MOST_STEPS // max(1, len(costs))
    if len(order) < 2 or passes < 2:
        return order
    steps, unchanged = _Steps(costs, link), 0
    for number in range(passes):
        improved = _solve(steps, order, shift=SIZE // 2 * (number % 2))
        unchanged = unchanged + 1 if improved == order else 0
        order = improved
        if unchanged == 2 or len(order) <= SIZE:
            break
    return order


class _Steps:
    """The layers' times, with one more at the end that takes none and lets nothing cross."""

    def __init__(self, costs: LayerCosts, link: Link) -> None:
        self.costs = costs
        up, down = transfer_s(costs, link)
        self.client, self.edge = np.append(costs.client_s, 0.0), np.append(costs.edge_s, 0.0)
        self.into_edge = float(up[0])
        self.up, self.down = np.append(up[1:], np.inf), np.append(down[1:], np.inf)


class _Contracted(NamedTuple):
    """Per window b its layers, `layers[:, b]` in execution order, and what lies around them.

    `between[j, z, a, b]`: least time to side z before layer j, from side a after layer j - 1; 0 is
    the client. `needs[j, b]`: the bits of the window's uploads that layer j waits for.
    """

    layers: Ints
    needs: Ints
    between: Floats


def _solve(steps: _Steps, order: list[int], shift: int) -> list[int]:
    """The order with every window in its best order."""
    count = len(order)
    starts = sorted({0, *range(shift, count, SIZE)})
    stops = [*starts[1:], count]
    sizes = np.zeros((SIZE, len(starts)))
    for window, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        sizes[: stop - start, window] = steps.costs.weight_bytes[order[start:stop]]
    latency = _latencies(steps, _contract(steps, order, starts))
    better, last = _last_uploads(latency, sizes)
    result = list(order)
    for window in np.flatnonzero(better).tolist():
        start, stop = starts[window], stops[window]
        subset = (1 << (stop - start)) - 1
        for place in range(stop - 1, start - 1, -1):
            bit = int(last[subset, window])
            result[place] = order[start + bit]
            subset ^= 1 << bit
    return result


def _contract(steps: _Steps, order: list[int], starts: list[int]) -> _Contracted:
    costs, windows = steps.costs, len(starts)
    layers = len(costs)
    sent_at = {layer: place for place, layer in enumerate(order)}
    usable_at = [
        max((sent_at.get(need, len(order)) for need in needs), default=-1) for needs in costs.needs
    ]
    # The window in which each layer becomes usable; before it the client runs the layer.
    within = (np.searchsorted(starts, usable_at, side="right") - 1).tolist()
    within = [windows if at == len(order) else w for at, w in zip(usable_at, within, strict=True)]
    of_window: list[list[int]] = [[] for _ in starts]
    for layer, window in enumerate(within):
        if 0 <= window < windows:
            of_window[window].append(layer)
    most = max(map(len, of_window), default=0)
    picked = np.full((most, windows), layers)
    needed = np.zeros((most, windows), dtype=np.intp)
    for window, mine in enumerate(of_window):
        picked[: len(mine), window] = mine
        for row, layer in enumerate(mine):
            places = [sent_at[need] - starts[window] for need in costs.needs[layer]]
            needed[row, window] = sum(1 << place for place in places if place >= 0)
    return _Contracted(picked, needed, _between(steps, within, most, windows))


def _between(steps: _Steps, within: list[int], most: int, windows: int) -> Floats:
    """The least times through what lies between each window's layers."""
    anew = np.array([[0.0, np.inf], [np.inf, 0.0]])
    found = np.tile(anew[:, :, None], (most + 1, 1, 1, windows))
    row = [0] * windows
    time = np.tile(anew[:, :, None], (1, 1, windows))  # [z, a, b]: side z now, from side a
    time[1, 0] = steps.into_edge
    run = np.empty((len(within), 2, 1, windows))
    run[:, 0, 0] = steps.client[:-1, None]
    there = np.arange(windows) > np.array(within, dtype=int)[:, None]
    run[:, 1, 0] = np.where(there, steps.edge[:-1, None], np.inf)
    cross = np.stack([steps.down, steps.up], axis=1)[:, :, None, None]
    other, crossed = time[::-1], np.empty_like(time)
    for layer, window in enumerate(within):
        if 0 <= window < windows:
            # The window's own layer comes on top, with its crossing; begin anew behind it.
            found[row[window], ..., window] = time[..., window]
            row[window] += 1
        time += run[layer]
        np.add(other, cross[layer], out=crossed)
        np.minimum(time, crossed, out=time)
        if 0 <= window < windows:
            time[..., window] = anew
    for window in range(windows):
        found[row[window], ..., window] = time[..., window]
    return found


def _latencies(steps: _Steps, part: _Contracted) -> Floats:
    """(2^SIZE, windows): a query's time with each subset of each window's uploads there."""
    subsets = np.arange(1 << SIZE)[:, None]
    first = part.between[0]
    at_client = np.broadcast_to(first[0, 0], (1 << SIZE, first.shape[-1]))
    at_edge = np.broadcast_to(first[1, 0], at_client.shape)
    for picked, needed, after in zip(part.layers, part.needs, part.between[1:], strict=True):
        here = at_client + steps.client[picked]
        there = np.where(subsets & needed == needed, at_edge + steps.edge[picked], np.inf)
        client = np.minimum(here, there + steps.down[picked])
        edge = np.minimum(there, here + steps.up[picked])
        at_client = np.minimum(client + after[0, 0], edge + after[0, 1])
        at_edge = np.minimum(client + after[1, 0], edge + after[1, 1])
    return at_client


def _last_uploads(latency: Floats, sizes: Floats) -> tuple[NDArray[np.bool_], NDArray[np.int8]]:
    """Which windows have a better order, and per subset the upload that comes last in its best."""
    area, last = np.zeros_like(latency), np.zeros(latency.shape, dtype=np.int8)
    for subset in range(1, len(latency)):
        bits = np.array([bit for bit in range(SIZE) if subset >> bit & 1])
        before = subset ^ (1 << bits)
        through = area[before] + latency[before] * sizes[bits]
        best = through.argmin(axis=0)
        area[subset], last[subset] = through.min(axis=0), bits[best]
    so_far = list(accumulate((1 << bit for bit in range(SIZE - 1)), initial=0))
    now = (latency[so_far] * sizes).sum(axis=0)
    return area[-1] < now * (1 - LEAST_GAIN), last
