"""The upload order at progressive precision: steps of (layer, plane), planned over both at once.

A weight can travel as nested planes: with the first a layer runs on the edge at reduced precision,
each further one refines it, the last makes it exact. Two aims, the first before the second:

1. The least area under the latency curve. A layer counts once its first plane is there, so this is
   the efficiency order (`planner.efficiency`) on the bytes of first planes. Some processors
   multiply faster by weights that are not exact yet (decision 0028): a layer's last plane, which
   makes it slower, then comes after all other refinement, by Smith's rule for what it adds.
2. The least area under the noise curve. Weights rounded to b mantissa bits carry noise of relative
   power 0.045 * 2^(-2b) (`mantissa_noise`); rounding errors of different weights are uncorrelated,
   so powers add over the layers that run on the edge. Refinement steps are then jobs with a length
   (bytes) and a weight (noise removed) in chains (a layer's planes, in order), and the area is
   their weighted sum of completion times. W. A. Horn, "Single-machine job sequencing with treelike
   precedence ordering and linear delay penalties", SIAM J. Appl. Math. 23 (1972), and J. B. Sidney,
   "Decomposition algorithms for single-machine sequencing with precedence relations and deferral
   costs", Oper. Res. 23 (1975): merge a job into the one before it in its chain while its weight
   per length is the higher, then go by weight per length (Smith's rule). That is optimal.

What pays nothing on this link changes neither curve, so it comes after the refinement of what
does, in the same manner: first planes, then refinement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from numbers import Integral, Real
from typing import TypeAlias

import numpy as np

from planner.costs import LayerCosts, Link
from planner.efficiency import efficiency_blocks
from planner.prices import Where
from planner.route import Route, route
from planner.timeline import time_mean

Step: TypeAlias = tuple[int, int]
Steps: TypeAlias = tuple[Step, ...]
Jobs: TypeAlias = list[tuple[float, Steps]]


def mantissa_noise(bits: int) -> float:
    """Relative noise power of numbers known to `bits` stored mantissa bits (3: 12-bit floats).

    In the binade [1, 2) the error is uniform over a step of 2^-bits, of variance 2^(-2 bits) / 12.
    Over the square of the number, averaged for log-uniform mantissas: times 3 / (8 ln 2). It is
    the 0.180 * 2^(-2p), p = bits + 1, of B. Widrow and I. Kollar, "Quantization Noise" (2008),
    chapter 12. Raises ValueError for a negative number of bits.
    """
    if not (isinstance(bits, Integral) and bits >= 0):
        raise ValueError(f"bits is a number of mantissa bits from 0, not {bits!r}")
    return 3 / (8 * math.log(2)) / 12 * 4.0**-bits


PRECISION_NOISE: Mapping[str, float] = {
    "bfloat16": mantissa_noise(7),
    "exact": 0.0,
}


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane of a layer's weights: bytes still to send, 0 once it is there.

    `noise` is the relative noise power of the weights once this plane and those before it are
    there, as in `PRECISION_NOISE`. Raises ValueError that names the field unless both are finite
    and >= 0.
    """

    missing_bytes: float
    noise: float

    def __post_init__(self) -> None:
        for name in ("missing_bytes", "noise"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 <= float(value) < math.inf):
                raise ValueError(f"{name} is a finite number from 0, not {value!r}")


Planes: TypeAlias = Sequence[Sequence[Plane]]


@dataclass(frozen=True, slots=True)
class ProgressivePlan:
    """Steps (layer, plane index) in upload order, grouped into partitions.

    A partition is a block of first planes that pay together, or a run of one layer's further
    planes, or the first plane of a layer that does not pay.
    """

    partitions: tuple[Steps, ...]

    @property
    def steps(self) -> Steps:
        """All steps of the plan in upload order."""
        return tuple(step for partition in self.partitions for step in partition)


def progressive_plan(
    costs: LayerCosts, link: Link, planes: Planes, slower: Sequence[float] | None = None
) -> ProgressivePlan:
    """The order in which to upload what is missing of `planes` over `link`.

    `planes` has, per layer, all planes of its own weights in order of precedence, those that are
    there with 0 bytes missing: none for a layer without weights of its own, one for weights that
    are sent whole. A layer can run on the edge when its first plane and those of the owners in
    `costs.shared` are there. A shared weight is counted in its owner; its noise counts once for
    each layer that uses it. `costs.weight_bytes` is not looked at. Every plane of which bytes are
    missing is in the plan once, after those before it.

    `slower` has, per layer, how much longer the edge takes for it once its last plane is there, in
    any one unit; None: no longer.

    O(n) for each block that pays, as in `planner.efficiency`. Raises ValueError when `planes` has
    not one entry per layer or a plane adds noise to what those before it give, or `slower` is not
    one finite number from 0 per layer.
    """
    slower = _slower(slower, len(costs))
    first = _first_planes(costs, planes)
    paying, rest = efficiency_blocks(first, link)
    uploaded = {layer for block in paying for layer in block}
    uses = _uses(costs, route(first, link, uploaded).placement)
    everywhere: Sequence[Where] = ["edge"] * len(costs)
    used = [layer for layer, count in enumerate(uses) if count]
    unused = [layer for layer, count in enumerate(uses) if not count]
    return ProgressivePlan((
        *(tuple((layer, 0) for layer in block) for block in paying),
        *_refinement(planes, used, uses, slower),
        *(((layer, 0),) for layer in rest),
        *_refinement(planes, unused, _uses(costs, everywhere), slower),
    ))  # fmt: skip


def _first_planes(costs: LayerCosts, planes: Planes) -> LayerCosts:
    """`costs` with the bytes that each layer needs before the edge can run it at all."""
    if not isinstance(planes, list | tuple) or not all(
        isinstance(own, list | tuple) for own in planes
    ):
        raise ValueError(f"planes is a list of planes per layer, not {planes!r:.80}")
    if len(planes) != len(costs):
        raise ValueError(f"planes has {len(planes)} entries; {len(costs)} are needed")
    for layer, own in enumerate(planes):
        if not all(isinstance(plane, Plane) for plane in own):
            raise ValueError(f"planes[{layer}] holds something that is no Plane")
        if any(b.noise > a.noise for a, b in pairwise(own)):
            raise ValueError(f"planes[{layer}] adds noise with a later plane")
    first_bytes = np.array([own[0].missing_bytes if own else 0.0 for own in planes])
    return replace(costs, weight_bytes=first_bytes)


def _uses(costs: LayerCosts, placement: Sequence[Where]) -> list[int]:
    """Per layer, how many layers on the edge use its weights, itself included."""
    uses = [int(where == "edge") for where in placement]
    for layer, owner in set(costs.shared):
        if layer != owner:
            uses[owner] += placement[layer] == "edge"
    return uses


def _slower(slower: Sequence[float] | None, layers: int) -> Sequence[float]:
    if slower is None:
        return [0.0] * layers
    if not isinstance(slower, list | tuple) or len(slower) != layers:
        raise ValueError(f"slower is a list of {layers} numbers, not {slower!r:.80}")
    for layer, value in enumerate(slower):
        if not (isinstance(value, Real) and 0 <= float(value) < math.inf):
            raise ValueError(f"slower[{layer}] is a finite number from 0, not {value!r}")
    return slower


def _refinement(
    planes: Planes, layers: Iterable[int], uses: Sequence[int], slower: Sequence[float]
) -> Iterator[Steps]:
    """The layers' planes after the first, by noise removed per byte under precedence; then last
    planes that make layers slower, by what they add per byte."""
    jobs: Jobs = []
    slowing: Jobs = []
    for layer in layers:
        own = planes[layer]
        if slower[layer] and len(own) > 1 and own[-1].missing_bytes:
            own, last = own[:-1], own[-1]
            slowing.append((slower[layer] / last.missing_bytes, ((layer, len(own)),)))
        jobs += _chain(own, layer, uses[layer])
    # Stable, and ratios fall along a chain, so planes stay in order.
    yield from (steps for _, steps in sorted(jobs, key=lambda job: -job[0]))
    yield from (steps for _, steps in sorted(slowing, key=lambda job: job[0]))


def _chain(own: Sequence[Plane], layer: int, uses: int) -> Jobs:
    """A layer's refinement as (noise removed per byte, steps), with falling ratios."""
    merged: list[tuple[float, float, Steps]] = []
    for index, plane in enumerate(own[1:], start=1):
        if not plane.missing_bytes:
            continue
        removed, size = _removed(own, index) * uses, plane.missing_bytes
        steps: Steps = ((layer, index),)
        while merged and removed / size > merged[-1][0] / merged[-1][1]:
            removed_before, size_before, steps_before = merged.pop()
            removed, size = removed + removed_before, size + size_before
            steps = (*steps_before, *steps)
        merged.append((removed, size, steps))
    return [(removed / size, steps) for removed, size, steps in merged]


def _removed(own: Sequence[Plane], index: int) -> float:
    """Noise that goes when plane `index` arrives after all before it."""
    last = index
    while last + 1 < len(own) and not own[last + 1].missing_bytes:
        last += 1  # these are there already, and begin to count
    return own[index - 1].noise - own[last].noise


@dataclass(frozen=True, slots=True)
class ProgressivePoint:
    """From `time_s` on a query takes `latency_s`, its answer with relative noise power `noise`.

    `layer`, `plane` and `partition` tell which step was acknowledged; None for the first point.
    """

    time_s: float
    latency_s: float
    noise: float
    uploaded_bytes: float
    partition: int | None = None
    layer: int | None = None
    plane: int | None = None


@dataclass(frozen=True, slots=True)
class ProgressiveTimeline:
    """Predicted latency and noise while a plan uploads: step functions, and their means."""

    mean_latency_s: float
    mean_noise: float
    horizon_s: float
    points: tuple[ProgressivePoint, ...]


def progressive_timeline(
    costs: LayerCosts,
    link: Link,
    planes: Planes,
    plan: ProgressivePlan,
    horizon_s: float | None = None,
) -> ProgressiveTimeline:
    """Latency and noise over time while `plan` uploads `planes`, as `planner.timeline` has it.

    Noise is the sum, over the layers that the fastest route runs on the edge, of the noise of the
    weights that they use as far as acknowledged. The default horizon is the moment at which the
    last missing byte of all planes would be acknowledged; give that of the exact plan's timeline
    to compare the two. A route for each first plane: about 1 ms for 1,000 layers. Raises
    ValueError for steps that `planes` does not have or that come twice, and as `progressive_plan`.
    """
    first = _first_planes(costs, planes)
    total_bytes = sum(plane.missing_bytes for own in planes for plane in own)
    if horizon_s is None:
        horizon_s = total_bytes / link.up_Bps + link.rtt_s if total_bytes else 0.0
    elif not (isinstance(horizon_s, Real) and 0 <= horizon_s < math.inf):
        raise ValueError(f"horizon_s is a number of seconds from 0, not {horizon_s!r}")
    _check_steps(planes, plan.steps)
    points = list(_points(costs, first, link, planes, plan))
    times = [point.time_s for point in points]
    return ProgressiveTimeline(
        time_mean(times, np.array([point.latency_s for point in points]), horizon_s),
        time_mean(times, np.array([point.noise for point in points]), horizon_s),
        horizon_s,
        tuple(points),
    )


def _points(
    costs: LayerCosts, first: LayerCosts, link: Link, planes: Planes, plan: ProgressivePlan
) -> Iterator[ProgressivePoint]:
    """Before the upload, and after each step of it."""
    there = {
        (i, k) for i, own in enumerate(planes) for k, p in enumerate(own) if not p.missing_bytes
    }
    noise = [_noise(own, layer, there) for layer, own in enumerate(planes)]
    uploaded: set[int] = set()
    current = route(first, link)
    yield ProgressivePoint(0.0, current.latency_s, _total(costs, current, noise), 0.0)
    steps = [(p, *step) for p, partition in enumerate(plan.partitions) for step in partition]
    sent = accumulate(planes[layer][plane].missing_bytes for _, layer, plane in steps)
    for (partition, layer, plane), size in zip(steps, sent, strict=True):
        there.add((layer, plane))
        noise[layer] = _noise(planes[layer], layer, there)
        if plane == 0:
            uploaded.add(layer)
            current = route(first, link, uploaded)
        yield ProgressivePoint(
            size / link.up_Bps + link.rtt_s, current.latency_s, _total(costs, current, noise),
            size, partition, layer, plane,
        )  # fmt: skip


def _check_steps(planes: Planes, steps: Steps) -> None:
    for layer, plane in steps:
        if not (_counts(layer, len(planes)) and _counts(plane, len(planes[layer]))):
            raise ValueError(f"the plan names plane {plane} of layer {layer}, which does not exist")
    if len(set(steps)) != len(steps):
        raise ValueError("the plan has a step twice")


def _counts(index: object, count: int) -> bool:
    return isinstance(index, Integral) and 0 <= int(index) < count


def _noise(own: Sequence[Plane], layer: int, there: set[Step]) -> float:
    """Noise of a layer's own weights with the planes that are there; 0 before the first."""
    noise = 0.0
    for index, plane in enumerate(own):
        if (layer, index) not in there:
            break
        noise = plane.noise
    return noise


def _total(costs: LayerCosts, chosen: Route, noise: Sequence[float]) -> float:
    uses = _uses(costs, chosen.placement)
    return math.fsum(count * power for count, power in zip(uses, noise, strict=True))
