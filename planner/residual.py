"""Residual blocks: each tensor crosses by itself, once, and only where the other side reads it.

At a cut inside a residual block two tensors are alive, and a schedule that crosses there takes
both along (`planner.prices`). JointDNN (IEEE TMC 2019) plans such blocks by themselves: a block
becomes four edges of the execution graph, from the side of its input to the side of its output,
each as cheap as the shortest path through the block's branches. Its full text was not at hand;
this construction is reconstructed, with one thing made exact: the input, which all branches read,
is sent once.

A block lies between two cuts where one tensor is alive: branches that each are a chain, and one
layer that joins them; the answer is exact for these. A block of another shape (a U-Net is one) is
planned by its cuts, so that it gets no dearer than on the route but for half a round trip that each
tensor pays. Branches run one after the other, as the layers of a graph do. Planning only: the
engine sends all that is alive at a cut.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import itemgetter
from typing import TypeAlias

import numpy as np

from planner.costs import Floats, LayerCosts, Link
from planner.jointdnn import available_array
from planner.objective import LATENCY, Objective
from planner.prices import Placement, Prices, Where

_SIDES = (False, True)  # True: the edge


@dataclass(frozen=True, eq=False)
class TensorPrices:
    """What n layers cost, and what their outputs cost to cross, each by itself; `tensor_prices`.

    `layers`: `up` and `down` are of tensors, not of cuts: entry 0 is the input, entry i + 1 what
    layer i makes. `readers`: per tensor, the layers that read it (n: it is an answer).
    """

    layers: Prices
    readers: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.layers)

    def along(self, placement: Sequence[Where]) -> float:
        """The sum of prices of a placement. Raises ValueError as `Prices.along`."""
        nothing = np.zeros(len(self) + 1)
        total = Prices(self.layers.client, self.layers.edge, nothing, nothing).along(placement)
        there = [False, *(where == "edge" for where in placement), False]
        for tensor, readers in enumerate(self.readers):
            if any(there[reader + 1] != there[tensor] for reader in readers):
                total += float((self.layers.down if there[tensor] else self.layers.up)[tensor])
        return total


def tensor_prices(costs: LayerCosts, link: Link, objective: Objective = LATENCY) -> TensorPrices:
    """The prices of single tensors, from what is alive at the cuts.

    Raises ValueError when `costs` has no edges, or when its cuts are not sums of tensors that
    keep their bytes from cut to cut: a layer makes several that are read at different depths (as
    encoders of U-Nets do), or a coding is of whole cuts.
    """
    if costs.edges is None:
        raise ValueError(
            "edges: residual blocks are found by the layer graph's, and there are none"
        )
    readers = _readers(costs)
    sizes = replace(
        costs,
        cut_up_bytes=_sizes("cut_up_bytes", costs.cut_up_bytes, readers),
        cut_down_bytes=_sizes("cut_down_bytes", costs.cut_down_bytes, readers),
        cut_up_s=_sizes("cut_up_s", costs.cut_up_s, readers),
        cut_down_s=_sizes("cut_down_s", costs.cut_down_s, readers),
    )
    return TensorPrices(objective.prices(sizes, link), readers)


def residual_placement(
    prices: TensorPrices, available: Sequence[bool] | None = None
) -> tuple[float, Placement]:
    """The least price over all placements, and one that has it; near it for blocks of other shapes.

    `available` (n): whether the edge may run layer i; None: all. On a tie the client runs what
    joins. Raises ValueError unless `available` has n entries.
    """
    n = len(prices)
    may = [*available_array(available, n).tolist(), False]  # the answer's reader, on the client
    run = np.append(prices.layers.client, 0.0).tolist(), np.append(prices.layers.edge, 0.0).tolist()
    move = prices.layers.up.tolist(), prices.layers.down.tolist()
    cross = tuple(
        [sum(table[tensor] for tensor in alive) for _, alive in _alive(prices.readers)]
        for table in move
    )
    steps = []
    taken = {False: 0.0, True: math.inf}
    for block in _blocks(prices.readers):
        taken, step = _after(block, taken, run, cross if block.entangled else move, may)
        steps.append(step)
    there: list[bool] = []
    side = False
    for step in reversed(steps):
        side, sides = step[side]
        there = sides + there
    placement: Placement = tuple("edge" if on_edge else "client" for on_edge in there[:n])
    return prices.along(placement), placement


_Table: TypeAlias = Sequence[list[float]]  # on the client, on the edge; or up, down
# What it takes until the one tensor that is alive is on a side.
_Taken: TypeAlias = dict[bool, float]
# Per side after a block, the side before it and the sides of its layers.
_Step: TypeAlias = dict[bool, tuple[bool, list[bool]]]


def _after(
    block: _Block, taken: _Taken, run: _Table, move: _Table, may: list[bool]
) -> tuple[_Taken, _Step]:
    taken_next, step = {}, {}
    for after in _SIDES:
        ways = []
        for before in _SIDES:
            price, sides = block.through(run, move, may, before, after)
            ways.append((taken[before] + price, (before, sides)))
        taken_next[after], step[after] = min(ways, key=itemgetter(0))
    return taken_next, step


@dataclass(frozen=True, slots=True)
class _Block:
    """Layers [start, stop), the last of which joins the branches; tensor `start` goes in.

    `branches`: chains of layers; an empty one is the input that the last layer reads itself. Those
    of an `entangled` block are one chain, which takes along all that is alive.
    """

    start: int
    stop: int
    branches: tuple[tuple[int, ...], ...]
    entangled: bool

    def through(
        self, run: _Table, move: _Table, may: list[bool], before: bool, after: bool
    ) -> tuple[float, list[bool]]:
        """The least price with the input on side `before` and the last layer on `after`."""
        if after and not may[self.stop - 1]:
            return math.inf, [after] * (self.stop - self.start)
        last = run[after][self.stop - 1]
        ways = []
        for moved in _SIDES:
            price = last + (move[before][self.start] if moved else 0.0)
            sides = [after] * (self.stop - self.start)
            for branch in self.branches:
                begins = _SIDES if moved else (before,)
                more, chosen = _cheapest_branch(branch, run, move, may, begins, after)
                price += more
                for layer, side in zip(branch, chosen, strict=True):
                    sides[layer - self.start] = side
            ways.append((price, sides))
        return min(ways, key=itemgetter(0))


def _cheapest_branch(
    branch: Sequence[int],
    run: _Table,
    move: _Table,
    may: list[bool],
    begins: Sequence[bool],
    after: bool,
) -> tuple[float, list[bool]]:
    """The least price from where the input is to where the branch is joined, and the sides."""
    ways: dict[bool, tuple[float, list[bool]]] = {side: (0.0, []) for side in begins}
    for layer in branch:
        ran = [
            (came, price + run[came][layer], [*sides, came])
            for came, (price, sides) in ways.items()
            if may[layer] or not came
        ]
        ways = {}
        for side in _SIDES if ran else ():
            arrivals = [
                (price + (0.0 if came == side else move[came][layer + 1]), sides)
                for came, price, sides in ran
            ]
            ways[side] = min(arrivals, key=itemgetter(0))
    return ways.get(after, (math.inf, [after] * len(branch)))


def _readers(costs: LayerCosts) -> tuple[tuple[int, ...], ...]:
    n = len(costs)
    readers: list[set[int]] = [set() for _ in range(n + 1)]
    for source, target in costs.edges or ():
        readers[source + 1].add(target)
    read = set().union(*readers)
    readers[0] |= set(range(n)) - read
    for tensor in range(0 if n == 0 else 1, n + 1):
        readers[tensor] = readers[tensor] or {n}
    return tuple(tuple(sorted(layers)) for layers in readers)


def _sizes(name: str, cuts: Floats, readers: Sequence[Sequence[int]]) -> Floats:
    """What each tensor adds to the cuts where it is alive: from its layer to its last reader."""
    sizes, rounding = np.zeros(len(cuts)), 1e-9 * float(cuts.max())
    for cut, alive in _alive(readers):
        others = float(sum(sizes[tensor] for tensor in alive if tensor != cut))
        sizes[cut] = cuts[cut] - others
        if sizes[cut] < -rounding:
            raise ValueError(f"{name}[{cut}] is {cuts[cut]}; what is alive there takes {others}")
    return np.maximum(sizes, 0.0)


def _alive(readers: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[int]]]:
    """Each cut, and the tensors that are made before it and read after it."""
    alive: list[int] = []
    for cut, layers in enumerate(readers):
        alive = [tensor for tensor in alive if readers[tensor][-1] >= cut]
        if layers:
            alive.append(cut)
        yield cut, alive


def _blocks(readers: Sequence[Sequence[int]]) -> Iterator[_Block]:
    """The blocks between cuts where one tensor is alive; who reads the answer is layer n."""
    n = len(readers) - 1
    narrow = [cut for cut, alive in _alive(readers) if alive == [cut]]
    for start, stop in pairwise([*narrow, n + 1]):
        branches = _branches(start, stop, readers)
        yield _Block(
            start, stop, branches or (tuple(range(start, stop - 1)),), entangled=branches is None
        )


def _branches(
    start: int, stop: int, readers: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...] | None:
    join, inner = stop - 1, range(start, stop - 1)
    sources = Counter(layer for tensor in range(start, stop) for layer in readers[tensor])
    if any(sources[layer] != 1 or len(readers[layer + 1]) != 1 for layer in inner):
        return None
    branches = []
    for first in readers[start]:
        branch = []
        while first != join:
            branch.append(first)
            (first,) = readers[first + 1]
        branches.append(tuple(branch))
    return tuple(branches)
