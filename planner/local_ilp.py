"""Local offloading under limits: integer linear programmes (HiGHS).

Least energy under a latency limit, or the other way round, also where memory is short: with every
layer on one processor (`limited_route`), or with its units split over several that run at the
same time (`split_layers`, after DeepX's unit-blocks, IPSN'16; the formulation is our own, see
`planner.local_offloading`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray

from planner.costs import Floats, not_negative
from planner.local_offloading import (
    LocalCosts,
    LocalRoute,
    LocalSteps,
    Processor,
    Resources,
    local_route,
    priced_route,
)
from planner.programme import Bound, Programme, Schedule, Total

Amount: TypeAlias = Literal["latency_s", "energy_J"]
_TICKS = (
    1e3  # how many units of the variables that are times a query takes, so that HiGHS tells them
)


@dataclass(frozen=True, slots=True)
class LocalSplit:
    """How many units of each layer every processor runs, and what a query takes so."""

    latency_s: float
    energy_J: float
    units: tuple[tuple[int, ...], ...]


def limited_route(
    costs: LocalCosts,
    minimise: Amount = "energy_J",
    resources: Resources | None = None,
    *,
    latency_s: float | None = None,
    energy_J: float | None = None,
) -> LocalRoute:
    """The route that takes the least of `minimise`, and at most so many seconds and joules.

    Each layer runs on one processor, as in `local_route`; the weights of all layers that a
    processor runs have to fit in its free memory. Raises `Infeasible` when no route keeps the
    limits ("latency_s", "energy_J", "memory_bytes of <name>"), with how much more they need;
    ValueError for a limit that is negative or not finite, for another `minimise`, for resources
    of other processors, and when a layer can run on none.
    """
    steps = LocalSteps.of(costs, resources)
    limits = _limits(costs, minimise, resources, latency_s, energy_J)
    return _solved(*_route_programme(costs, steps, resources), minimise, limits)


def split_layers(
    costs: LocalCosts,
    minimise: Amount = "energy_J",
    resources: Resources | None = None,
    *,
    latency_s: float | None = None,
    energy_J: float | None = None,
) -> LocalSplit:
    """The split of each layer's units that takes the least of `minimise` and keeps the limits.

    Between layers the data lies with the first processor. A processor that has units of a layer
    starts, gets the whole input, and gives back its share of the output; a layer is done when
    the last of them is, and their joules add up. Weights are split as the units are, and have to
    fit. Raises as `limited_route`.
    """
    steps = LocalSteps.of(costs, resources)
    limits = _limits(costs, minimise, resources, latency_s, energy_J)
    if len(costs) == 0:
        return LocalSplit(0.0, 0.0, ())
    return _solved(*_split_programme(costs, steps, resources), minimise, limits)


def _route_programme(
    costs: LocalCosts, steps: LocalSteps, resources: Resources | None
) -> tuple[Programme[LocalRoute], dict[str, Total[LocalRoute]]]:
    """A variable per arc: at cut i from processor p to q, which runs layer i. A unit flow."""
    k, n = steps.may.shape
    may = np.ones((n + 2, k), dtype=bool)  # row i + 1: where layer i runs; the ends are the first
    may[0, 1:] = may[-1, 1:] = False
    may[1:-1] = steps.may.T
    cut, p, q = np.nonzero(may[:-1, :, None] & may[1:, None, :])
    runs = cut < n

    def read(values: Floats) -> LocalRoute:
        taken = (values > 0.5) & runs
        return priced_route(costs, steps, q[taken][np.argsort(cut[taken])].tolist())

    arcs = np.ones(len(cut), dtype=bool)
    rows, right = _flow(cut, p, q, steps.may.shape)
    known = [local_route(costs, resources, *weights) for weights in ((1.0, 0.0), (0.0, 1.0))]
    programme = Programme(arcs.astype(float), arcs, arcs, rows, right, right, read, known)
    return programme, _route_totals(costs, steps, cut, p, q)


def _flow(
    cut: NDArray[np.intp], p: NDArray[np.intp], q: NDArray[np.intp], shape: tuple[int, ...]
) -> tuple[scipy.sparse.csr_array, Floats]:
    (k, n), sparse = shape, scipy.sparse
    arcs, runs, comes = np.arange(len(cut)), cut < n, cut > 0
    at = np.concatenate((cut[runs] * k + q[runs], (cut[comes] - 1) * k + p[comes]))
    signs = np.concatenate((np.ones(runs.sum()), -np.ones(comes.sum())))
    columns = np.concatenate((arcs[runs], arcs[comes]))
    flow = sparse.csr_array((signs, (at, columns)), shape=(n * k, len(cut)))
    # One unit leaves the input; with no layers it goes straight to the end.
    leaves = sparse.csr_array((cut == 0)[None].astype(float))
    return sparse.vstack([flow, leaves], format="csr"), np.append(np.zeros(n * k), 1.0)


def _route_totals(
    costs: LocalCosts,
    steps: LocalSteps,
    cut: NDArray[np.intp],
    p: NDArray[np.intp],
    q: NDArray[np.intp],
) -> dict[str, Total[LocalRoute]]:
    k, n = steps.may.shape
    run_s, run_J = np.zeros((2, k, n + 1))
    run_s[:, :n] = steps.run_s + steps.start_s[:, None]
    run_J[:, :n] = steps.run_J + steps.start_J[:, None]
    move_s = steps.move_s[cut, p, q]
    latency_s = move_s + run_s[q, cut]
    energy_J = run_J[q, cut] + costs.copy_W * move_s + costs.idle_W * latency_s
    weights = np.append(costs.weight_bytes, 0.0)[cut]

    def held(at: int) -> Total[LocalRoute]:
        def of(found: LocalRoute) -> float:
            return float(costs.weight_bytes[np.array(found.processors, dtype=int) == at].sum())

        return Total(weights * (q == at), of)

    return {
        "latency_s": Total(latency_s, attrgetter("latency_s")),
        "energy_J": Total(energy_J, attrgetter("energy_J")),
        **{_memory(processor): held(at) for at, processor in enumerate(costs.processors)},
    }


def _split_programme(
    costs: LocalCosts, steps: LocalSteps, resources: Resources | None
) -> tuple[Programme[LocalSplit], dict[str, Total[LocalSplit]]]:
    """Per layer and processor the units it has and whether it has any; per layer its time."""
    k, n = steps.may.shape
    sparse, shares = scipy.sparse, _Shares.of(costs, steps)
    known = []
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        whole = local_route(costs, resources, *weights).processors
        known.append(
            shares.split(costs.units[:, None] * (np.arange(k) == np.array(whole)[:, None]))
        )
    ticks = _TICKS / (min(split.latency_s for split in known) or 1.0)  # per second

    of_layer = sparse.kron(sparse.eye_array(n), np.ones((1, k)))
    each = sparse.eye_array(n * k)
    rows = [
        sparse.hstack([of_layer, sparse.csr_array((n, n * k + n))]),
        sparse.hstack([each, -each * np.repeat(costs.units, k), sparse.csr_array((n * k, n))]),
        sparse.hstack([
            *(each * (ticks * had_s.ravel()) for had_s in (shares.unit_s, shares.once_s)),
            -of_layer.T,
        ]),
    ]  # fmt: skip
    none, most_units = np.full(2 * n * k, -np.inf), np.where(steps.may.T, costs.units[:, None], 0)
    whole_ones = np.repeat([True, False], [2 * n * k, n])
    programme = Programme(
        _variables(most_units, steps.may.T.astype(float), np.full(n, np.inf)),
        whole_ones,
        whole_ones,
        sparse.vstack(rows, format="csr"),
        np.concatenate((costs.units, none)),
        np.concatenate((costs.units, np.zeros(2 * n * k))),
        lambda values: shares.split(np.rint(values[: n * k]).reshape(n, k)),
        known,
    )
    return programme, _split_totals(costs, shares, ticks)


@dataclass(frozen=True, eq=False)
class _Shares:
    """What a processor's part of a layer takes, (n, k): per unit, and once if it has any."""

    once_s: Floats
    once_J: Floats
    unit_s: Floats
    unit_J: Floats
    idle_W: float

    @classmethod
    def of(cls, costs: LocalCosts, steps: LocalSteps) -> _Shares:
        units, back_s_per_byte = costs.units[:, None], costs.copy_s_per_byte[:, 0]
        copies_s = steps.move_s[:-1, 0, :] + costs.copy_s[:, 0]
        shares_s = costs.cut_bytes[1:, None] * back_s_per_byte
        return cls(
            steps.start_s + copies_s,
            steps.start_J + costs.copy_W * copies_s,
            (steps.run_s.T + shares_s) / units,
            (steps.run_J.T + costs.copy_W * shares_s) / units,
            costs.idle_W,
        )

    def split(self, had: Floats) -> LocalSplit:
        """What it takes where each processor has so many units of each layer."""
        used = had > 0
        latency_s = float((used * self.once_s + had * self.unit_s).max(axis=1).sum())
        work_J = float((used * self.once_J + had * self.unit_J).sum())
        units = tuple(map(tuple, had.astype(int).tolist()))
        return LocalSplit(latency_s, work_J + self.idle_W * latency_s, units)


def _split_totals(costs: LocalCosts, shares: _Shares, ticks: float) -> dict[str, Total[LocalSplit]]:
    n, k = shares.unit_s.shape
    none, no_time, time = np.zeros((n, k)), np.zeros(n), np.ones(n) / ticks
    unit_bytes = costs.weight_bytes[:, None] / costs.units[:, None]

    def held(at: int) -> Total[LocalSplit]:
        def of(found: LocalSplit) -> float:
            return float((np.array(found.units) * unit_bytes)[:, at].sum())

        return Total(_variables(unit_bytes * (np.arange(k) == at), none, no_time), of)

    idle_W = costs.idle_W
    return {
        "latency_s": Total(
            _variables(none, none, time),
            attrgetter("latency_s"),
            _variables(shares.unit_s, shares.once_s, time),
        ),
        "energy_J": Total(
            _variables(shares.unit_J, shares.once_J, time * idle_W),
            attrgetter("energy_J"),
            _variables(
                shares.unit_J + idle_W * shares.unit_s,
                shares.once_J + idle_W * shares.once_s,
                time * idle_W,
            ),
        ),
        **{_memory(processor): held(at) for at, processor in enumerate(costs.processors)},
    }


def _variables(had: Floats, used: Floats, time: Floats) -> Floats:
    return np.concatenate((had.ravel(), used.ravel(), time))


def _solved(
    programme: Programme[Schedule],
    totals: Mapping[str, Total[Schedule]],
    minimise: str,
    limits: Mapping[str, float],
) -> Schedule:
    bounds = [Bound(name, totals[name], most) for name, most in limits.items()]
    found = programme.cheapest(totals[minimise], bounds)
    if found is None:
        raise programme.infeasible(bounds)
    return found


def _limits(
    costs: LocalCosts,
    minimise: str,
    resources: Resources | None,
    latency_s: float | None,
    energy_J: float | None,
) -> dict[str, float]:
    if minimise not in ("latency_s", "energy_J"):
        raise ValueError(f"minimise is 'latency_s' or 'energy_J', not {minimise!r:.40}")
    limits = {}
    for name, given in (("latency_s", latency_s), ("energy_J", energy_J)):
        if given is not None:
            limits[name] = not_negative(name, given)
    if resources is not None:
        for processor, free in zip(costs.processors, resources.memory_bytes, strict=True):
            if free < costs.weight_bytes.sum():
                limits[_memory(processor)] = free
    return limits


def _memory(processor: Processor) -> str:
    return f"memory_bytes of {processor.name}"
