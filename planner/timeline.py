"""What a plan is worth: the predicted latency of a query at every moment of the upload."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, TypeAlias

import numpy as np

from planner.costs import Floats, LayerCosts, Link
from planner.route import latencies_s
from planner.upload import UploadPlan

Ack: TypeAlias = Literal["layer", "partition"]


@dataclass(frozen=True, slots=True)
class Point:
    """From `time_s` on a query takes `latency_s`, with `uploaded_bytes` acknowledged.

    `partition` is the plan's partition that was acknowledged (wholly or in part) at that moment,
    `layer` the layer with ack="layer"; both are None for the first point, before anything.
    """

    time_s: float
    latency_s: float
    uploaded_bytes: float
    partition: int | None = None
    layer: int | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """Predicted latency while a plan uploads: a step function, and its mean over the horizon."""

    mean_latency_s: float
    horizon_s: float
    points: tuple[Point, ...]


def timeline(
    costs: LayerCosts,
    link: Link,
    plan: UploadPlan,
    ack: Ack = "layer",
    horizon_s: float | None = None,
) -> Timeline:
    """Latency over time while `plan` uploads in one stream, layers back to back.

    The client may use a layer once it knows that the layer is there: with ack="layer" when the
    layer's last byte is acknowledged, with ack="partition" when its partition's is. Byte b is
    acknowledged at b / up_Bps + rtt_s (half of the round trip on the way there, half back).
    The mean is weighted by time over [0, horizon]; the default horizon is the moment at which the
    last weight byte of the whole model would be acknowledged, the same for every plan, so that
    means compare. A horizon of 0 gives the latency at time 0.
    """
    if ack not in ("layer", "partition"):
        raise ValueError(f"ack is 'layer' or 'partition', not {ack!r}")
    if horizon_s is None:
        horizon_s = costs.total_bytes / link.up_Bps + link.rtt_s if costs.total_bytes else 0.0
    elif not (isinstance(horizon_s, Real) and 0 <= horizon_s < math.inf):
        raise ValueError(f"horizon_s is a number of seconds from 0, not {horizon_s!r}")
    steps = _steps(plan, ack)
    latency_s = _latency_after(costs, link, [layers for _, layers in steps])
    sizes = [sum(costs.weight_bytes[layer] for layer in layers) for _, layers in steps]
    sent = np.cumsum([0.0, *sizes])
    times = [0.0, *(sent[1:] / link.up_Bps + link.rtt_s).tolist()]
    points = [Point(0.0, float(latency_s[0]), 0.0)]
    for index, (partition, layers) in enumerate(steps, start=1):
        layer = layers[-1] if ack == "layer" else None
        points.append(
            Point(times[index], float(latency_s[index]), float(sent[index]), partition, layer)
        )
    return Timeline(time_mean(times, latency_s, horizon_s), horizon_s, tuple(points))


def _steps(plan: UploadPlan, ack: Ack) -> list[tuple[int, tuple[int, ...]]]:
    """Partition and layers of each acknowledgement, in order."""
    try:
        partitions = [(index, tuple(layers)) for index, layers in enumerate(plan.partitions)]
    except TypeError as error:
        raise ValueError(f"the plan's partitions are lists of layers: {error}") from None
    if ack == "partition":
        return [(index, layers) for index, layers in partitions if layers]
    return [(index, (layer,)) for index, part in partitions for layer in part]


def _latency_after(costs: LayerCosts, link: Link, steps: list[tuple[int, ...]]) -> Floats:
    """Latency before the first step and after each."""
    never = len(steps) + 1
    sent_at = [never] * len(costs)
    for index, layers in enumerate(steps, start=1):
        for layer in layers:
            if not (isinstance(layer, Integral) and 0 <= layer < len(costs)):
                raise ValueError(f"the plan names layer {layer!r} of {len(costs)}")
            sent_at[layer] = min(index, sent_at[layer])
    usable_at = [max((sent_at[need] for need in needs), default=0) for needs in costs.needs]
    now = np.arange(never)
    return latencies_s(costs, link, lambda layer: now >= usable_at[layer], never)


def time_mean(times: Sequence[float], values: Floats, horizon_s: float) -> float:
    """Mean over [0, horizon] of what is `values[i]` from `times[i]` on; times[0] is 0."""
    if horizon_s == 0:
        return float(values[0])
    edges = np.minimum([*times, horizon_s], horizon_s)
    # Points after the horizon have no width; the last one lasts until the horizon.
    edges[-1] = horizon_s
    return float(np.dot(np.diff(edges), values) / horizon_s)
