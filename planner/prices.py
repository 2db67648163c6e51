"""What each step of a schedule costs: seconds, joules, or a mix of both.

A schedule is a path through {client, edge} x layers, from the input on the client to the answer
on the client. Every planner that looks for one minimises the sum of prices along it; latency and
energy differ only in the prices. Mobile energy (Neurosurgeon, ASPLOS'17, Algorithm 1; JointDNN,
TMC'19, section 3) is in `planner.power`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from planner.costs import Floats, LayerCosts, Link, is_finite, numbers, transfer_s

Where: TypeAlias = Literal["client", "edge"]
Placement: TypeAlias = tuple[Where, ...]

# Sums of the same prices in another order differ by less than this part of themselves.
SAME = 1e-12


@dataclass(frozen=True, eq=False)
class Prices:
    """What n layers cost on either side, and what n + 1 cuts cost to cross, in one unit.

    `client`, `edge` (n): running layer i there. `up`, `down` (n + 1): taking what is alive before
    layer i to the edge, or back; cut 0 is the input and cut n the answer. Prices add up along a
    schedule, and prices of one model may be added and scaled: `latency * 1.0 + energy * 0.2`.

    Raises ValueError that names the field when lengths differ or a number is negative, infinite
    or NaN.
    """

    client: Floats
    edge: Floats
    up: Floats
    down: Floats

    def __init__(self, client: ArrayLike, edge: ArrayLike, up: ArrayLike, down: ArrayLike) -> None:
        n = len(numbers("client", client, None))
        for name, given, length in (
            ("client", client, n),
            ("edge", edge, n),
            ("up", up, n + 1),
            ("down", down, n + 1),
        ):
            object.__setattr__(self, name, numbers(name, given, length))

    @classmethod
    def _of(cls, client: Floats, edge: Floats, up: Floats, down: Floats) -> Prices:
        """Of checked arrays, unchecked: every query makes some."""
        prices = cls.__new__(cls)
        for name, values in (("client", client), ("edge", edge), ("up", up), ("down", down)):
            values.flags.writeable = False
            object.__setattr__(prices, name, values)
        return prices

    def __len__(self) -> int:
        return len(self.client)

    def __add__(self, other: Prices) -> Prices:
        if len(self) != len(other):
            raise ValueError(f"prices of {len(self)} and of {len(other)} layers do not add up")
        pairs = zip(self._fields, other._fields, strict=True)
        return Prices(*(mine + others for mine, others in pairs))

    def __mul__(self, weight: float) -> Prices:
        if not (is_finite(weight) and weight >= 0):
            raise ValueError(f"a weight of prices is a number from 0, not {weight!r}")
        return Prices(*(field * weight for field in self._fields))

    __rmul__ = __mul__

    def along(self, placement: Sequence[Where]) -> float:
        """The sum of prices of a placement. Raises ValueError unless it names n sides."""
        try:
            given, wrong = len(placement), set(placement) - {"client", "edge"}
        except TypeError as error:
            raise ValueError(f"placement is a list of sides: {error}") from None
        if given != len(self):
            raise ValueError(f"placement has {given} sides for {len(self)} layers")
        if wrong:
            raise ValueError(f"a layer runs on the 'client' or the 'edge', not on {wrong.pop()!r}")
        there = np.array([False, *(where == "edge" for where in placement), False])
        before, after, on_edge = there[:-1], there[1:], there[1:-1]
        return float(
            self.client[~on_edge].sum()
            + self.edge[on_edge].sum()
            + self.up[~before & after].sum()
            + self.down[before & ~after].sum()
        )

    @property
    def _fields(self) -> tuple[Floats, Floats, Floats, Floats]:
        return self.client, self.edge, self.up, self.down


def checked_available(available: Sequence[bool] | None, n: int) -> Sequence[bool]:
    """Whether the edge may run each of n layers; None: all. ValueError unless it has n entries."""
    if available is None:
        return [True] * n
    if not isinstance(available, list | tuple | np.ndarray):
        raise ValueError(f"available is a list of {n} booleans, not {available!r:.80}")
    if len(available) != n:
        raise ValueError(f"available has {len(available)} entries for {n} layers")
    return available


def latency_prices(costs: LayerCosts, link: Link) -> Prices:
    """Seconds: of computing, and of sending what crosses (b / rate + rtt / 2 + coding)."""
    return Prices._of(costs.client_s, costs.edge_s, *transfer_s(costs, link))


def cheapest_path(
    prices: Prices, available: Sequence[bool] | None = None
) -> tuple[float, Placement]:
    """The least sum of prices over all placements, and a placement that has it.

    `available` (n): whether the edge may run layer i; None: all. The shortest path through the
    execution graph, O(n); on a tie the client runs the layer. Raises ValueError unless `available`
    has n entries.
    """
    client, edge, up, down = (field.tolist() for field in prices._fields)
    n = len(client)
    may = checked_available(available, n)
    # What remains to the end with the data on the client, or on the edge, at cut i.
    at_client, at_edge = 0.0, down[n]
    stays = [False] * n  # from the client: run layer i there
    leaves = [True] * n  # from the edge: take the data down and run layer i on the client
    for i in range(n - 1, -1, -1):
        here = client[i] + at_client
        stays_here = leaves_here = True
        new_client, new_edge = here, here + down[i]
        if may[i]:
            there = edge[i] + at_edge
            over = there + up[i]
            if over < new_client:
                new_client, stays_here = over, False
            if there < new_edge:
                new_edge, leaves_here = there, False
        stays[i], leaves[i] = stays_here, leaves_here
        at_client, at_edge = new_client, new_edge
    placement: list[Where] = []
    on_client = True
    for stay, leave in zip(stays, leaves, strict=True):
        on_client = stay if on_client else leave
        placement.append("client" if on_client else "edge")
    return at_client, tuple(placement)
