"""Several processors in one device: which of them runs each layer.

Local offloading, as surveys of deep learning on mobile devices call it: DeepX (Lane et al.,
IPSN'16) decomposes a network into unit-blocks and runs these on the CPU, GPU and DSP that suit
them, and LEO (Georgiev et al., MobiCom'16) schedules sensor pipelines jointly over CPU, GPU,
co-processor and cloud. From their abstracts we have what they decide and on what grounds; the
models and formulations here, and in `planner.local_ilp`, are reconstructed, not theirs.

Here: what the processors cost, and the shortest path over k processors x layers, the same as
over client and edge. Each layer runs on one processor; the data starts and ends at the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.costs import Floats, not_negative, numbers


@dataclass(frozen=True, eq=False)
class Processor:
    """A processor that can run layers, alone and cool.

    `layer_s` (n): seconds for layer i. `active_W`: drawn while it works, on top of what the board
    idles at. `start_s`: before each layer, to wake and launch. `runs` (n): which layers it can
    run; None: all. Raises ValueError that names the field for what is negative, not finite or
    of another length.
    """

    name: str
    layer_s: Floats
    active_W: float
    start_s: float
    runs: NDArray[np.bool_]

    def __init__(
        self,
        name: str,
        layer_s: ArrayLike,
        active_W: float,
        start_s: float = 0.0,
        runs: Sequence[bool] | None = None,
    ) -> None:
        checked = numbers(f"layer_s of {name}", layer_s, None)
        not_negative(f"active_W of {name}", active_W)
        not_negative(f"start_s of {name}", start_s)
        may = (
            np.ones(len(checked))
            if runs is None
            else numbers(f"runs of {name}", runs, len(checked))
        )
        _set(self, name=name, layer_s=checked, active_W=active_W, start_s=start_s, runs=may > 0)


@dataclass(frozen=True, eq=False)
class LocalCosts:
    """What n layers cost on k processors, and what it costs to bring their data there.

    `processors` (k): the first has the input and gets the answer. `weight_bytes` (n), `cut_bytes`
    (n + 1): as in `LayerCosts`. `units` (n): into how many equal parts layer i can be split (the
    output channels of a convolution), 1 by default. `copy_s`, `copy_s_per_byte` (k, k): seconds to
    bring data from one processor to another, 0 by default, as where memory is shared. `copy_W`:
    drawn while data is copied, on top of `idle_W`, which the board draws all the time.

    Raises ValueError that names the field when there is no processor, when two have one name,
    when lengths differ and when a number is negative or not finite.
    """

    processors: tuple[Processor, ...]
    weight_bytes: Floats
    cut_bytes: Floats
    units: NDArray[np.int64]
    copy_s: Floats
    copy_s_per_byte: Floats
    copy_W: float
    idle_W: float

    def __init__(
        self,
        processors: Sequence[Processor],
        weight_bytes: ArrayLike,
        cut_bytes: ArrayLike,
        units: ArrayLike | None = None,
        *,
        copy_s: ArrayLike = 0.0,
        copy_s_per_byte: ArrayLike = 0.0,
        copy_W: float = 0.0,
        idle_W: float = 0.0,
    ) -> None:
        if not isinstance(processors, list | tuple) or not all(
            isinstance(processor, Processor) for processor in processors
        ):
            raise ValueError(f"processors is a list of Processor, not {processors!r:.80}")
        k = len(processors)
        if k == 0:
            raise ValueError("processors is empty; at least one runs layers")
        if len({processor.name for processor in processors}) < k:
            raise ValueError("processors have a name twice")
        n = len(processors[0].layer_s)
        for processor in processors:
            numbers(f"layer_s of {processor.name}", processor.layer_s, n)
        parts = numbers("units", np.ones(n) if units is None else units, n)
        if (parts != np.floor(parts)).any() or (parts < 1).any() or (parts > 1e6).any():
            raise ValueError("units are whole numbers from 1 to 1,000,000")
        not_negative("copy_W", copy_W)
        not_negative("idle_W", idle_W)
        _set(
            self,
            processors=tuple(processors),
            weight_bytes=numbers("weight_bytes", weight_bytes, n),
            cut_bytes=numbers("cut_bytes", cut_bytes, n + 1),
            units=parts.astype(np.int64),
            copy_s=_square("copy_s", copy_s, k),
            copy_s_per_byte=_square("copy_s_per_byte", copy_s_per_byte, k),
            copy_W=copy_W,
            idle_W=idle_W,
        )

    def __len__(self) -> int:
        return len(self.weight_bytes)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a resource monitor saw: how much of each processor (k) there is for us now.

    `free`: the share of its time, from 0 (do not use) to 1. `slowdown`: by how much heat or a low
    clock slows it, from 1. `memory_bytes`: free for weights, infinite if unknown. Raises
    ValueError that names the field.
    """

    free: tuple[float, ...]
    slowdown: tuple[float, ...]
    memory_bytes: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, low, high in (
            ("free", 0, 1),
            ("slowdown", 1, 1e9),
            ("memory_bytes", 0, math.inf),
        ):
            values = getattr(self, name)
            if not isinstance(values, list | tuple):
                raise ValueError(f"{name} is a tuple of numbers, not {values!r:.80}")
            if len(values) != len(self.free):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.free)}")
            for value in values:
                if not (isinstance(value, Real) and low <= float(value) <= high):
                    raise ValueError(f"{name} is from {low:g} to {high:g}, not {value!r}")

    @classmethod
    def all_of(cls, processors: int) -> Resources:
        """Nothing else runs, nothing is hot, memory is no matter."""
        return cls((1.0,) * processors, (1.0,) * processors, (math.inf,) * processors)


@dataclass(frozen=True, slots=True)
class LocalRoute:
    """Which processor runs each layer, by its index, and what a query takes so."""

    latency_s: float
    energy_J: float
    processors: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LocalSteps:
    """Seconds and joules of each step, given the resources: what planners add up.

    `start_s` (k) before a layer; `run_s`, `run_J` (k, n) for a whole layer without its start,
    joules on top of idling; `move_s` (n + 1, k, k) to bring a cut's data over; `may` (k, n): where
    layers can run at all. A busy processor works for us only its free share of the time, and a hot
    one works longer for the same (at the power it draws when cool, which is a bound from above).
    """

    start_s: Floats
    start_J: Floats
    run_s: Floats
    run_J: Floats
    move_s: Floats
    may: NDArray[np.bool_]

    @classmethod
    def of(cls, costs: LocalCosts, resources: Resources | None) -> LocalSteps:
        """Raises ValueError when resources are of other processors, and for a layer without one."""
        k = len(costs.processors)
        seen = resources or Resources.all_of(k)
        if not isinstance(seen, Resources):
            raise ValueError(f"resources are Resources, not {seen!r:.80}")
        if len(seen.free) != k:
            raise ValueError(f"resources are of {len(seen.free)} processors, not {k}")
        free, slowdown = np.array(seen.free), np.array(seen.slowdown)
        may = np.array([processor.runs for processor in costs.processors]) & (free > 0)[:, None]
        if not may.any(axis=0).all():
            layer = int(np.argmin(may.any(axis=0)))
            raise ValueError(f"processors: layer {layer} can run on none that is free")
        active_W = np.array([processor.active_W for processor in costs.processors])
        start_s = np.array([processor.start_s for processor in costs.processors])
        work_s = np.array([p.layer_s for p in costs.processors]) * slowdown[:, None]
        return cls(
            start_s,
            start_s * active_W,
            work_s / np.where(free > 0, free, 1.0)[:, None],
            work_s * active_W[:, None],
            costs.copy_s + costs.cut_bytes[:, None, None] * costs.copy_s_per_byte,
            may,
        )


def local_route(
    costs: LocalCosts,
    resources: Resources | None = None,
    s_weight: float = 1.0,
    J_weight: float = 0.0,
) -> LocalRoute:
    """The route with the least s_weight * seconds + J_weight * joules. Shortest path, O(n k^2).

    Takes no notice of memory: that and limits are for `local_ilp.limited_route`. Raises ValueError
    when a weight is negative or not finite, when both are zero, when resources are of other
    processors, and when a layer can run on none.
    """
    not_negative("s_weight", s_weight)
    not_negative("J_weight", J_weight)
    if s_weight == J_weight == 0:
        raise ValueError("s_weight and J_weight are both 0: nothing to minimise")
    steps = LocalSteps.of(costs, resources)
    per_s = s_weight + J_weight * costs.idle_W
    run = per_s * (steps.run_s + steps.start_s[:, None])
    run += J_weight * (steps.run_J + steps.start_J[:, None])
    run[~steps.may] = np.inf
    move = (per_s + J_weight * costs.copy_W) * steps.move_s
    ahead = move[-1, :, 0]  # from each processor to the end
    then: list[NDArray[np.intp]] = []
    for i in range(len(costs) - 1, -1, -1):
        ways = move[i] + (run[:, i] + ahead)
        then.append(ways.argmin(axis=1))
        ahead = ways.min(axis=1)
    processors, at = [], 0
    for choice in reversed(then):
        at = int(choice[at])
        processors.append(at)
    return priced_route(costs, steps, processors)


def priced_route(costs: LocalCosts, steps: LocalSteps, processors: Sequence[int]) -> LocalRoute:
    """What a route takes: seconds, and joules with what the board idles meanwhile."""
    at, layers = np.array(processors, dtype=np.intp), np.arange(len(costs))
    moves_s = steps.move_s[np.arange(len(costs) + 1), [0, *processors], [*processors, 0]].sum()
    latency_s = (steps.run_s[at, layers] + steps.start_s[at]).sum() + moves_s
    work_J = (steps.run_J[at, layers] + steps.start_J[at]).sum() + costs.copy_W * moves_s
    energy_J = work_J + costs.idle_W * latency_s
    return LocalRoute(float(latency_s), float(energy_J), tuple(processors))


def _square(name: str, given: ArrayLike, k: int) -> Floats:
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is one number, or {k} rows of {k}: {error}") from None
    if values.shape not in ((), (k, k)):
        raise ValueError(f"{name} is one number, or {k} rows of {k}, not of shape {values.shape}")
    square = np.where(np.eye(k, dtype=bool), values if values.ndim else 0.0, values)
    checked = numbers(name, square.ravel(), k * k).reshape(k, k)
    if np.diagonal(checked).any():
        raise ValueError(f"{name} has to be 0 from a processor to itself")
    return checked


def _set(value: object, **given: Any) -> None:
    for name, field in given.items():
        object.__setattr__(value, name, field)
