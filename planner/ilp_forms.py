"""The two integer programmes of schedules: what their variables are, cost, and must add up to.

"jointdnn" (JointDNN, IEEE TMC 2019, eq. 1-12): a binary for every group of layers [i, j) on the
client and one for every group on the edge; every layer is in one group. "glsvlsi" (Eshratifar and
Pedram, GLSVLSI'18): a binary per layer, and what is uploaded or downloaded at each cut. Both papers
multiply the binaries of neighbours to price a transfer; here a transfer is a flow that the sides
around a cut must balance, which says the same linearly, and whose relaxation is integral until a
limit joins. Only the papers' abstracts and openings were at hand: the form of the equations is
reconstructed from what they describe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray

from planner.costs import Floats
from planner.jointdnn import edge_ends, grouped_price, range_sums
from planner.prices import Placement, Prices
from planner.training import TrainingPrices

Ranges: TypeAlias = tuple[Floats, Floats]


class Form(ABC):
    """Variables from 0 to `most` with `equal @ variables == right`; `integer` marks the binaries.

    `sides` @ variables is 1 for each layer on the edge and 0 for each on the client. Each variable
    costs a part of the price, none the difference that it makes, so that what is too dear can be
    left out. `flows`: the equations are those of a network, so that every vertex is integral.
    """

    equal: scipy.sparse.csr_array
    right: Floats
    integer: Floats
    most: Floats
    sides: scipy.sparse.csr_array
    flows: bool = True

    @abstractmethod
    def priced(self, prices: Prices | TrainingPrices, ranges: Ranges | None = None) -> Floats:
        """What each variable costs.

        `ranges`: what groups cost on the client and on the edge, where layers do not add up.
        """

    def placement(self, values: Floats) -> Placement:
        """The placement that a solution stands for."""
        there = self.sides @ values > 0.5
        return tuple("edge" if on_edge else "client" for on_edge in there)


class PerLayer(Form):
    """The GLSVLSI'18 form: x, 1 - x (n), u, d (n + 1) with x_k - x_{k-1} = u_k - d_k."""

    def __init__(self, may: NDArray[np.bool_]) -> None:
        n, sparse = len(may), scipy.sparse
        layer, cut = np.arange(n), np.arange(n + 1)
        ones = np.ones(n + 1)
        variables = 4 * n + 2
        self.equal = sparse.csr_array(sparse.coo_array(
            (np.concatenate([ones[:n], -ones[:n], -ones, ones, ones[:n], ones[:n]]),
             (np.concatenate([layer, layer + 1, cut, cut, n + 1 + layer, n + 1 + layer]),
              np.concatenate([layer, layer, 2 * n + cut, 3 * n + 1 + cut, layer, n + layer]))),
            shape=(2 * n + 1, variables),
        ))  # fmt: skip
        self.right = np.concatenate([np.zeros(n + 1), np.ones(n)])
        self.integer = np.concatenate([np.ones(n), np.zeros(3 * n + 2)])
        self.most = np.concatenate([may.astype(float), np.ones(3 * n + 2)])
        self.sides = sparse.csr_array((np.ones(n), (layer, layer)), shape=(n, variables))

    def priced(self, prices: Prices | TrainingPrices, ranges: Ranges | None = None) -> Floats:
        assert isinstance(prices, Prices)
        assert ranges is None
        return np.concatenate([prices.edge, prices.client, prices.up, prices.down])


class Grouped(Form):
    """JointDNN's form: m_ij and c_ij, groups [i, j) on the client and on the edge, in turn.

    A group on the client that ends at cut j < n pays the upload there; one on the edge pays the
    download at its end, and the input's upload if it is the first.
    """

    def __init__(self, may: NDArray[np.bool_]) -> None:
        n = len(may)
        start, stop = np.triu_indices(n + 1, 1)
        allowed = stop <= edge_ends(may)[start]
        self._m, self._c = (start, stop), (start[allowed], stop[allowed])
        variables = len(start) + int(allowed.sum())
        # Rows: 0 starts; 1..n-1 the edge takes over at that cut; n..2n-2 the client does.
        client = self._flow(*self._m, taken_over=0, takes_over=n - 1, n=n)
        edge = self._flow(*self._c, taken_over=n - 1, takes_over=0, n=n)
        self.equal = scipy.sparse.csr_array(scipy.sparse.hstack([client, edge]))
        self.right = np.concatenate([[1.0], np.zeros(2 * n - 2)])
        self.integer = self.most = np.ones(variables)
        self.sides = self._cover(len(start), *self._c, n=n)

    @staticmethod
    def _flow(
        start: NDArray[np.intp], stop: NDArray[np.intp], taken_over: int, takes_over: int, n: int
    ) -> scipy.sparse.csr_array:
        column = np.arange(len(start))
        ends = stop < n
        begins = np.where(start == 0, 0, takes_over + start)
        signs = np.where(start == 0, 1.0, -1.0)
        return scipy.sparse.csr_array(scipy.sparse.coo_array(
            (np.concatenate([np.ones(int(ends.sum())), signs]),
             (np.concatenate([taken_over + stop[ends], begins]),
              np.concatenate([column[ends], column]))),
            shape=(2 * n - 1, len(start)),
        ))  # fmt: skip

    @staticmethod
    def _cover(
        offset: int, start: NDArray[np.intp], stop: NDArray[np.intp], n: int
    ) -> scipy.sparse.csr_array:
        """1 where a layer (row) is in a group on the edge (column)."""
        lengths = stop - start
        ends = np.cumsum(lengths)
        rows = np.arange(int(lengths.sum())) - np.repeat(ends - lengths - start, lengths)
        columns = offset + np.repeat(np.arange(len(start)), lengths)
        shape = n, offset + len(start)
        return scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)

    def priced(self, prices: Prices | TrainingPrices, ranges: Ranges | None = None) -> Floats:
        assert isinstance(prices, Prices)
        client, edge = ranges or (range_sums(prices.client), range_sums(prices.edge))
        ends = np.append(prices.up[:-1], 0.0)
        first = np.zeros(len(prices) + 1)
        first[0] = prices.up[0]
        return np.concatenate([
            client[self._m] + ends[self._m[1]],
            edge[self._c] + prices.down[self._c[1]] + first[self._c[0]],
        ])  # fmt: skip


class Tied(Form):
    """Any form, with what forward layers leave for backward layers on the other side (training).

    Two more variables per pair, which balance a backward layer's side against its forward layer's.
    """

    def __init__(self, form: Form) -> None:
        layers = form.sides.shape[0]
        n, sparse = layers // 2, scipy.sparse
        self._form = form
        differs = form.sides[: n - 1 : -1] - form.sides[:n]
        unit = sparse.csr_array((np.ones(n), (np.arange(n), np.arange(n))), shape=(n, n))
        nothing = sparse.csr_array((form.equal.shape[0], 2 * n))
        self.equal = sparse.csr_array(
            sparse.vstack(
                [sparse.hstack([form.equal, nothing]), sparse.hstack([differs, -unit, unit])]
            )
        )
        self.right = np.concatenate([form.right, np.zeros(n)])
        self.integer = np.concatenate([form.integer, np.zeros(2 * n)])
        self.flows = isinstance(form, PerLayer)
        self.most = np.concatenate([form.most, np.ones(2 * n)])
        self.sides = sparse.csr_array(
            sparse.hstack([form.sides, sparse.csr_array((layers, 2 * n))])
        )

    def priced(self, prices: Prices | TrainingPrices, ranges: Ranges | None = None) -> Floats:
        prices = TrainingPrices.of(prices)
        chain = self._form.priced(prices.chain, ranges)
        return np.concatenate([chain, prices.kept_up, prices.kept_down])


def ranged_price(prices: Prices | TrainingPrices, placement: Placement, ranges: Ranges) -> float:
    """What a placement costs when each of its maximal ranges runs in one go."""
    if isinstance(prices, Prices):
        return grouped_price(prices, placement, *ranges)
    nothing = np.zeros(len(prices))
    bare = Prices(nothing, nothing, np.zeros(len(prices) + 1), np.zeros(len(prices) + 1))
    kept = TrainingPrices(bare, prices.kept_up, prices.kept_down).along(placement)
    return kept + grouped_price(prices.chain, placement, *ranges)
