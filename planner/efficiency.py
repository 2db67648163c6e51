"""The default upload order: the block with the most latency saved per byte goes next.

Repeat until nothing pays: of all contiguous runs of layers, upload the one whose presence on the
edge shortens a query most per byte still to be sent; inside it, grow outwards or inwards so that
the area under the latency curve is smallest (`planner.growth`). Then improve the whole order by
windows (`planner.windows`). EMDL'19 (`planner.emdl`) orders blocks by efficiency too; here each
choice is priced on the whole route, and layers are acknowledged one by one.

How a choice takes O(n) instead of a shortest path for each of n^2/2 blocks: let F(i) be the least
time to have the data on the edge at cut i, B(j) the least time from the edge at cut j to the
answer, with what is uploaded so far, and E the running sum of edge times. A query that runs block
[i, j) on the edge takes F(i) + E(j) - E(i) + B(j), so with A = F - E and Z = B + E, latency now L
and W the running sum of missing bytes, the block saves (L - A(i) - Z(j)) / (W(j) - W(i)) per byte.
The largest such fraction is found by Dinkelbach's method: for a trial value v the best block for
savings - v * bytes comes out of one running maximum, and its fraction is the next trial value;
it takes two to five rounds. F and B change only near what was uploaded, up to a shift.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import accumulate, pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner import windows
from planner.costs import Floats, LayerCosts, Link, transfer_s
from planner.growth import inward_order, outward_order
from planner.windows import improve_order

Blocks: TypeAlias = tuple[tuple[int, ...], ...]

# Savings below this fraction of the latency are rounding, not savings.
ROUNDED = 1e-11


def efficiency_partitions(costs: LayerCosts, link: Link) -> Blocks:
    """Blocks in upload order, each with its layers in upload order; every weighted layer once.

    What pays nothing on this link follows at the end, one partition per layer.
    """
    paying, rest = efficiency_blocks(costs, link)
    return (*paying, *((layer,) for layer in rest))


def efficiency_blocks(costs: LayerCosts, link: Link) -> tuple[Blocks, tuple[int, ...]]:
    """The blocks that pay on this link, and the weighted layers that do not, in upload order.

    The latter go by the computing time that they would save per byte on a better link.
    """
    blocks, sent = greedy_blocks(costs, link)
    rest = [layer for layer in costs.weighted if layer not in sent]
    saved_s = costs.client_s - costs.edge_s
    rest.sort(key=lambda layer: -saved_s[layer] / costs.weight_bytes[layer])
    order = improve_order(costs, link, [layer for block in blocks for layer in block])
    return _regroup(blocks, order), tuple(rest)


def greedy_blocks(costs: LayerCosts, link: Link) -> tuple[list[list[int]], set[int]]:
    """Block by block what saves most per byte, until nothing does, and all layers in them."""
    paths = _Paths(costs, link)
    sent: set[int] = set()
    blocks = []
    while (found := paths.best_block()) is not None:
        block: list[int] = []
        for layer in paths.upload_order(*found):
            needs = [need for need in costs.needs[layer] if need not in sent]
            block.extend(needs)
            sent.update(needs)
        blocks.append(block)
        paths.send(found, sent)
    return blocks, sent


def _regroup(blocks: list[list[int]], order: list[int]) -> Blocks:
    """`order` in the blocks that it leaves apart; neighbours that it mixes become one."""
    block_of = {layer: index for index, block in enumerate(blocks) for layer in block}
    latest = list(accumulate((block_of[layer] for layer in order), max))
    ends = accumulate(map(len, blocks))
    kept = [end for index, end in enumerate(ends) if latest[end - 1] == index]
    return tuple(tuple(order[start:end]) for start, end in pairwise([0, *kept]))


class _Paths:
    """Shortest times to and from every cut with the data on either side, kept up to date."""

    missing: NDArray[np.intp]  # layers that the edge cannot run yet
    segments: NDArray[np.intp]  # where the runs of cuts between them begin
    enter: Floats  # per run, A at the best cut to enter the edge, Z at the best to leave it
    leave: Floats
    bytes: Floats  # to send for each missing layer; their sum before and after each
    before: Floats
    after: Floats

    def __init__(self, costs: LayerCosts, link: Link) -> None:
        n = len(costs)
        self.costs = costs
        self.client_s, self.edge_s = costs.client_s.tolist(), costs.edge_s.tolist()
        up, down = transfer_s(costs, link)
        self.up, self.down = up.tolist(), down.tolist()
        self.edge_sum = np.concatenate([[0.0], np.cumsum(costs.edge_s)])
        self.available = costs.available(())
        self.to_client, self.to_edge = np.zeros(n + 1), np.zeros(n + 1)
        self.from_client, self.from_edge = np.zeros(n + 1), np.zeros(n + 1)
        self.to_edge[0], self.from_edge[n] = self.up[0], self.down[n]
        self._forward(1, n)
        self._backward(n - 1, 0)
        self.guess = 0.0
        self._keep(np.flatnonzero(~np.array(self.available, dtype=bool)), frozenset())

    @property
    def latency_s(self) -> float:
        return float(self.from_client[0])

    def best_block(self) -> tuple[int, int] | None:
        """First and last (in `missing`) of the run that saves most per byte; None if none does."""
        if not len(self.missing):
            return None
        starts, ends = self.enter[:-1], self.leave[1:]
        after, before = self.after, self.before
        now_s = self.latency_s
        least, trial, found = ROUNDED * now_s, self.guess, None
        while True:
            reach = trial * before - starts
            profit = np.maximum.accumulate(reach)
            profit -= ends
            profit -= trial * after
            last = int(profit.argmax())
            first = int(reach[: last + 1].argmax())
            saved_s = now_s - float(starts[first]) - float(ends[last])
            if saved_s > least:
                # Running sums lose what is small beside what came before.
                size = after[last] - before[first] or self.bytes[first : last + 1].sum()
                fraction = saved_s / float(size)
                # From the second round on the fraction only grows, but for rounding.
                if found is not None and fraction <= trial * (1 + ROUNDED):
                    return found
                found, trial, self.guess = (first, last), fraction, fraction
            elif found is not None or trial == 0.0:
                return found
            else:
                trial = 0.0  # the last block's fraction was too high a first guess

    def upload_order(self, first: int, last: int) -> list[int]:
        """The block's layers in the order, grown outwards or inwards, that pays soonest."""
        layers: list[int] = self.missing[first : last + 1].tolist()
        if len(layers) == 1:
            return layers
        sizes = self.bytes[first : last + 1]
        starts, ends = self.enter[first : last + 1], self.leave[first + 1 : last + 2]
        area, order = outward_order(self.latency_s, starts, ends, sizes)
        # Windows find the best of few layers anyway.
        if len(layers) > windows.SIZE:
            inward_area, inward = inward_order(*self._around_missing(layers), sizes)
            order = inward if inward_area < area else order
        return [layers[index] for index in order]

    def _around_missing(self, layers: list[int]) -> tuple[Floats, Floats]:
        """Summands by which a query takes as long as it does while a run of `layers` is missing.

        Missing layers run on the client, so with i..j missing a query takes the least time to the
        client before i with those before i there, on as now to the cut after j, and from there
        the least time with those after j.
        """
        at, count = np.array(layers), layers[-1] + 1 - layers[0]
        before, after = np.empty(count), np.empty(count)
        client, edge = self.to_client.item(layers[0]), self.to_edge.item(layers[0])
        for layer in range(layers[0], layers[-1] + 1):
            before[layer - layers[0]] = client
            here, there = client + self.client_s[layer], edge + self.edge_s[layer]
            client = min(here, there + self.down[layer + 1])
            edge = min(there, here + self.up[layer + 1])
        client, edge = self.from_client.item(layers[-1] + 1), self.from_edge.item(layers[-1] + 1)
        for layer in range(layers[-1], layers[0] - 1, -1):
            after[layer - layers[0]] = client
            here, there = self.client_s[layer] + client, self.edge_s[layer] + edge
            client = min(here, there + self.up[layer])
            edge = min(there, here + self.down[layer])
        begin, end = at - layers[0], self.to_client[at + 1]
        return before[begin] - self.to_client[at], end + after[begin]

    def send(self, block: tuple[int, int], sent: set[int]) -> None:
        """Make the block available, and with it what else the weights in `sent` allow."""
        first, stop = block[0], block[1] + 1
        layers = self.missing[first:stop].tolist()
        rest = np.concatenate([self.missing[:first], self.missing[stop:]])
        if self.costs.shared:
            allowed = [sent.issuperset(self.costs.needs[layer]) for layer in rest.tolist()]
            layers = sorted([*layers, *rest[allowed].tolist()])
            rest = rest[np.logical_not(allowed)]
        for layer in layers:
            self.available[layer] = True
        shift_s, behind = self._forward(layers[0] + 1, layers[-1] + 1)
        shift_back_s, ahead = self._backward(layers[-1], layers[0])
        if self.costs.shared:
            self._keep(rest, sent)
            return
        size = self.after[stop - 1] - self.before[first]
        self.missing = rest
        for name in ("segments", "enter", "leave"):
            runs = getattr(self, name)
            setattr(self, name, np.concatenate([runs[: first + 1], runs[stop + 1 :]]))
        low = int(self.segments.searchsorted(ahead, side="right")) - 1
        high = int(self.segments.searchsorted(behind - 1, side="right"))
        self.leave[:low] += shift_back_s
        self.enter[high:] += shift_s
        self._find_ends(low, high)
        self.bytes = np.concatenate([self.bytes[:first], self.bytes[stop:]])
        self.after = np.concatenate([self.after[:first], self.after[stop:] - size])
        self.before = np.concatenate([self.before[:first], self.before[stop:] - size])

    def _find_ends(self, low: int, high: int) -> None:
        """Compute `enter` and `leave` of the runs from `low` to before `high`."""
        starts = self.segments[low:high]
        stop = self.segments[high] if high < len(self.segments) else len(self.up)
        cuts, runs = slice(starts[0], stop), starts - starts[0]
        edge_sum = self.edge_sum[cuts]
        self.enter[low:high] = np.minimum.reduceat(self.to_edge[cuts] - edge_sum, runs)
        self.leave[low:high] = np.minimum.reduceat(self.from_edge[cuts] + edge_sum, runs)

    def _keep(self, missing: NDArray[np.intp], sent: Collection[int]) -> None:
        """Set what still has to be sent: layers, the cuts that they separate, running sums."""
        self.missing = missing
        self.segments = np.concatenate([[0], missing + 1])
        self.bytes = self._bytes(missing, sent)
        self.after = np.cumsum(self.bytes)
        self.before = self.after - self.bytes
        self.enter, self.leave = np.empty((2, len(self.segments)))
        self._find_ends(0, len(self.segments))

    def _bytes(self, layers: NDArray[np.intp], sent: Collection[int]) -> Floats:
        sizes, needs = self.costs.weight_bytes, self.costs.needs
        if not self.costs.shared:
            return sizes[layers]
        missing = [[need for need in needs[layer] if need not in sent] for layer in layers.tolist()]
        return np.array([sizes[layers].sum() for layers in missing])

    def _forward(self, cut: int, until: int) -> tuple[float, int]:
        """Recompute times to the cuts from `cut` on, at least up to `until`.

        Returns by how much those behind shifted all alike, and the first of them.
        """
        to_client, to_edge = self.to_client, self.to_edge
        client, edge = to_client.item(cut - 1), to_edge.item(cut - 1)
        for at in range(cut, len(self.up)):
            on_client = client + self.client_s[at - 1]
            on_edge = edge + self.edge_s[at - 1] if self.available[at - 1] else math.inf
            client = min(on_client, on_edge + self.down[at])
            edge = min(on_edge, on_client + self.up[at])
            shift, other = client - to_client.item(at), edge - to_edge.item(at)
            to_client[at], to_edge[at] = client, edge
            if at >= until and abs(shift - other) <= ROUNDED * client:
                # Both sides moved alike, so everything behind moves along.
                to_client[at + 1 :] += shift
                to_edge[at + 1 :] += shift
                return shift, at + 1
        return 0.0, len(self.up)

    def _backward(self, cut: int, until: int) -> tuple[float, int]:
        """Recompute times from the cuts from `cut` down, at least down to `until`.

        Returns by how much those ahead shifted all alike, and the first that did not.
        """
        from_client, from_edge = self.from_client, self.from_edge
        client, edge = from_client.item(cut + 1), from_edge.item(cut + 1)
        for at in range(cut, -1, -1):
            on_client = self.client_s[at] + client
            on_edge = self.edge_s[at] + edge if self.available[at] else math.inf
            client = min(on_client, on_edge + self.up[at])
            edge = min(on_edge, on_client + self.down[at])
            shift, other = client - from_client.item(at), edge - from_edge.item(at)
            from_client[at], from_edge[at] = client, edge
            if at <= until and abs(shift - other) <= ROUNDED * client:
                from_client[:at] += shift
                from_edge[:at] += shift
                return shift, at
        return 0.0, 0
