"""One training step as a schedule: N layers forward, then the same N backward.

JointDNN (IEEE TMC 2019) plans training as a chain of 2N layers; the weights of a layer that was
trained on the edge come back to the client. Planning only. Its full text was not at hand;
reconstructed: backward layer i needs what forward layer i left (its input, for the gradient of
its weights), so that this crosses too where the two run on different sides. Such a price depends
on two layers far apart, which no shortest path through the chain sees; through *pairs* (forward i,
backward i) it is one again, exact and O(N). Steps follow each other in the same placement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from planner.costs import Floats, LayerCosts, Link, not_negative, numbers
from planner.prices import Placement, Prices, Where, checked_available

if TYPE_CHECKING:  # its limits have training's prices
    from planner.objective import Objective

_SIDES = ((False, False), (False, True), (True, False), (True, True))  # True: on the edge


@dataclass(frozen=True, eq=False)
class TrainingPrices:
    """What 2N layers cost: `chain`, and what a layer costs whose two passes run apart.

    `chain`: layer i is forward layer i, layer 2N - 1 - i the same layer backward. `kept_up` (N):
    forward on the client and backward on the edge, so that what the forward layer left goes up.
    `kept_down` (N): the other way round. They add up and scale as `Prices` do.

    Raises ValueError that names the field when lengths do not fit or a price is negative,
    infinite or NaN.
    """

    chain: Prices
    kept_up: Floats
    kept_down: Floats

    def __init__(self, chain: Prices, kept_up: ArrayLike, kept_down: ArrayLike) -> None:
        if len(chain) % 2:
            raise ValueError(f"chain has {len(chain)} layers; forward and backward make it even")
        object.__setattr__(self, "chain", chain)
        for name, given in (("kept_up", kept_up), ("kept_down", kept_down)):
            object.__setattr__(self, name, numbers(name, given, len(chain) // 2))

    @classmethod
    def of(cls, prices: Prices | TrainingPrices) -> TrainingPrices:
        """`prices` itself, or with nothing kept (the edge's seconds, say)."""
        if isinstance(prices, TrainingPrices):
            return prices
        nothing = np.zeros(len(prices) // 2)
        return cls(prices, nothing, nothing)

    def __len__(self) -> int:
        return len(self.chain)

    def __add__(self, other: Prices | TrainingPrices) -> TrainingPrices:
        other = TrainingPrices.of(other)
        return TrainingPrices(
            self.chain + other.chain,
            self.kept_up + other.kept_up,
            self.kept_down + other.kept_down,
        )

    def __mul__(self, weight: float) -> TrainingPrices:
        return TrainingPrices(self.chain * weight, self.kept_up * weight, self.kept_down * weight)

    __rmul__ = __mul__

    def along(self, placement: Sequence[Where]) -> float:
        """The sum of prices of a placement of 2N layers. Raises ValueError as `Prices.along`."""
        total = self.chain.along(placement)
        there = np.array([where == "edge" for where in placement], dtype=bool)
        n = len(self) // 2
        forward, backward = there[:n], there[n:][::-1]
        goes_up, goes_down = ~forward & backward, forward & ~backward
        return total + float(self.kept_up[goes_up].sum() + self.kept_down[goes_down].sum())


@dataclass(frozen=True)
class TrainingCosts:
    """What one training step costs; from `training_costs`.

    `steps`: 2N layers, forward then backward. `new_weight_bytes` (2N): weights to bring to the
    client when the edge runs a backward layer. `kept_bytes` (N): what forward layer i leaves.
    """

    steps: LayerCosts
    new_weight_bytes: Floats
    kept_bytes: Floats

    def __len__(self) -> int:
        return len(self.steps)

    def prices(self, link: Link, objective: Objective) -> TrainingPrices:
        """The prices of a step: seconds, the client's joules, or a mix.

        Weights come in one stream, and what is kept rides along with what crosses anyway: both
        pay for their bytes and for no round trip. Weights that the client has changed go up again
        where the next step's forward layer runs on the edge.
        """
        chain = objective.prices(self.steps, link)
        changed_up, changed_down = _byte_prices(self.new_weight_bytes, link, objective)
        kept_up, kept_down = _byte_prices(self.kept_bytes, link, objective)
        return TrainingPrices(
            Prices(chain.client, chain.edge + changed_down, chain.up, chain.down),
            kept_up,
            kept_down + changed_up[::-1][: len(self) // 2],
        )


def training_costs(
    costs: LayerCosts, kept_bytes: ArrayLike | None = None, backward: float = 2.0
) -> TrainingCosts:
    """One training step on what `costs` says of one forward pass (of a batch, say).

    `kept_bytes` (n): what forward layer i leaves for its backward layer; None: what is alive
    before it (from above, where a skip passes by). `backward`: how many times a layer's forward
    time its backward pass takes; twice is usual, one product for the inputs' gradients and one
    for the weights'. Gradients take the bytes of what they are gradients of; the input's is not
    needed. Raises ValueError that names the argument.
    """
    n = len(costs)
    not_negative("backward", backward)
    kept = costs.cut_up_bytes[:-1] if kept_bytes is None else numbers("kept_bytes", kept_bytes, n)

    def both_ways(forward: Floats, factor: float) -> Floats:
        return np.concatenate([forward, factor * forward[::-1]])

    def cuts_both_ways(forward: Floats) -> Floats:
        back = forward[:-1][::-1].copy()
        back[-1:] = 0.0
        return np.concatenate([forward, back])

    steps = LayerCosts(
        both_ways(costs.client_s, backward),
        both_ways(costs.edge_s, backward),
        both_ways(costs.weight_bytes, 0.0),
        cuts_both_ways(costs.cut_up_bytes),
        cuts_both_ways(costs.cut_down_bytes),
        cut_up_s=cuts_both_ways(costs.cut_up_s),
        cut_down_s=cuts_both_ways(costs.cut_down_s),
        shared=_shared(costs),
        names=costs.names and [*costs.names, *(f"{name} backward" for name in costs.names[::-1])],
    )
    return TrainingCosts(steps, np.concatenate([np.zeros(n), costs.weight_bytes[::-1]]), kept)


def training_placement(
    prices: TrainingPrices, available: Sequence[bool] | None = None
) -> tuple[float, Placement]:
    """The least price of a training step over all placements of its 2N layers, and one that has it.

    `available` (2N): whether the edge may run a layer; None: all. The shortest path through the
    pairs (forward i, backward i), O(N). Raises ValueError unless `available` has 2N entries.
    """
    n = len(prices) // 2
    may = checked_available(available, 2 * n)
    client, edge, up, down = (
        field.tolist()
        for field in (prices.chain.client, prices.chain.edge, prices.chain.up, prices.chain.down)
    )
    kept_up, kept_down = prices.kept_up.tolist(), prices.kept_down.tolist()

    def crossing(cut: int, before: bool, after: bool) -> float:
        price: float = 0.0 if before == after else up[cut] if after else down[cut]
        return price

    def running(i: int, forward: bool, backward: bool) -> float:
        j = 2 * n - 1 - i
        if (forward and not may[i]) or (backward and not may[j]):
            return math.inf
        kept = 0.0 if forward == backward else kept_up[i] if backward else kept_down[i]
        ran: float = (edge if forward else client)[i] + (edge if backward else client)[j]
        return ran + kept

    # The least price of pairs 0..i that ends on these sides, and the sides of pair i - 1 in it.
    best = dict.fromkeys(_SIDES, math.inf) | {(False, False): 0.0}
    came_from: list[dict[tuple[bool, bool], tuple[bool, bool]]] = []
    for i in range(n):
        reached, origin = {}, {}
        for f, b in _SIDES:
            ways = [
                (best[g, c] + crossing(i, g, f) + crossing(2 * n - i, b, c), (g, c))
                for g, c in _SIDES
            ]
            price, origin[f, b] = min(ways)
            reached[f, b] = price + running(i, f, b)
        best = reached
        came_from.append(origin)
    price, sides = min((best[f, b] + crossing(n, f, b), (f, b)) for f, b in _SIDES)
    forward, backward = [], []
    for origin in reversed(came_from):
        forward.append(sides[0])
        backward.append(sides[1])
        sides = origin[sides]
    placement = [*reversed(forward), *backward]
    return price, tuple("edge" if there else "client" for there in placement)


def _byte_prices(sizes: Floats, link: Link, objective: Objective) -> tuple[Floats, Floats]:
    """What bytes add, up and down, to a transfer that happens anyway."""

    def priced(sizes: Floats) -> Prices:
        nothing, cuts = np.zeros(len(sizes)), np.append(sizes, 0.0)
        return objective.prices(LayerCosts(nothing, nothing, nothing, cuts, cuts), link)

    whole, empty = priced(sizes), priced(np.zeros(len(sizes)))
    return (whole.up - empty.up)[:-1], (whole.down - empty.down)[:-1]


def _shared(costs: LayerCosts) -> list[tuple[int, int]]:
    """A backward layer uses the weights of its forward layer, and those that this one shares."""
    last = 2 * len(costs) - 1
    own = [(last - i, i) for i in costs.weighted]
    return [*costs.shared, *own, *((last - i, owner) for i, owner in costs.shared)]
