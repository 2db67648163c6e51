"""Local offloading under limits: integer linear programmes (HiGHS).

Least energy under a latency limit, or the other way round, also where memory is short: with every
layer on one processor (`limited_route`), or with its units split over several that run at the
same time (`split_layers`, after DeepX's unit-blocks, IPSN'16; the formulation is our own, see
`planner.local_offloading`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import scipy
from numpy.typing import NDArray

from planner.costs import Floats
from planner.local_offloading import (
    LocalCosts,
    LocalRoute,
    LocalSteps,
    Processor,
    Resources,
    local_route,
    priced_route,
)
from planner.objective import ROUNDING, Infeasible
from planner.power import not_negative

Amount: TypeAlias = Literal["latency_s", "energy_J"]
Schedule = TypeVar("Schedule")

# HiGHS stops within 1e-6 of the optimum and of a limit, whatever their size: make them large.
_SCALE = 1e3
_COEFFICIENTS = 1e4  # how many times its scale a coefficient may be before it sets the scale
_MARGINS = (0.0, 1e-8, 1e-7, 1e-6, 1e-5)  # what to take off a limit that rounding broke
_INFEASIBLE = 2  # milp's status


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
    return _solved(*_route_programme(costs, steps), minimise, limits)


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
    return _solved(*_split_programme(costs, steps), minimise, limits)


@dataclass(frozen=True, eq=False)
class _Programme:
    """Minimise one of `sums` while low <= rows <= high; variables go from 0 to `most`.

    `sums`: per amount, what each variable adds to it. `usual`: how much there is of it, roughly.
    """

    most: Floats
    integer: NDArray[np.bool_]
    rows: scipy.sparse.csr_array
    low: Floats
    high: Floats
    sums: Mapping[str, Floats]
    usual: Mapping[str, float]


# From the variables to a schedule and its exact amounts.
_Read: TypeAlias = Callable[[Floats], tuple[Schedule, dict[str, float]]]


def _route_programme(costs: LocalCosts, steps: LocalSteps) -> tuple[_Programme, _Read[LocalRoute]]:
    """A variable per arc: at cut i from processor p to q, which runs layer i. A unit flow."""
    k, n = steps.may.shape
    sparse = scipy.sparse
    may = np.ones((n + 2, k), dtype=bool)  # row i + 1: where layer i runs; the ends are the first
    may[0, 1:] = may[-1, 1:] = False
    may[1:-1] = steps.may.T
    cut, p, q = np.nonzero(may[:-1, :, None] & may[1:, None, :])
    runs = cut < n
    run_s, run_J = np.zeros((2, k, n + 1))
    run_s[:, :n] = steps.run_s + steps.start_s[:, None]
    run_J[:, :n] = steps.run_J + steps.start_J[:, None]
    move_s = steps.move_s[cut, p, q]
    latency_s = move_s + run_s[q, cut]
    energy_J = run_J[q, cut] + costs.copy_W * move_s + costs.idle_W * latency_s
    weights = np.append(costs.weight_bytes, 0.0)[cut]
    held = {_memory(costs.processors[at]): weights * (q == at) for at in range(k)}
    arcs, comes = np.arange(len(cut)), cut > 0
    at = np.concatenate((cut[runs] * k + q[runs], (cut[comes] - 1) * k + p[comes]))
    signs = np.concatenate((np.ones(runs.sum()), -np.ones(comes.sum())))
    columns = np.concatenate((arcs[runs], arcs[comes]))
    flow = sparse.csr_array((signs, (at, columns)), shape=(n * k, len(cut)))
    # One unit leaves the input; with no layers it goes straight to the end.
    rows = sparse.vstack([flow, sparse.csr_array((cut == 0)[None].astype(float))], format="csr")
    right = np.append(np.zeros(n * k), 1.0)
    best = local_route(costs), local_route(costs, None, 0.0, 1.0)

    def read(values: Floats) -> tuple[LocalRoute, dict[str, float]]:
        taken = (values > 0.5) & runs
        found = priced_route(costs, steps, q[taken][np.argsort(cut[taken])].tolist())
        return found, {
            "latency_s": found.latency_s,
            "energy_J": found.energy_J,
            **{name: float(sizes[taken].sum()) for name, sizes in held.items()},
        }

    return _Programme(
        np.ones(len(cut)),
        np.ones(len(cut), dtype=bool),
        rows,
        right,
        right,
        {"latency_s": latency_s, "energy_J": energy_J, **held},
        {"latency_s": best[0].latency_s, "energy_J": best[1].energy_J},
    ), read


def _split_programme(costs: LocalCosts, steps: LocalSteps) -> tuple[_Programme, _Read[LocalSplit]]:
    """Per layer and processor the units it has and whether it has any; per layer its time."""
    k, n = steps.may.shape
    sparse = scipy.sparse
    units, back_s_per_byte = costs.units[:, None], costs.copy_s_per_byte[:, 0]
    copies_s = steps.move_s[:-1, 0, :] + costs.copy_s[:, 0]
    shares_s = costs.cut_bytes[1:, None] * back_s_per_byte
    once_s, once_J = steps.start_s + copies_s, steps.start_J + costs.copy_W * copies_s
    unit_s = (steps.run_s.T + shares_s) / units
    unit_J = (steps.run_J.T + costs.copy_W * shares_s) / units
    unit_bytes = costs.weight_bytes[:, None] / units
    usual = {
        "latency_s": float((once_s + units * unit_s).min(axis=1).sum()),
        "energy_J": float((once_J + units * unit_J).min(axis=1).sum()),
    }
    ticks = _SCALE / (usual["latency_s"] or 1.0)  # per second, for the variables that are times

    def amount(had: Floats, used: Floats, time: Floats) -> Floats:
        return np.concatenate((had.ravel(), used.ravel(), time))

    def column(processor: int, values: Floats) -> Floats:
        return amount(values * (np.arange(k) == processor), none, np.zeros(n))

    none, one, each = np.zeros((n, k)), np.ones(n), sparse.eye_array(n * k)
    of_layer = sparse.kron(sparse.eye_array(n), np.ones((1, k)))
    held = {_memory(at): column(p, unit_bytes) for p, at in enumerate(costs.processors)}
    most_units = np.where(steps.may.T, units, 0)
    zero = sparse.csr_array((n * k, n))
    rows = [
        sparse.hstack([of_layer, sparse.csr_array((n, n * k + n))]),
        sparse.hstack([each, -each * np.repeat(costs.units, k), zero]),
        sparse.hstack(
            [each * (ticks * had_s.ravel()) for had_s in (unit_s, once_s)] + [-of_layer.T]
        ),
    ]
    high = np.concatenate((costs.units, np.zeros(2 * n * k)))
    low = np.concatenate((costs.units, np.full(2 * n * k, -np.inf)))

    def read(values: Floats) -> tuple[LocalSplit, dict[str, float]]:
        had = np.rint(values[: n * k]).reshape(n, k)
        latency_s = float(((had > 0) * once_s + had * unit_s).max(axis=1).sum())
        energy_J = float(((had > 0) * once_J + had * unit_J).sum() + costs.idle_W * latency_s)
        found = LocalSplit(latency_s, energy_J, tuple(map(tuple, had.astype(int).tolist())))
        sizes = (had * unit_bytes).sum(axis=0).tolist()
        return found, {
            "latency_s": latency_s,
            "energy_J": energy_J,
            **dict(zip(map(_memory, costs.processors), sizes, strict=True)),
        }

    return _Programme(
        amount(most_units, steps.may.T.astype(float), np.full(n, np.inf)),
        amount(np.ones((n, k)), np.ones((n, k)), np.zeros(n)).astype(bool),
        sparse.vstack(rows, format="csr"),
        low,
        high,
        {
            "latency_s": amount(none, none, one / ticks),
            "energy_J": amount(unit_J, once_J, one * costs.idle_W / ticks),
            **held,
        },
        usual,
    ), read


def _solved(
    programme: _Programme, read: _Read[Schedule], minimise: str, limits: Mapping[str, float]
) -> Schedule:
    costs = programme.sums[minimise]
    costs = costs * _scale(costs, programme.usual[minimise])
    broken: dict[str, float] = {}
    for margin in _MARGINS:
        kept = {name: most * (1 - margin * (name in broken)) for name, most in limits.items()}
        values = _least(programme, costs, kept)
        if values is None:
            raise _infeasible(programme, read, limits)
        found, amounts = read(values)
        if not (now := _broken(amounts, limits)):
            return found
        broken |= now
    raise RuntimeError(f"HiGHS keeps breaking {', '.join(broken)} by rounding")


def _least(
    programme: _Programme, costs: Floats, limits: Mapping[str, float], may_exceed: bool = False
) -> Floats | None:
    """The variables with the least cost, None if there are none.

    Where limits may be exceeded, that costs as much as it is of the limit.
    """
    optimize, sparse = scipy.optimize, scipy.sparse
    most = np.array(list(limits.values()))
    sums = np.array([programme.sums[name] for name in limits]).reshape(-1, len(costs))
    scales = np.array([_scale(row, limit) for row, limit in zip(sums, most, strict=True)])
    slacks = len(most) if may_exceed else 0
    slack_costs = _SCALE / (np.where(most > 0, most, _SCALE) * scales)[:slacks]
    rows = sparse.hstack([programme.rows, sparse.csr_array((programme.rows.shape[0], slacks))])
    constraints = [optimize.LinearConstraint(rows, programme.low, programme.high)]
    if limits:
        over = -sparse.eye_array(len(most), slacks)
        limited = sparse.hstack([sparse.csr_array(sums * scales[:, None]), over])
        constraints.append(optimize.LinearConstraint(limited, -np.inf, most * scales))
    result = optimize.milp(
        np.concatenate([costs, slack_costs]),
        integrality=np.concatenate([programme.integer, np.zeros(slacks)]),
        bounds=optimize.Bounds(0.0, np.concatenate([programme.most, np.full(slacks, np.inf)])),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    if result.status == _INFEASIBLE:
        return None
    if result.x is None:
        raise RuntimeError(f"HiGHS: {result.message}")
    values: Floats = result.x[: len(costs)]
    return values


def _infeasible(
    programme: _Programme, read: _Read[Schedule], limits: Mapping[str, float]
) -> Infeasible:
    """By how much the limits must be raised: together, and each alone."""
    values = _least(programme, np.zeros(len(programme.most)), limits, may_exceed=True)
    assert values is not None
    excess = _broken(read(values)[1], limits)
    if not excess:
        raise ValueError(
            f"{next(iter(limits))}: too close to call for HiGHS, by sums of these sizes"
        )
    alone: dict[str, float] = {}
    for name, most in limits.items():
        others = {other: limits[other] for other in limits if other != name}
        costs = programme.sums[name]
        values = _least(programme, costs * _scale(costs, most), others)
        if values is not None:
            alone |= _broken(read(values)[1], {name: most})
    return Infeasible(excess, alone)


def _broken(amounts: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    return {
        name: amounts[name] - most
        for name, most in limits.items()
        if amounts[name] > most * (1 + ROUNDING)
    }


def _scale(coefficients: Floats, usual: float) -> float:
    largest = float(np.max(np.abs(coefficients), initial=0.0))
    return _SCALE / (max(usual, largest / _COEFFICIENTS) if usual > 0 else largest or 1.0)


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
